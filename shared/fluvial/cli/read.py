"""`fluvial read` and `fluvial tail`."""

import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Final

import click

from fluvial.cli.options import UsageError, WholeNumber
from fluvial.cli.output import Format, Renderer, Splitter
from fluvial.cli.target import StreamPath, Target, flush_out, with_target, write_out
from fluvial.client import streams
from fluvial.client.reading import read_pages
from fluvial.client.streams import BEGINNING, Page, StreamState
from fluvial.model.names import StreamName

_LAST_DEFAULT: Final = 10

_NAME: Final = click.argument("name", type=StreamPath())
_FORMAT: Final = click.option(
    "-o", "--output", "kind", type=click.Choice([str(kind) for kind in Format]), default="text", show_default=True,
    help="text and jsonl print a JSON message, or a line, per line; json an array; raw and base64 the answers' bytes.",
)  # fmt: skip
_OFFSETS: Final = click.option(
    "--offsets", is_flag=True, help="With jsonl or base64, print the parts that came and the offset after each."
)


@dataclass
class Selection:
    """What of a stream to print: at most the first or the last so many messages, lines or bytes."""

    first: int | None = None
    last: int | None = None


@click.command("read")
@_NAME
@click.option("--from", "offset", metavar="OFFSET", help="Where to begin, e.g. an offset of --offsets, or now.")
@click.option("--last", type=WholeNumber(0), help="Print only the last so many messages, lines of text, or bytes.")
@click.option("--limit", type=WholeNumber(0), help="Stop after so many messages, lines of text, or bytes.")
@_FORMAT
@_OFFSETS
@with_target
def read_command(  # noqa: PLR0913  one parameter for each option
    *,
    target: Target,
    name: StreamName,
    offset: str | None,
    last: int | None,
    limit: int | None,
    kind: str,
    offsets: bool,
) -> None:
    """Print what a stream has.

    --last reads the stream from its beginning, or from the offset of --from, to find its end.
    """
    if last is not None and limit is not None:
        raise UsageError("--last and --limit exclude each other")
    if offsets and (last is not None or limit is not None):
        raise UsageError("--offsets prints whole parts, so it excludes --last and --limit")
    _print(target, name, Selection(limit, last), kind, begin=offset or BEGINNING, offsets=offsets, follow=False)


@click.command("tail")
@_NAME
@click.option("-n", "--last", type=WholeNumber(0), help="How many messages, lines of text, or bytes.  [default: 10]")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is appended, until the stream is closed.")
@click.option("--from", "offset", metavar="OFFSET", help="Begin at an offset instead, e.g. one of --offsets.")
@_FORMAT
@_OFFSETS
@with_target
def tail_command(  # noqa: PLR0913  one parameter for each option
    *,
    target: Target,
    name: StreamName,
    last: int | None,
    follow: bool,
    offset: str | None,
    kind: str,
    offsets: bool,
) -> None:
    """Print the end of a stream, and with -f what is appended to it.

    -f goes on after lost connections and restarts of the server, without a gap and without a repeat, for as long as
    they take unless --retry-for is given. It ends when the stream is closed. Ctrl-C ends it with exit status 130.
    """
    if offsets and last:
        raise UsageError("--offsets prints whole parts, so it excludes -n")
    last = last if last is not None else _LAST_DEFAULT
    selection = Selection(last=None if offset is not None or offsets else last)
    begin = offset or (BEGINNING if last and not offsets else "now")
    _print(target, name, selection, kind, begin=begin, offsets=offsets, follow=follow)


def _print(  # noqa: PLR0913  as the commands'
    target: Target,
    name: StreamName,
    selection: Selection,
    kind: str,
    *,
    begin: str,
    offsets: bool,
    follow: bool,
) -> None:
    with target.connect() as connection:
        retries = target.retries(later_s=float("inf") if follow else None)
        state = retries.run(lambda: streams.head(connection, name), is_repeatable=True)
        renderer = Renderer(state, Format(kind), has_offsets=offsets)
        if kind == Format.TEXT and not (state.is_text or state.is_json) and sys.stdout.isatty():
            raise UsageError(f"{name} is {state.content_type}, not text: give -o raw or -o base64")
        write_out(renderer.begin)
        with closing(read_pages(connection, name, begin, retries, follow=follow)) as pages:
            _copy(pages, selection, state, renderer)
        write_out(renderer.end)
        flush_out()


def _copy(pages: Iterator[Page], selection: Selection, state: StreamState, renderer: Renderer) -> None:
    """Print the selected part of pages, each as it comes."""
    if selection.last is not None:
        _print_last(pages, selection.last, state, renderer)
    if renderer.is_by_page and selection.first is None:
        _print_each(pages, renderer.page)
        return
    splitter = Splitter(state)
    left = selection.first
    if left == 0:
        return
    is_bytes = not (state.is_json or state.is_text)
    for items in _items(pages, splitter):
        for found in items:
            item = found if left is None or not is_bytes else found[:left]
            write_out(renderer.item(item))
            if left is not None:
                left -= len(item) if is_bytes else 1
                if left <= 0:
                    flush_out()
                    return
        flush_out()


def _items(pages: Iterator[Page], splitter: Splitter) -> Iterator[list[bytes]]:
    for page in pages:
        yield splitter.split(page)
    yield splitter.finish()


def _print_each(pages: Iterator[Page], render: Callable[[Page], bytes]) -> None:
    for page in pages:
        write_out(render(page))
        flush_out()


def _print_last(pages: Iterator[Page], last: int, state: StreamState, renderer: Renderer) -> None:
    """Read up to the tail, and print the last messages, lines or bytes."""
    splitter, is_bytes = Splitter(state), not (state.is_json or state.is_text)
    kept, kept_bytes = deque[bytes](maxlen=None if is_bytes else last), 0
    for page in pages:
        items = splitter.split(page)
        kept.extend(items)
        if is_bytes:
            kept_bytes += sum(map(len, items))
            while kept and kept_bytes - len(kept[0]) >= last:
                kept_bytes -= len(kept.popleft())
        if page.at_tail or page.closed:
            break
    kept.extend(splitter.finish())
    if is_bytes:
        joined = b"".join(kept)
        kept = deque([joined[len(joined) - min(last, len(joined)) :]])
    for item in kept:
        write_out(renderer.item(item))
    flush_out()
