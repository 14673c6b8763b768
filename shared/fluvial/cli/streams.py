"""`fluvial create`, `close`, `fork` and `rm`: the life of a stream on a server."""

import sys

import click

from fluvial.cli.options import CommandFailed, Duration, UsageError, WholeNumber
from fluvial.cli.output import count_of
from fluvial.cli.target import NamePrefix, StreamPath, Target, fail_refused, refusals_of, tell, with_target
from fluvial.client import streams
from fluvial.client.connection import Connection
from fluvial.client.errors import ServerRefused
from fluvial.client.retries import Retries
from fluvial.client.streams import ForkPoint, NewStream
from fluvial.model.names import StreamName

_NAME = click.argument("name", type=StreamPath())
_NOT_THERE = frozenset({404, 410})


def _create_and_tell(target: Target, name: StreamName, new: NewStream, body: bytes = b"") -> None:
    with target.connect() as connection, refusals_of(name):
        is_new, state = target.retries().run(lambda: streams.create(connection, name, new, body), is_repeatable=True)
    tell(f"{'Created' if is_new else 'There is already'} {name} ({state.content_type}).")


@click.command("create")
@_NAME
@click.option("--content-type", metavar="TYPE", help="Content type; text/plain without it.")
@click.option("--json", "is_json", is_flag=True, help="The same as --content-type application/json.")
@click.option("--ttl", type=Duration(), help="Expire after so long without a read or a write, e.g. 24h.")
@click.option("--expires-at", metavar="TIME", help="Expire at a time, e.g. 2030-01-01T00:00:00Z.")
@click.option("--closed", is_flag=True, help="Create it closed: nothing can be appended.")
@click.option("--public", is_flag=True, help="Let everybody read it, also if its project is private.")
@with_target
def create_command(  # noqa: PLR0913  one parameter for each option
    *,
    target: Target,
    name: StreamName,
    content_type: str | None,
    is_json: bool,
    ttl: int | None,
    expires_at: str | None,
    closed: bool,
    public: bool,
) -> None:
    """Create a stream.

    A stream that exists with the same configuration is left as it is, with exit status 0.
    """
    if is_json and content_type is not None:
        raise UsageError("--json and --content-type exclude each other")
    if ttl is not None and expires_at is not None:
        raise UsageError("--ttl and --expires-at exclude each other")
    content_type = "application/json" if is_json else content_type or "text/plain"
    _create_and_tell(target, name, NewStream(content_type, ttl, expires_at, closed, public))


@click.command("fork")
@click.argument("source", type=StreamPath())
@click.argument("name", metavar="NEW", type=StreamPath())
@click.option("--at", "offset", metavar="OFFSET", help="Where the fork begins; without it, at the end of SOURCE.")
@click.option("--sub-offset", type=WholeNumber(0), help="Bytes, or JSON messages, after OFFSET.")
@click.option("--ttl", type=Duration(), help="Expire after so long without a read or a write, e.g. 24h.")
@click.option("--public", is_flag=True, help="Let everybody read it, also if its project is private.")
@with_target
def fork_command(  # noqa: PLR0913  one parameter for each option
    *,
    target: Target,
    source: StreamName,
    name: StreamName,
    offset: str | None,
    sub_offset: int | None,
    ttl: int | None,
    public: bool,
) -> None:
    """Create a stream that begins as another one.

    The new stream has SOURCE's bytes up to the offset. What is appended to one of the two later is not in the other.
    """
    point = ForkPoint(source, offset, sub_offset)
    _create_and_tell(target, name, NewStream(ttl_seconds=ttl, public=public, fork=point))


@click.command("close")
@_NAME
@with_target
def close_command(*, target: Target, name: StreamName) -> None:
    """Close a stream, so that readers see its end.

    Nothing can be appended any more. A stream that is closed already stays as it is.
    """
    with target.connect() as connection, refusals_of(name):
        target.retries().run(
            lambda: streams.append(connection, name, b"", content_type="", closes=True), is_repeatable=True
        )
    tell(f"Closed {name}.")


@click.command("rm")
@click.argument("names", metavar="NAME...", nargs=-1, type=StreamPath())
@click.option("--prefix", type=NamePrefix(), help="Delete all streams whose names begin with PREFIX.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_target
def remove_command(*, target: Target, names: tuple[StreamName, ...], prefix: str | None, yes: bool) -> None:
    """Delete streams.

    --prefix lists the streams first, and asks unless --yes is given. --prefix shop/ deletes all streams of the project
    shop.
    """
    if bool(names) is (prefix is not None):
        raise UsageError("give either names or --prefix")
    with target.connect() as connection:
        retries = target.retries()
        found = list(names)
        if prefix is not None:
            listed = retries.run(lambda: list(streams.list_streams(connection, prefix)), is_repeatable=True)
            found = [StreamName(str(stream["name"])) for stream in listed]
            if not found:
                raise CommandFailed(f"there is no stream whose name begins with {prefix}")
            if not yes:
                _ask(len(found), prefix)
        _remove_all(connection, found, retries)
    tell(f"Deleted {found[0] if len(found) == 1 else count_of(len(found), 'stream')}.")


def _ask(count: int, prefix: str) -> None:
    if not sys.stdin.isatty():
        raise UsageError(f"--prefix '{prefix}' finds {count_of(count, 'stream')}: give --yes to delete what it finds")
    click.confirm(f"Delete {count_of(count, 'stream')} whose names begin with '{prefix}'?", abort=True, err=True)


def _remove_all(connection: Connection, names: list[StreamName], retries: Retries) -> None:
    """Delete streams. A refusal of one does not keep the others; then the command fails."""
    refused_count = 0
    for name in names:
        try:
            _remove(connection, name, retries)
        except ServerRefused as exc:
            if len(names) == 1:
                fail_refused(exc, name)
            tell(f"{name}: {exc}")
            refused_count += 1
    if refused_count:
        raise CommandFailed(f"{refused_count:,} of {count_of(len(names), 'stream')} were not deleted")


def _remove(connection: Connection, name: StreamName, retries: Retries) -> None:
    """Delete a stream. After a lost answer it may be gone, which is what was wanted."""
    tries = 0

    def remove() -> None:
        nonlocal tries
        tries += 1
        try:
            streams.delete(connection, name)
        except ServerRefused as exc:
            if tries == 1 or exc.status not in _NOT_THERE:
                raise

    retries.run(remove, is_repeatable=True)
