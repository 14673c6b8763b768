"""Reads a stream page by page, from an offset to its tail or on to its end, over lost connections."""

from collections.abc import Generator

from fluvial.client import streams
from fluvial.client.connection import Connection
from fluvial.client.retries import Retries
from fluvial.client.streams import Page


def read_pages(
    connection: Connection, name: str, offset: str, retries: Retries, *, follow: bool
) -> Generator[Page, None, None]:
    """The pages from an offset on; `follow` waits at the tail until the stream is closed.

    After a lost connection it goes on at the end of the last page, so it leaves nothing out and repeats nothing. Pages
    come by long-poll rather than SSE, because SSE changes the line breaks of text.
    """
    live, cursor = False, None
    while True:
        page = retries.run(
            lambda: streams.read_page(connection, name, offset, live=live, cursor=cursor),  # noqa: B023  called at once
            is_repeatable=True,
        )
        has_moved = page.next_offset != offset
        offset, cursor = page.next_offset, page.cursor
        if page.body or not live:
            yield page
        if page.closed or (not follow and (page.at_tail or not has_moved)):
            return
        live = follow and (live or page.at_tail)
