"""`fluvial bench`: a load on a server, and what it measures."""

import asyncio
import secrets
import sys
import time
from contextlib import ExitStack
from typing import Final

import click
import msgspec

from fluvial.cli.bench_report import Report, Thresholds
from fluvial.cli.listing import format_time
from fluvial.cli.options import CommandFailed, Duration, DurationMs, UsageError, WholeNumber, cli_errors
from fluvial.cli.progress import progress_bar
from fluvial.cli.target import Target, with_target
from fluvial.client.connection import Connection
from fluvial.client.load.append_load import Load, LoadFailed, Outcome, run_load
from fluvial.client.load.http_connection import origin_of
from fluvial.client.load.numbered_lines import LINE_BYTES_MAX, LINE_BYTES_MIN, WRITER_COUNT_MAX
from fluvial.client.load.read_back import read_back
from fluvial.client.load.temporary_streams import temporary_streams
from fluvial.client.retries import Retries
from fluvial.model.lifetime import format_rfc3339_ms
from fluvial.model.names import parse_name
from fluvial.model.permissions import OPERATOR

READER_COUNT_MAX: Final = 10_000
DURATION_S_MAX: Final = 3_600
RATE_MAX: Final = 1_000_000
#: When the streams expire if the command was killed before it could delete them. The server's clock may differ a bit.
_EXPIRY_MS: Final = 24 * 3_600 * 1_000
#: How long a request is tried again before and after the load while the server refuses it.
_RETRY_S: Final = 10.0


@click.command("bench")
@click.argument("server_url", metavar="[URL]", required=False)
@click.option("--connections", type=WholeNumber(1, WRITER_COUNT_MAX), default=8, show_default=True,
              help="Connections that append, each as fast as it gets answers (see --rate).")  # fmt: skip
@click.option("--streams", "stream_count", type=WholeNumber(1, WRITER_COUNT_MAX), default=1, show_default=True,
              help="Streams that they append to.")  # fmt: skip
@click.option("--readers", type=WholeNumber(0, READER_COUNT_MAX), default=1, show_default=True,
              help="Live readers (SSE) of these streams.")  # fmt: skip
@click.option("--size", type=WholeNumber(LINE_BYTES_MIN, LINE_BYTES_MAX), default=100, show_default=True,
              help="Bytes of an append.")  # fmt: skip
@click.option("--duration", type=Duration(1, DURATION_S_MAX), default="5s", show_default=True,
              help="How long to append, e.g. 30s.")  # fmt: skip
@click.option("--rate", type=WholeNumber(1, RATE_MAX),
              help="Appends per second that are due, by all connections; latencies count from then.")  # fmt: skip
@click.option("--prefix", metavar="PREFIX",
              help="Beginning of the streams' names; bench/, and with a token PROJECT/bench/, without it.")  # fmt: skip
@click.option("--p99-max", type=DurationMs(), help="Fail if the appends' 99th percentile is longer, e.g. 50ms.")
@click.option("--rate-min", type=WholeNumber(0), help="Fail if there are fewer appends per second.")
@click.option("-o", "--output", "kind", type=click.Choice(["text", "json"]), default="text", show_default=True)
@with_target
def bench_command(  # noqa: PLR0913  one parameter for each option
    *,
    target: Target,
    connections: int,
    stream_count: int,
    readers: int,
    size: int,
    duration: int,
    rate: int | None,
    prefix: str | None,
    p99_max: float | None,
    rate_min: int | None,
    kind: str,
) -> None:
    """Measure how fast a server takes appends.

    Streams are created for it, and deleted at the end. Afterwards they are read back: the exit status is 1 unless each
    acknowledged append is there once and in order, for live readers, too. It is also 1 if a threshold is missed.
    """
    if stream_count > connections:
        raise UsageError(f"--streams {stream_count} needs as many --connections")
    names = _names(_default_prefix(target) if prefix is None else prefix, stream_count)
    with ExitStack() as stack:
        connection = stack.enter_context(target.connect())
        show = stack.enter_context(progress_bar())
        load = Load(names, duration, connections, readers, size, show, rate=rate)
        report = _measure(connection, load, target)
    failures = report.failures(Thresholds(p99_max, rate_min))
    if kind == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(report.as_json(failures))))
    else:
        for line in report.lines():
            click.echo(line)
    if failures:
        raise CommandFailed("; ".join(failures))


def _default_prefix(target: Target) -> str:
    """A prefix that the token is for, if it is one of this server's."""
    from fluvial.access.tokens import unverified_project  # noqa: PLC0415  only a token needs the parser

    if target.authorization is None:
        return "bench/"
    project = unverified_project(target.authorization.removeprefix("Bearer "))
    return "bench/" if project in {None, OPERATOR} else f"{project}/bench/"


def _names(prefix: str, count: int) -> list[str]:
    """Names that no stream has."""
    run = secrets.token_hex(4)
    with cli_errors():
        return [str(parse_name(f"{prefix}{run}/{number}")) for number in range(count)]


def _measure(connection: Connection, load: Load, target: Target) -> Report:
    def retries() -> Retries:
        return target.retries(_RETRY_S)

    expires_ms = 1_000 * int(time.time() + load.seconds) + _EXPIRY_MS
    expires_at = format_time(format_rfc3339_ms(expires_ms), "")
    with temporary_streams(connection, load.streams, expires_at, retries):
        outcome = _run(connection, load, target)
        return Report(connection.url, load, outcome, read_back(connection, load, outcome, retries))


def _run(connection: Connection, load: Load, target: Target) -> Outcome:
    origin = origin_of(connection.streams_url, target.authorization)
    if sys.platform == "win32":
        loop_factory = asyncio.new_event_loop
    else:
        from uvloop import new_event_loop as loop_factory  # noqa: PLC0415
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(run_load(origin, load))
    except LoadFailed as exc:
        raise CommandFailed(str(exc)) from exc
