"""Content codings at work: bodies are decompressed and answers compressed, large ones off the event loop."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from cachetools import LRUCache
from starlette.types import Message

from fluvial.model.entity_tag import coded_tag
from fluvial.model.head import Head, Incarnation
from fluvial.model.page import Page
from fluvial.wire.content_coding import (
    GZIP,
    accepts_gzip,
    codings_of,
    decoded,
    deflated,
    gzip_header,
    is_worth_coding,
)
from fluvial.wire.request import Headers
from fluvial.wire.response import Header, Response

#: What is compressed or decompressed on the event loop, in well under a millisecond; more is a thread's.
INLINE_CODED_BYTES_MAX: Final = 1_024
INLINE_PLAIN_BYTES_MAX: Final = 16_384

#: Compressed pages that other readers may be about to ask for; one that is larger than a share of it is not kept.
CODED_CACHE_BYTES: Final = 16 * 1_048_576
KEPT_CODED_BYTES_MAX: Final = 1_048_576

#: How much the length of what strangers may not see is blurred (docs/security.md).
PADDING_BYTES_MAX: Final = 256

VARY: Final[Header] = (b"vary", b"Accept-Encoding")
_CODED: Final[Header] = (b"content-encoding", GZIP)
_OK: Final = 200
_NOT_MODIFIED: Final = 304

_Key = tuple[Incarnation, int, int]


async def decoded_body(body: bytes, headers: Headers, byte_count_max: int) -> bytes:
    """A request's body without its content codings. RequestError for one that cannot be decoded, or is too long."""
    codings = codings_of(headers.get(b"content-encoding"))
    if not codings or not body:
        return body
    if len(codings) == 1 and len(body) <= INLINE_CODED_BYTES_MAX:  # a kilobyte of several may be many megabytes
        return decoded(body, codings, byte_count_max)
    return await asyncio.to_thread(decoded, body, codings, byte_count_max)


class Compression:
    """Compresses answers for clients that ask for it; readers of one page share the work."""

    def __init__(self) -> None:
        """Nothing is compressed yet."""
        self._kept: LRUCache[_Key, bytes] = LRUCache(CODED_CACHE_BYTES, getsizeof=len)
        self._under_way: dict[_Key, asyncio.Task[bytes]] = {}

    async def of_page(self, response: Response, headers: Headers, at: tuple[Head, Page], padding: bytes) -> Response:
        """The answer with a page, or that there is none newer, as its reader has asked for it.

        An estuary's answer is never compressed: those who write to it may not read it, so they must not be able to
        find out by its length whether it has what they have guessed.
        """
        head, page = at
        is_of_page = response.status in {_OK, _NOT_MODIFIED}
        if head.estuary is not None or not is_of_page or not is_worth_coding(head.content_type, page.end - page.start):
            return response
        response.headers.append(VARY)
        if not accepts_gzip(headers.get(b"accept-encoding")):
            return response
        fields = [(name, coded_tag(value) if name == b"etag" else value) for name, value in response.headers]
        if response.status != _OK:
            return replace(response, headers=fields)
        data = await self._deflated((head.incarnation, page.start, page.end), response.parts)
        parts = (gzip_header(padding), data)
        return Response(response.status, _with_length(fields, parts), parts)

    async def _deflated(self, key: _Key, parts: Sequence[bytes | memoryview]) -> bytes:
        kept = self._kept.get(key)
        if kept is not None:
            return kept
        if sum(map(len, parts)) <= INLINE_PLAIN_BYTES_MAX:
            return deflated(parts)
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.ensure_future(asyncio.to_thread(deflated, parts))
            task.add_done_callback(lambda done: self._keep(key, done))
        return await asyncio.shield(task)

    def _keep(self, key: _Key, done: asyncio.Task[bytes]) -> None:
        del self._under_way[key]
        if not done.cancelled() and done.exception() is None and len(done.result()) <= KEPT_CODED_BYTES_MAX:
            self._kept[key] = done.result()


async def compressed_answer(start: Message, body: Message, headers: Headers) -> tuple[Message, Message]:
    """A whole answer of a framework, as its client has asked for it."""
    fields, data = list[Header](start["headers"]), body.get("body", b"")
    content_type = dict(fields).get(b"content-type", b"").decode("latin-1")
    is_whole = not body.get("more_body", False)
    if start["status"] != _OK or not is_whole or not is_worth_coding(content_type, len(data)):
        return start, body
    fields.append(VARY)
    if not accepts_gzip(headers.get(b"accept-encoding")):
        return {**start, "headers": fields}, body
    small = len(data) <= INLINE_PLAIN_BYTES_MAX
    parts = (gzip_header(), deflated([data]) if small else await asyncio.to_thread(deflated, [data]))
    return {**start, "headers": _with_length(fields, parts)}, {**body, "body": b"".join(parts)}


def _with_length(fields: Sequence[Header], parts: Sequence[bytes]) -> list[Header]:
    """The fields of a coded answer."""
    length = b"%d" % sum(map(len, parts))
    return [*(field for field in fields if field[0] != b"content-length"), _CODED, (b"content-length", length)]
