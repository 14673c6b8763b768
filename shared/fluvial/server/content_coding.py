"""Content codings on a server: it decodes the bodies of requests, and compresses answers.

Rules:
1. Large bodies are coded in threads, so that no other connection waits for them.
2. A page that several readers ask for is compressed once, and small results are kept.
3. An estuary (a fan-in stream) is never compressed, and private pages are padded, because the length of a compressed
   answer says how well its parts match (docs/security.md, Compression).
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from cachetools import LRUCache
from msgspec.structs import replace
from starlette.types import Message

from fluvial.model.entity_tag import coded_tag
from fluvial.model.head import Head, Incarnation
from fluvial.model.page import Page
from fluvial.wire.content_coding import (
    GZIP,
    accepts_gzip,
    decode,
    deflate,
    gzip_header,
    is_worth_coding,
    parse_codings,
)
from fluvial.wire.request import Headers
from fluvial.wire.response import Header, Response

#: The most that is decoded or compressed on the event loop, in well under a millisecond; a thread does the rest.
INLINE_CODED_BYTES_MAX: Final = 1_024
INLINE_PLAIN_BYTES_MAX: Final = 16_384

#: Compressed pages are kept for other readers; one that would take a large share of the cache is not.
CODED_CACHE_BYTES: Final = 16 * 1_048_576
KEPT_CODED_BYTES_MAX: Final = 1_048_576

#: A private page's compressed form is padded with up to so many bytes (docs/security.md).
PADDING_BYTES_MAX: Final = 256

VARY: Final[Header] = (b"vary", b"Accept-Encoding")
_CONTENT_ENCODING: Final[Header] = (b"content-encoding", GZIP)
_OK: Final = 200
_NOT_MODIFIED: Final = 304

_Key = tuple[Incarnation, int, int]


async def decode_body(body: bytes, headers: Headers, byte_count_max: int) -> bytes:
    """Undo the content codings of a request's body. RequestError for one that cannot be decoded, or is too long."""
    codings = parse_codings(headers.get(b"content-encoding"))
    if not codings or not body:
        return body
    if len(codings) == 1 and len(body) <= INLINE_CODED_BYTES_MAX:  # with several, a kilobyte may hold many megabytes
        return decode(body, codings, byte_count_max)
    return await asyncio.to_thread(decode, body, codings, byte_count_max)


class Compression:
    """Compresses pages for clients that accept it; readers of one page share the work and its result."""

    def __init__(self) -> None:
        """The cache is this object's own; a thread is started for each large page."""
        self._cache: LRUCache[_Key, bytes] = LRUCache(CODED_CACHE_BYTES, getsizeof=len)
        self._tasks: dict[_Key, asyncio.Task[bytes]] = {}

    async def compress_page(
        self, response: Response, headers: Headers, head: Head, page: Page, *, padding: bytes
    ) -> Response:
        """Encode a page's answer, 200 or 304, as its reader accepts it.

        An estuary's answer is never compressed. Otherwise:

        1. A client that may publish to a source of the estuary, but may not read it, publishes a guess.
        2. It watches the length of an answer that another reader gets.
        3. The answer is shorter when the guess matches bytes of the estuary, byte by byte (CRIME, BREACH).
        """
        is_of_page = response.status in {_OK, _NOT_MODIFIED}
        if head.estuary is not None or not is_of_page or not is_worth_coding(head.content_type, page.end - page.start):
            return response
        response = replace(response, headers=(*response.headers, VARY))
        if not accepts_gzip(headers.get(b"accept-encoding")):
            return response
        fields = tuple((name, coded_tag(value) if name == b"etag" else value) for name, value in response.headers)
        if response.status != _OK:
            return replace(response, headers=fields)
        data = await self._deflate((head.incarnation, page.start, page.end), response.parts)
        parts = (gzip_header(padding), data)
        return Response(response.status, _coded_fields(fields, parts), parts)

    async def _deflate(self, key: _Key, parts: Sequence[bytes | memoryview]) -> bytes:
        """Compress a page, or take what another reader's request has compressed or is compressing.

        The task is shielded: a reader that goes must not cancel it for the others.
        """
        cached = self._cache.get(key)
        if cached is not None:
            return cached
        if sum(map(len, parts)) <= INLINE_PLAIN_BYTES_MAX:
            return deflate(parts)
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.ensure_future(asyncio.to_thread(deflate, parts))
            task.add_done_callback(lambda done: self._finish(key, done))
        return await asyncio.shield(task)

    def _finish(self, key: _Key, done: asyncio.Task[bytes]) -> None:
        """Forget the task, and cache a small result."""
        del self._tasks[key]
        if not done.cancelled() and done.exception() is None and len(done.result()) <= KEPT_CODED_BYTES_MAX:
            self._cache[key] = done.result()


async def compress_answer(start: Message, body: Message, headers: Headers) -> tuple[Message, Message]:
    """Encode a framework's answer, if it is complete, as its client accepts it."""
    fields, data = list[Header](start["headers"]), body.get("body", b"")
    content_type = dict(fields).get(b"content-type", b"").decode("latin-1")
    is_whole = not body.get("more_body", False)
    if start["status"] != _OK or not is_whole or not is_worth_coding(content_type, len(data)):
        return start, body
    fields.append(VARY)
    if not accepts_gzip(headers.get(b"accept-encoding")):
        return {**start, "headers": fields}, body
    is_small = len(data) <= INLINE_PLAIN_BYTES_MAX
    parts = (gzip_header(), deflate([data]) if is_small else await asyncio.to_thread(deflate, [data]))
    return {**start, "headers": _coded_fields(fields, parts)}, {**body, "body": b"".join(parts)}


def _coded_fields(fields: Sequence[Header], parts: Sequence[bytes]) -> tuple[Header, ...]:
    """An answer's fields with its coding, and the length of its coded parts."""
    length = b"%d" % sum(map(len, parts))
    return (
        *(field for field in fields if field[0] != b"content-length"),
        _CONTENT_ENCODING,
        (b"content-length", length),
    )
