"""`fluvial sweep`."""

import asyncio
import sys

import click
import msgspec

from fluvial.app import open_dynamodb_store
from fluvial.cli.options import AWS_SETTINGS, LOG_SETTINGS, cli_errors, setting_options
from fluvial.clock import Clock
from fluvial.logs import configure_logs
from fluvial.settings import Settings, settings_from


def _sweep(*, dry_run: bool, **values: str) -> None:
    """Sweep a table and a bucket once, from beginning to end.

    Ends expired streams, and deletes items and objects without an owner, which processes leave behind when they die.
    Prints a report as JSON. On AWS the sweep function does the same every day.
    """
    with cli_errors():
        settings = settings_from(values)
        configure_logs(settings)
        with asyncio.Runner() as runner:
            report = runner.run(_run_sweep(settings, dry_run=dry_run))
    if sys.stderr.isatty():
        click.echo(err=True)
    click.echo(msgspec.json.format(msgspec.json.encode(report)).decode())


async def _run_sweep(settings: Settings, *, dry_run: bool) -> dict[str, object]:
    store = await open_dynamodb_store(settings, Clock())
    # Imported after the store is open: opening it reports in one line that boto3 is not installed.
    from fluvial.aws.sweep_job import sweep_all  # noqa: PLC0415

    try:
        return await sweep_all(store, _print_progress if sys.stderr.isatty() else _print_nothing, dry_run=dry_run)
    finally:
        await store.close()


def _print_progress(items: int, objects: int) -> None:
    click.echo(f"\r{items:,} items and {objects:,} objects checked", nl=False, err=True)


def _print_nothing(_items: int, _objects: int) -> None:
    """Standard error is not a terminal."""


sweep_command = click.Command(
    "sweep",
    callback=_sweep,
    help=_sweep.__doc__,
    params=[
        click.Option(["--dry-run"], is_flag=True, help="Only report what a sweep would do."),
        *setting_options(AWS_SETTINGS | LOG_SETTINGS),
    ],
)
