"""Event streams: sends a stream's pages as server-sent events (spec 5.8). wire/sse.py has their format.

Readers of one stream share encoded events, so that a page is encoded once however many readers it has:

1. A page's data event is cached, unless it is large. A large one is shared as long as it is being sent to a reader.
2. The control event has the reader's cursor. Readers with the same cursor share small data events joined with it.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final
from weakref import WeakValueDictionary

from cachetools import LRUCache
from starlette.types import Receive, Send

from fluvial.model.content_type import is_text
from fluvial.model.errors import StoreUnavailable
from fluvial.model.head import Head, Incarnation
from fluvial.model.limits import PAGE_BYTES_MAX
from fluvial.model.offset import offset_token
from fluvial.model.page import Page
from fluvial.operations.open_read import OpenedRead
from fluvial.server.asgi_send import send_parts
from fluvial.server.live_reads import LiveReads, SseDelivery, Step, watch_disconnect
from fluvial.wire.cursor import next_cursor
from fluvial.wire.response import SECURITY_HEADERS, Header
from fluvial.wire.sse import control_event, data_events, retry_field, trim_to_whole_characters

log = logging.getLogger(__name__)

EVENT_CACHE_BYTES: Final = 16 * 1_048_576

#: A larger event is not cached, because it would evict many others.
CACHED_EVENT_BYTES_MAX: Final = 1_048_576

#: A smaller event is joined with its control event; joining a larger one would copy it for each cursor.
JOINED_EVENT_BYTES_MAX: Final = 16_384

#: The age at which a connection ends varies by a tenth, so that readers do not all reconnect at once.
AGE_SPREAD: Final = 0.1

#: A browser waits so long before it reconnects, give or take a half; the default of browsers is three seconds.
RETRY_MS: Final = 1_000

_EVENTS: Final[Header] = (b"content-type", b"text/event-stream")
#: nginx buffers a response unless it has this field.
_UNBUFFERED: Final[Header] = (b"x-accel-buffering", b"no")
_SHARED_HEADERS: Final[tuple[Header, ...]] = (
    *SECURITY_HEADERS,
    _EVENTS,
    (b"cache-control", b"no-cache, no-transform"),
    _UNBUFFERED,
)
_PRIVATE_HEADERS: Final[tuple[Header, ...]] = (
    *SECURITY_HEADERS,
    _EVENTS,
    (b"cache-control", b"private, no-cache, no-store, no-transform"),
    _UNBUFFERED,
)
_BASE64: Final[Header] = (b"stream-sse-data-encoding", b"base64")

_DataKey = tuple[Incarnation, int, int]
_JoinedKey = tuple[Incarnation, int, int, bool, int | None]


@dataclass(frozen=True, slots=True)
class EventStream:
    """The answer to an SSE read, which `EventStreams.send` sends."""

    read: OpenedRead


class _DataEvent:
    """A page's encoded data event. It can be referred to weakly, as bytes cannot."""

    __slots__ = ("__weakref__", "encoded")

    def __init__(self, encoded: bytes) -> None:
        self.encoded = encoded


def _encoded_bytes(event: _DataEvent) -> int:
    return len(event.encoded)


class EventStreams:
    """All event streams of a process, and the encoded events that they share."""

    def __init__(self, live: LiveReads) -> None:
        """`live` counts the event streams among all live reads."""
        self._live = live
        self._cached: LRUCache[_DataKey, _DataEvent] = LRUCache(EVENT_CACHE_BYTES, getsizeof=_encoded_bytes)
        self._in_use: WeakValueDictionary[_DataKey, _DataEvent] = WeakValueDictionary()
        self._joined: LRUCache[_JoinedKey, bytes] = LRUCache(EVENT_CACHE_BYTES, getsizeof=len)

    async def send(self, stream: EventStream, receive: Receive, send: Send, extra: Sequence[Header]) -> None:
        """Send events until the stream ends, the client disconnects, or the connection is old enough.

        `extra` are header fields. Before the answer has begun this raises RequestError over a limit, StreamVanished or
        a StoreError: StoreUnavailable also when the server stops.
        """
        read, has_begun = stream.read, False
        async with self._live.register(read.name, read.authorization, partial(watch_disconnect, receive)) as live_read:
            page = await self._live.load_first_page(read)
            has_begun = True
            await send({"type": "http.response.start", "status": 200, "headers": (*_headers(read), *extra)})
            try:
                await self._send_pages(read, page, send)
            except Exception:  # the answer has begun, so it can only end; the reader reconnects
                log.exception("live_read_failed", extra={"stream": read.name})
        if live_read.is_disconnected:
            return
        if not has_begun:
            raise StoreUnavailable
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_pages(self, read: OpenedRead, page: Page, send: Send) -> None:
        clock = self._live.clock
        spread = 1 + AGE_SPREAD * (2 * clock.jitter() - 1)
        cursor_min = next_cursor(read.query.cursor, clock.now_ms(), clock.jitter())
        age_s_max = self._live.limits.sse_max_age_s * spread
        await send_parts(send, (retry_field(round(RETRY_MS * (0.5 + clock.jitter()))),))
        async for step in self._live.follow(read, page, age_s_max, trim_to_whole_characters):
            data = self._data_event(step.head, step.page)  # this reference shares a large event while it is sent
            await send_parts(send, self._events(step.head, step.page, data, cursor_min))
            data = None
            if self._is_complete(step, read.position):
                return

    def _is_complete(self, step: Step, first_position: int) -> bool:
        """Whether to end a buffered response here: it has data, and the next page is not there yet, or it has enough.

        The client sees nothing of a buffered response before its end, so a response with data must not wait.
        """
        if self._live.limits.sse is SseDelivery.STREAMED:
            return False
        byte_count = step.page.end - first_position
        return byte_count > 0 and (step.is_waiting or byte_count >= PAGE_BYTES_MAX)

    def _data_event(self, head: Head, page: Page) -> _DataEvent | None:
        """A page's data event, encoded or shared; None for an empty page."""
        if not page.data:
            return None
        key = (head.incarnation, page.start, page.end)
        event = self._cached.get(key) or self._in_use.get(key)
        if event is None:
            event = _DataEvent(data_events(head.content_type, page.data, offset_token(head, page.end)))
            self._in_use[key] = event
            if _encoded_bytes(event) <= CACHED_EVENT_BYTES_MAX:
                self._cached[key] = event
        return event

    def _events(self, head: Head, page: Page, data: _DataEvent | None, cursor_min: int) -> tuple[bytes, ...]:
        """A page's data event and the control event behind it, joined or not."""
        is_up_to_date = page.end == head.tail
        is_closed = is_up_to_date and head.closed
        cursor = None if is_closed else max(cursor_min, next_cursor(None, self._live.clock.now_ms(), 0))
        key = (head.incarnation, page.start, page.end, is_up_to_date, cursor)
        joined = self._joined.get(key)
        if joined is not None:
            return (joined,)
        control = control_event(offset_token(head, page.end), cursor, up_to_date=is_up_to_date, closed=is_closed)
        if data is None:
            return (control,)
        if len(data.encoded) > JOINED_EVENT_BYTES_MAX:
            return (data.encoded, control)
        joined = self._joined[key] = data.encoded + control
        return (joined,)


def _headers(read: OpenedRead) -> tuple[Header, ...]:
    headers = _SHARED_HEADERS if read.authorization.is_shared(read.head) else _PRIVATE_HEADERS
    return headers if is_text(read.head.content_type) else (*headers, _BASE64)
