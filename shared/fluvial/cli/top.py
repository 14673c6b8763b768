"""`fluvial top`: what a server does, and its busiest streams."""

import os
import sys
import time
from dataclasses import replace
from typing import Final, Never

import click
import msgspec

from fluvial.cli.options import DurationMs, WholeNumber
from fluvial.cli.target import Target, with_target
from fluvial.cli.top_view import View
from fluvial.client.connection import Connection
from fluvial.client.errors import ClientError
from fluvial.client.overview import Overview, compare, read_overview

ROW_COUNT_MAX: Final = 1_000
INTERVAL_MS_MIN: Final = 100


@click.command("top")
@click.argument("server_url", metavar="[URL]", required=False)
@click.option("-n", "--rows", type=WholeNumber(1, ROW_COUNT_MAX), default=20, show_default=True,
              help="Streams to show at most.")  # fmt: skip
@click.option("--prefix", metavar="PREFIX", default="", help="Only streams whose names begin with PREFIX.")
@click.option("--interval", type=DurationMs(INTERVAL_MS_MIN), default="2s", show_default=True,
              help="Time between two readings, e.g. 500ms.")  # fmt: skip
@click.option("--once", is_flag=True, help="Print the rates of one interval, and end.")
@click.option("-o", "--output", "kind", type=click.Choice(["text", "json"]), default="text", show_default=True,
              help="json is always --once.")  # fmt: skip
@with_target
def top_command(*, target: Target, rows: int, prefix: str, interval: float, once: bool, kind: str) -> None:  # noqa: PLR0913
    """Show what a server does, and its busiest streams.

    Goes on until Ctrl-C on a terminal, and is --once elsewhere. The first 5,000 streams are looked at.
    """
    with target.connect() as connection:
        retries = target.retries()

        def read() -> Overview:
            return retries.run(lambda: read_overview(connection, prefix), is_repeatable=True)

        first = read()
        if not once and kind == "text" and _is_terminal():
            _watch(connection, prefix, interval / 1_000, _view(connection, first, first, rows))
        time.sleep(interval / 1_000)
        view = _view(connection, first, read(), rows)
    if kind == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(view.as_json())))
        return
    for line in view.lines():
        click.echo(line)


def _watch(connection: Connection, prefix: str, interval_s: float, view: View) -> Never:
    """Show a view that is renewed until Ctrl-C. A server that does not answer is asked again."""
    from rich.console import Console  # noqa: PLC0415  only a terminal pays for it
    from rich.live import Live  # noqa: PLC0415

    console = Console()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(view.on_terminal(console.height), refresh=True)
            time.sleep(interval_s)
            try:
                newest = read_overview(connection, prefix)
            except ClientError as exc:
                view = replace(view, error=str(exc))
            else:
                view = _view(connection, view.overview, newest, view.row_count)


def _is_terminal() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "") not in {"dumb", "unknown"}


def _view(connection: Connection, before: Overview, after: Overview, row_count: int) -> View:
    return View(connection.url, after, compare(before, after), row_count)
