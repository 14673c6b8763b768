"""`fluvial undelete`."""

import asyncio
import sys
from typing import Any

import click
import msgspec

from fluvial.app import open_dynamodb_store
from fluvial.cli.options import AWS_SETTINGS, LOG_SETTINGS, cli_errors, setting_options
from fluvial.clock import Clock
from fluvial.logs import configure_logs
from fluvial.settings import Settings, settings_from


def _undelete(*, dry_run: bool, take_over: bool, **values: str) -> None:
    """Bring back the objects that a restored table points to.

    For a table that point-in-time recovery has restored: its heads and segments may point to objects that were deleted
    since. The bucket must have versions. Delete markers are removed, and nothing else is changed, so the command may be
    repeated.

    Prints a report as JSON: the numbers of items, and of objects that were there (present), that were brought back
    (undeleted), that have no version left (lost), and failures, each of the last two with a line in the log. The exit
    status is 1 if there is any of these two.

    A bucket belongs to one table. First turn off all that runs on the bucket's present table, then give --take-over.
    """
    with cli_errors():
        settings = settings_from(values)
        configure_logs(settings)
        with asyncio.Runner() as runner:
            report = runner.run(_run(settings, dry_run=dry_run, take_over=take_over))
    if sys.stderr.isatty():
        click.echo(err=True)
    click.echo(msgspec.json.format(msgspec.json.encode(report)).decode())
    if report["lost"] or report["failures"]:
        sys.exit(1)


async def _run(settings: Settings, *, dry_run: bool, take_over: bool) -> dict[str, Any]:
    # Read-only, so that no background task changes what is brought back.
    store = await open_dynamodb_store(msgspec.structs.replace(settings, read_only=True), Clock())
    try:
        if not dry_run:
            await (store.bucket_owner.take_over() if take_over else store.bucket_owner.claim())
        elif not take_over:
            await store.bucket_owner.check()
        undeleter = store.undeleter(dry_run=dry_run)
        last = await undeleter.undelete_page(None)
        _print_progress(undeleter.report.items)
        while last is not None:
            last = await undeleter.undelete_page(last)
            _print_progress(undeleter.report.items)
        return {"dryRun": dry_run, **msgspec.to_builtins(undeleter.report)}
    finally:
        await store.close()


def _print_progress(items: int) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r{items:,} items checked", nl=False, err=True)


undelete_command = click.Command(
    "undelete",
    callback=_undelete,
    help=_undelete.__doc__,
    params=[
        click.Option(["--dry-run"], is_flag=True, help="Only report what would be brought back."),
        click.Option(["--take-over"], is_flag=True, help="Make the table the owner of the bucket first."),
        *setting_options(AWS_SETTINGS | LOG_SETTINGS),
    ],
)
