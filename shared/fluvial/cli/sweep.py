"""`fluvial sweep`."""

import asyncio
import sys

import click
import msgspec

from fluvial.app import dynamodb_store
from fluvial.cli.options import OF_AWS, OF_LOGS, setting_options, told
from fluvial.clock import Clock
from fluvial.logs import configure_logs
from fluvial.settings import Settings, settings_from


def _sweep(*, dry_run: bool, **values: str) -> None:
    """Sweep a table and a bucket once, from beginning to end.

    Ends streams that have expired, and deletes what nothing leads to any more: what is left of processes that died. On
    AWS the sweep function does so every day. Prints what was found, as JSON.
    """
    with told():
        settings = settings_from(values)
        configure_logs(settings)
        with asyncio.Runner() as runner:
            report = runner.run(_swept(settings, dry_run=dry_run))
    if sys.stderr.isatty():
        click.echo(err=True)
    click.echo(msgspec.json.format(msgspec.json.encode(report)).decode())


async def _swept(settings: Settings, *, dry_run: bool) -> dict[str, object]:
    store = await dynamodb_store(settings, Clock())
    # After the store, which tells in one line when boto3 is not there.
    from fluvial.aws.sweep_job import sweep_all  # noqa: PLC0415

    try:
        return await sweep_all(store, _print_progress if sys.stderr.isatty() else _print_nothing, dry_run=dry_run)
    finally:
        await store.close()


def _print_progress(items: int, objects: int) -> None:
    click.echo(f"\r{items:,} items and {objects:,} objects looked at", nl=False, err=True)


def _print_nothing(_items: int, _objects: int) -> None:
    """Nobody watches."""


sweep_command = click.Command(
    "sweep",
    callback=_sweep,
    help=_sweep.__doc__,
    params=[
        click.Option(["--dry-run"], is_flag=True, help="Only report what there is to do."),
        *setting_options(OF_AWS | OF_LOGS),
    ],
)
