"""Live reads: what long-polls, SSE and sockets wait for. Their number is bounded, and readers share what is encoded."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

from cachetools import LRUCache
from starlette.types import Message, Receive, Send

from fluvial.access.authorizer import OPEN, Authorization, unauthenticated
from fluvial.access.throttle import Throttle
from fluvial.clock import Clock
from fluvial.model.errors import ErrorCode, RequestError, StoreUnavailable, StreamVanished
from fluvial.model.head import Head, Incarnation, StreamStatus, stream_status
from fluvial.model.lifetime import SlidingTtl
from fluvial.model.limits import EVENT_BYTES_MAX, PAGE_BYTES_MAX
from fluvial.model.names import StreamName
from fluvial.model.offset import offset_token
from fluvial.model.page import Page
from fluvial.operations.open_read import load_head_and_renew
from fluvial.operations.page_reads import PageReads
from fluvial.server.asgi_send import send_parts
from fluvial.storage.contract import Store
from fluvial.storage.notifier import has_changed
from fluvial.wire.cursor import next_cursor
from fluvial.wire.sse import control_event, data_events, retry_field, with_whole_characters

log = logging.getLogger(__name__)

#: An SSE reader that hears nothing else hears this often that it is up to date; proxies cut what is silent.
KEEP_ALIVE_S: Final = 15.0

#: Encoded events that other readers may be about to share.
EVENT_CACHE_BYTES: Final = 16 * 1_048_576

#: An event larger than this is rare, and would push many others out; it is shared as long as somebody is being sent it.
KEPT_EVENT_BYTES_MAX: Final = 1_048_576

#: A rotation is put off or brought forward by up to a tenth, so that readers do not all come back at once.
ROTATION_SPREAD: Final = 0.1

#: How long a browser's EventSource waits before it comes back, give or take a half; its own default is three seconds.
RETRY_MS: Final = 1_000

#: A smaller event is joined with the control event behind it; a larger one would be copied for each cursor.
JOINED_EVENT_BYTES_MAX: Final = 16_384

_EventKey = tuple[Incarnation, int, int]
_JoinedKey = tuple[Incarnation, int, int, bool, int | None]


class _DataEvent:
    """A page's data event; whoever sends it holds it."""

    __slots__ = ("__weakref__", "encoded")

    def __init__(self, encoded: bytes) -> None:
        self.encoded = encoded


def _event_bytes(event: _DataEvent) -> int:
    return len(event.encoded)


class SseDelivery(Enum):
    """When a reader gets what is sent to it."""

    STREAMED = "at once"
    BUFFERED = "when the response ends"


@dataclass(frozen=True, slots=True)
class LiveLimits:
    """What live reads may take: how many, and for how long each."""

    long_poll_timeout_s: float
    sse_max_age_s: float
    reads_max: int
    sse: SseDelivery = SseDelivery.STREAMED


@dataclass(slots=True, eq=False)
class OpenRead:
    """One live read in progress, and how it is told to end early."""

    task: asyncio.Task[None]
    permit: Authorization
    is_interrupted: bool = False
    is_disconnected: bool = False

    def interrupt(self) -> None:
        """End the read's wait; the read then ends by itself."""
        if not self.is_interrupted:
            self.is_interrupted = True
            self.task.cancel()


@dataclass(frozen=True, slots=True)
class LiveReadRequest:
    """Where a live read begins: the stream as it was found, a position in it, and the client's cursor.

    `permit` is what its reader was let in by: it may end before the stream does.
    """

    name: StreamName
    head: Head
    position: int
    echoed_cursor: int | None
    permit: Authorization


class Step(NamedTuple):
    """A page that a live reader is shown, the head that it was read at, and whether news is waited for behind it."""

    head: Head
    page: Page
    is_waiting: bool


#: Takes off the end of a page what is nothing without what comes after it.
Trim = Callable[[Head, Page], Page]


def whole_page(_head: Head, page: Page) -> Page:
    """Takes nothing off."""
    return page


@dataclass(slots=True)
class LiveReads:
    """All live reads of a process."""

    store: Store
    clock: Clock
    limits: LiveLimits
    throttle: Throttle
    pages: PageReads = field(init=False)
    _open: set[OpenRead] = field(default_factory=set)
    _kept: LRUCache[_EventKey, _DataEvent] = field(
        default_factory=lambda: LRUCache(EVENT_CACHE_BYTES, getsizeof=_event_bytes)
    )
    _joined: LRUCache[_JoinedKey, bytes] = field(default_factory=lambda: LRUCache(EVENT_CACHE_BYTES, getsizeof=len))
    _shared: WeakValueDictionary[_EventKey, _DataEvent] = field(default_factory=WeakValueDictionary)
    is_stopping: bool = False
    has_closed: bool = False

    def __post_init__(self) -> None:
        """Readers share the pages that are being read."""
        self.pages = PageReads(self.store)

    @property
    def count(self) -> int:
        """How many are open."""
        return len(self._open)

    def stop(self) -> None:
        """End every read cleanly, and let new ones not wait."""
        self.is_stopping = True
        for read in list(self._open):
            read.interrupt()

    def end_anonymous(self) -> None:
        """End every read that was let in because the server was open to all: it is closed now, for good."""
        self.has_closed = True
        for read in list(self._open):
            if self.has_lost(read.permit):
                read.interrupt()

    def has_lost(self, permit: Authorization) -> bool:
        """Whether a read was let in because the server was open, and that is over."""
        return self.has_closed and permit is OPEN

    @contextlib.asynccontextmanager
    async def opened(
        self, watch: Callable[[OpenRead], Awaitable[None]], permit: Authorization
    ) -> AsyncIterator[OpenRead]:
        """Count a live read as long as it lasts; `watch` interrupts it when its client goes.

        Raises RequestError at the server's limit, at the project's, and when the server has just closed.
        """
        if self.has_lost(permit):
            raise unauthenticated()
        if len(self._open) >= self.limits.reads_max:
            raise RequestError(ErrorCode.TOO_MANY_LIVE_READS, "too many live reads are open; try again later", 503)
        task = asyncio.current_task()
        assert task is not None, "a live read runs in a task"
        read = OpenRead(task, permit)
        with self.throttle.live_read(permit.project, is_anonymous=permit.grant is None):
            self._open.add(read)
            watching = asyncio.ensure_future(watch(read))
            try:
                yield read
            except asyncio.CancelledError:
                if not read.is_interrupted:
                    raise
                task.uncancel()
            finally:
                self._open.discard(read)
                watching.cancel()

    async def long_poll(self, receive: Receive, subscription: LiveReadRequest) -> Head | None:
        """The stream's head once it differs from the subscription's, or as it is when the wait is over."""
        head: Head | None = subscription.head
        async with self.opened(partial(_watch_disconnect, receive), subscription.permit):
            if not self.is_stopping:
                remaining_s = subscription.permit.remaining_s(self.clock.now_ms())
                timeout_s = min(self.limits.long_poll_timeout_s, remaining_s)
                head = await self._wait(subscription.name, subscription.head, timeout_s)
        return head

    async def send_events(self, subscription: LiveReadRequest, receive: Receive, send: Send, start: Message) -> None:
        """Send a stream's events until it ends, the client goes, or the connection is old enough.

        `start` starts the response, once the read is among those that may be open. Raises StoreUnavailable when the
        server stops before that.
        """
        has_started = False
        async with self.opened(partial(_watch_disconnect, receive), subscription.permit) as read:
            page = await self.first_page(subscription)
            has_started = True
            await send(start)
            try:
                await self._send_until_end(subscription, page, send)
            except Exception:  # the answer has begun, so all that is left is to end it; the reader comes back
                log.exception("live_read_failed", extra={"stream": subscription.name})
        if not has_started and not read.is_disconnected:
            raise StoreUnavailable
        if not read.is_disconnected:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def first_page(self, subscription: LiveReadRequest) -> Page:
        """What a live read begins with."""
        return await self.pages.at(subscription.name, subscription.head, subscription.position, EVENT_BYTES_MAX)

    async def _send_until_end(self, subscription: LiveReadRequest, page: Page, send: Send) -> None:
        spread = 1 + ROTATION_SPREAD * (2 * self.clock.jitter() - 1)
        cursor_min = next_cursor(subscription.echoed_cursor, self.clock.now_ms(), self.clock.jitter())
        age_s_max = self.limits.sse_max_age_s * spread
        await send_parts(send, (retry_field(round(RETRY_MS * (0.5 + self.clock.jitter()))),))
        async for head, found, is_waiting in self.following(subscription, page, age_s_max, with_whole_characters):
            data = self._data_event(head, found)  # held while it is sent, for others to share
            await send_parts(send, self._events(head, found, data, cursor_min))
            data = None
            if self._is_complete(found.end - subscription.position, is_waiting=is_waiting):
                return

    async def following(
        self, subscription: LiveReadRequest, page: Page, age_s_max: float, trim: Trim = whole_page
    ) -> AsyncIterator[Step]:
        """A stream's pages from the first one on.

        One is empty when nothing has come for KEEP_ALIVE_S. They end with the stream, with the server, with the token,
        or after `age_s_max`. What `trim` takes off a page comes with the next one; of a page that is nothing without
        what comes after it, all waits for that.
        """
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + min(age_s_max, subscription.permit.remaining_s(self.clock.now_ms()))
        name, head = subscription.name, subscription.head
        seen = head
        incarnation, is_first = head.incarnation, True
        while True:
            step = await self._step(name, head, page, trim)
            if step is None:
                return
            if step.page.data or is_first or step.page.end == head.tail or not has_changed(head, seen):
                yield step
            is_first, seen = False, head
            remaining_s = ends_at - loop.time()
            if remaining_s <= 0 or self.is_stopping:
                return
            if step.is_waiting:
                if head.closed:
                    return
                news = await self._wait(name, head, min(KEEP_ALIVE_S, remaining_s))
                is_same = news is not None and news.incarnation == incarnation
                if news is None or not is_same or stream_status(news, self.clock.now_ms()) is not StreamStatus.EXISTS:
                    return
                head = news
            try:
                page = await self.pages.at(name, head, step.page.end, EVENT_BYTES_MAX)
            except StreamVanished:
                return

    async def _step(self, name: StreamName, head: Head, page: Page, trim: Trim) -> Step | None:
        """What is shown of a page, or of a larger one where nothing of it can be; None when the stream is gone."""
        shown = trim(head, page)
        if not shown.data and page.end < head.tail:
            try:
                page = await self.pages.at(name, head, page.start, PAGE_BYTES_MAX)
            except StreamVanished:
                return None
            shown = trim(head, page)
            if not shown.data and page.end < head.tail:
                shown = page  # there is no end of what hangs together
        return Step(head, shown, page.end == head.tail)

    def _is_complete(self, byte_count: int, *, is_waiting: bool) -> bool:
        """Whether a response that nobody sees before its end has something to tell."""
        if self.limits.sse is SseDelivery.STREAMED:
            return False
        return byte_count > 0 and (is_waiting or byte_count >= PAGE_BYTES_MAX)

    async def _wait(self, name: StreamName, seen: Head, timeout_s: float) -> Head | None:
        """Store.wait, no longer than the stream lives; a sliding deadline is renewed, for its stream has readers."""
        if not isinstance(seen.lifetime, SlidingTtl):
            if seen.live_until_ms is not None:
                timeout_s = min(timeout_s, max(0, seen.live_until_ms - self.clock.now_ms()) / 1_000)
            return await self.store.wait(name, seen, timeout_s)
        loop = asyncio.get_running_loop()
        ends_at, renewal_s = loop.time() + timeout_s, max(0.1, seen.lifetime.seconds / 2)
        while True:
            remaining_s = ends_at - loop.time()
            news = await self.store.wait(name, seen, max(0, min(remaining_s, renewal_s)))
            if has_changed(news, seen) or remaining_s <= renewal_s:
                return news
            await load_head_and_renew(self.store, self.clock, name)

    def _data_event(self, head: Head, page: Page) -> _DataEvent | None:
        """A page's data event, encoded once for all who read it now; None when there is no data."""
        if not page.data:
            return None
        key = (head.incarnation, page.start, page.end)
        event = self._kept.get(key) or self._shared.get(key)
        if event is None:
            event = self._shared[key] = _DataEvent(
                data_events(head.content_type, page.data, offset_token(head, page.end))
            )
            if _event_bytes(event) <= KEPT_EVENT_BYTES_MAX:
                self._kept[key] = event
        return event

    def _events(self, head: Head, page: Page, data: _DataEvent | None, cursor_min: int) -> tuple[bytes, ...]:
        """A page's data event, and what tells one reader where it is; readers with the same cursor share both."""
        up_to_date = page.end == head.tail
        closed = up_to_date and head.closed
        cursor = None if closed else max(cursor_min, next_cursor(None, self.clock.now_ms(), 0))
        key = (head.incarnation, page.start, page.end, up_to_date, cursor)
        events = self._joined.get(key)
        if events is not None:
            return (events,)
        control = control_event(offset_token(head, page.end), cursor, up_to_date=up_to_date, closed=closed)
        if data is None:
            return (control,)
        if len(data.encoded) > JOINED_EVENT_BYTES_MAX:
            return (data.encoded, control)
        events = self._joined[key] = data.encoded + control
        return (events,)


async def _watch_disconnect(receive: Receive, read: OpenRead) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    read.is_disconnected = True
    read.interrupt()
