"""`fluvial ls` and `fluvial info`."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import click
import msgspec

from fluvial.cli.options import CommandFailed
from fluvial.cli.target import NamePrefix, StreamPath, Target, with_target
from fluvial.client import streams
from fluvial.client.connection import Connection
from fluvial.client.errors import ServerRefused
from fluvial.client.retries import Retries
from fluvial.client.streams import StreamState
from fluvial.model.duration import format_duration
from fluvial.model.names import StreamName

_KIB: Final = 1_024
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_NOT_THERE: Final = frozenset({403, 404, 410})

#: A time of this server, to the second and then further.
_UTC: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(?:Z|\+00:00)")

_HEADINGS: Final = ("SIZE", "STATE", "EXPIRES", "LAST APPEND", "TYPE", "NAME")


@click.command("ls")
@click.argument("prefix", type=NamePrefix(), default="")
@click.option("-l", "--long", "is_long", is_flag=True, help="With size, state, expiry, last append and content type.")
@click.option("-o", "--output", "kind", type=click.Choice(["text", "json", "jsonl"]), default="text", show_default=True)
@with_target
def list_command(*, target: Target, prefix: str, is_long: bool, kind: str) -> None:
    """List the streams whose names begin with PREFIX.

    A token lists the streams that it may read. json and jsonl have all that the server tells of each stream.
    """
    with target.connect() as connection:
        retries = target.retries()
        found = retries.run(lambda: list(streams.list_streams(connection, prefix)), is_repeatable=True)
        if kind == "text" and not is_long:
            for stream in found:
                click.echo(stream["name"])
            return
        described = _described(connection, found, retries)
        match kind:
            case "text":
                _print_table([_row(stream) for stream in described])
            case "jsonl":
                for stream in described:
                    click.echo(msgspec.json.encode(stream))
            case _:
                click.echo(msgspec.json.format(msgspec.json.encode(list(described))))


def _described(connection: Connection, found: list[dict[str, Any]], retries: Retries) -> Iterator[dict[str, Any]]:
    """The streams with details: from a server that lists names only, by asking for each stream."""
    for stream in found:
        if len(stream) > 1:
            yield stream
            continue
        name = stream["name"]
        try:
            yield describe(name, retries.run(lambda: streams.head(connection, name), is_repeatable=True))  # noqa: B023
        except ServerRefused as exc:
            if exc.status not in _NOT_THERE:
                raise


def describe(name: str, state: StreamState) -> dict[str, Any]:
    """What HEAD tells of a stream, by the names of /v1/info."""
    return {
        "name": name,
        "contentType": state.content_type,
        "offset": state.offset,
        "closed": state.closed,
        "expiresAt": state.expires_at,
        "ttlSeconds": state.ttl_seconds,
    }


def _print_table(rows: list[tuple[str, ...]]) -> None:
    if not rows:
        return
    table = [_HEADINGS, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(_HEADINGS))]
    for row in table:
        cells = [cell.rjust(width) if index == 0 else cell.ljust(width) for index, (cell, width) in
                 enumerate(zip(row, widths, strict=True))]  # fmt: skip
        click.echo("  ".join(cells).rstrip())


def _row(stream: Mapping[str, Any]) -> tuple[str, ...]:
    size = stream.get("bytes")
    return (
        "-" if size is None else format_bytes(size),
        "closed" if stream.get("closed") else "open",
        _expiry(stream),
        format_time(stream.get("lastAppendAt"), "-"),
        str(stream.get("contentType") or "-"),
        str(stream["name"]),
    )


def _expiry(stream: Mapping[str, Any]) -> str:
    ttl = stream.get("ttlSeconds")
    if ttl is not None and not stream.get("expiresAt"):
        return f"{format_duration(ttl)} unused"
    return format_time(stream.get("expiresAt"), "never")


def format_time(text: object, missing: str) -> str:
    """A time in seconds, e.g. `2030-01-01T00:00:00Z`."""
    match = _UTC.fullmatch(str(text or ""))
    return f"{match[1]}Z" if match else str(text or missing)


def format_bytes(count: int) -> str:
    """A size for people, e.g. `1.2 MiB`."""
    size, unit = float(count), 0
    while size >= _KIB and unit < len(_UNITS) - 1:
        size, unit = size / _KIB, unit + 1
    return f"{count} B" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"


@click.command("info")
@click.argument("name", type=StreamPath())
@click.option("-o", "--output", "kind", type=click.Choice(["text", "json"]), default="text", show_default=True)
@with_target
def info_command(*, target: Target, name: StreamName, kind: str) -> None:
    """Show all that the server tells of a stream."""
    with target.connect() as connection:
        retries = target.retries()
        state = retries.run(lambda: streams.head(connection, name), is_repeatable=True)
        try:
            more = retries.run(lambda: streams.info(connection, name), is_repeatable=True) or {}
        except ServerRefused as exc:
            if exc.status not in _NOT_THERE:
                raise CommandFailed(str(exc)) from exc
            more = {}
    told = {**describe(name, state), **more}
    if kind == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(told)))
        return
    width = max(map(len, told))
    for key, value in told.items():
        for index, line in enumerate(_value_lines(value)):
            click.echo(f"{key if index == 0 else '':{width}}  {line}".rstrip())


def _value_lines(value: object) -> list[str]:
    match value:
        case None:
            return ["-"]
        case bool():
            return ["yes" if value else "no"]
        case list():
            return [msgspec.json.encode(one).decode() for one in value] or ["-"]
        case dict():
            return [msgspec.json.encode(value).decode()]
        case _:
            return [str(value)]
