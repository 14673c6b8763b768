"""Live reads: long-polls, event streams and WebSockets, which wait for a stream to change.

This module counts the open reads, ends them early, and follows a stream page by page; sse.py and websocket.py encode
and send the pages. Rules:

1. The number of open live reads is limited, in the process and in each project.
2. A live read ends with the incarnation that it reads, with its token, and with the server. One that was admitted while
   the server was open ends when the first project closes the server.
3. Its client may disconnect at any time, and then nothing that the read holds may stay.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Final, NamedTuple

from starlette.types import Receive

from fluvial.access.authorizer import OPEN_ACCESS, Authorization, unauthenticated_error
from fluvial.access.throttle import Throttle
from fluvial.clock import Clock
from fluvial.model.errors import ErrorCode, RequestError, StreamVanished
from fluvial.model.head import Head, StreamStatus, stream_status
from fluvial.model.lifetime import SlidingTtl
from fluvial.model.limits import EVENT_BYTES_MAX, PAGE_BYTES_MAX
from fluvial.model.names import StreamName
from fluvial.model.page import Page
from fluvial.operations.open_read import OpenedRead, load_head_and_renew
from fluvial.operations.page_reads import PageReads
from fluvial.storage.contract import Store
from fluvial.storage.notifier import has_changed

#: A reader of a stream that does not change gets an empty page so often, because proxies end silent connections.
KEEP_ALIVE_S: Final = 15.0

#: A stream with a sliding deadline is renewed for its live reads twice in its window, but not more often than this.
_RENEWAL_S_MIN: Final = 0.1

#: A time of the event loop's clock that has always passed.
_AT_ONCE: Final = 0.0


class SseDelivery(Enum):
    """When a reader gets events."""

    STREAMED = "at once"
    BUFFERED = "when the response ends"


@dataclass(frozen=True, slots=True)
class LiveLimits:
    """How many live reads may be open, and for how long each."""

    long_poll_timeout_s: float
    sse_max_age_s: float
    reads_max: int
    sse: SseDelivery = SseDelivery.STREAMED


@dataclass(slots=True, eq=False)
class LiveRead:
    """A live read in progress. `is_disconnected` is set when its client has gone."""

    authorization: Authorization
    _deadline: asyncio.Timeout
    is_disconnected: bool = False
    _is_interrupted: bool = False

    def interrupt(self) -> None:
        """End the read at the await that it is in; the block that has registered it ends without an error."""
        if not self._is_interrupted:
            self._is_interrupted = True
            self._deadline.reschedule(_AT_ONCE)


class Step(NamedTuple):
    """A page for a live reader, and the head that it was read at. `is_waiting`: next, the stream must change."""

    head: Head
    page: Page
    is_waiting: bool


#: Removes from the end of a page what a reader cannot use without the bytes after it.
Trim = Callable[[Head, Page], Page]


def whole_page(_head: Head, page: Page) -> Page:
    """Remove nothing."""
    return page


@dataclass(slots=True)
class LiveReads:
    """All live reads of a process."""

    store: Store
    clock: Clock
    limits: LiveLimits
    throttle: Throttle
    pages: PageReads = field(init=False)
    _open: set[LiveRead] = field(default_factory=set)
    _by_stream: Counter[StreamName] = field(default_factory=Counter)
    is_stopping: bool = False
    has_closed: bool = False

    def __post_init__(self) -> None:
        """All readers of the process share the reads of the store that are in progress."""
        self.pages = PageReads(self.store)

    @property
    def count(self) -> int:
        """The number of open live reads."""
        return len(self._open)

    def count_of(self, name: StreamName) -> int:
        """The number of open live reads of one stream."""
        return self._by_stream[name]

    def stop(self) -> None:
        """End every read, and let new ones answer without waiting."""
        self.is_stopping = True
        for read in list(self._open):
            read.interrupt()

    def end_anonymous(self) -> None:
        """End every read that was admitted without a token while the server was open; it has closed now, for good."""
        self.has_closed = True
        for read in list(self._open):
            if self.has_lost_access(read.authorization):
                read.interrupt()

    def has_lost_access(self, authorization: Authorization) -> bool:
        """Whether a read was admitted while the server was open, and the server has closed since."""
        return self.has_closed and authorization is OPEN_ACCESS

    @contextlib.asynccontextmanager
    async def register(
        self, name: StreamName, authorization: Authorization, watch: Callable[[LiveRead], Awaitable[None]]
    ) -> AsyncIterator[LiveRead]:
        """Count a live read of a stream while the block runs, and end the block when the read is interrupted.

        `watch` runs beside the block, and interrupts the read when its client disconnects. Raises RequestError over
        the server's limit or the project's, and when the server has just closed.

        An interruption ends any await of the block, as a timeout does, and not only the wait for a change. Otherwise:

        1. A client opens an event stream and reads nothing. The block is suspended in `send`, by flow control.
        2. The server stops, or closes to anonymous clients.
        3. The read would go on until the connection breaks, and the server would wait for it.
        """
        if self.has_lost_access(authorization):
            raise unauthenticated_error()
        if len(self._open) >= self.limits.reads_max:
            raise RequestError(ErrorCode.TOO_MANY_LIVE_READS, "too many live reads are open; try again later", 503)
        deadline = asyncio.timeout(None)
        with self.throttle.count_live_read(authorization.project, is_anonymous=authorization.token is None):
            try:
                async with deadline:
                    read = LiveRead(authorization, deadline)
                    self._open.add(read)
                    self._by_stream[name] += 1
                    watching = asyncio.ensure_future(watch(read))
                    try:
                        yield read
                    finally:
                        self._open.discard(read)
                        self._by_stream[name] -= 1
                        if not self._by_stream[name]:
                            del self._by_stream[name]
                        watching.cancel()
            except TimeoutError:
                if not deadline.expired():
                    raise

    async def long_poll(self, receive: Receive, read: OpenedRead) -> Head | None:
        """The stream's head once it differs from the read's, or as it is when the wait ends without a change."""
        head: Head | None = read.head
        async with self.register(read.name, read.authorization, partial(watch_disconnect, receive)):
            if not self.is_stopping:
                remaining_s = read.authorization.remaining_s(self.clock.now_ms())
                timeout_s = min(self.limits.long_poll_timeout_s, remaining_s)
                head = await self._wait_for_change(read.name, read.head, timeout_s)
        return head

    async def load_first_page(self, read: OpenedRead) -> Page:
        """The page at the read's position, which `follow` begins with. Raises StreamVanished, StoreError."""
        return await self.pages.at(read.name, read.head, read.position, EVENT_BYTES_MAX)

    async def follow(
        self, read: OpenedRead, page: Page, age_s_max: float, trim: Trim = whole_page
    ) -> AsyncIterator[Step]:
        """The pages of a stream from the first one on, until the read ends or is `age_s_max` old.

        A page is empty when nothing has come for KEEP_ALIVE_S. Bytes that `trim` removes come with the next page.
        """
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + min(age_s_max, read.authorization.remaining_s(self.clock.now_ms()))
        name, head = read.name, read.head
        seen, is_first = head, True
        while True:
            step = await self._next_step(name, head, page, trim)
            if step is None:
                return
            # An append of the first part of a character changes the head, but there is nothing to send yet.
            is_nothing_to_send = not step.page.data and step.page.end < head.tail and has_changed(head, seen)
            if is_first or not is_nothing_to_send:
                yield step
            is_first, seen = False, head
            remaining_s = ends_at - loop.time()
            if remaining_s <= 0 or self.is_stopping:
                return
            if step.is_waiting:
                if head.closed:
                    return
                changed = await self._wait_for_change(name, head, min(KEEP_ALIVE_S, remaining_s))
                if changed is None or changed.incarnation != read.head.incarnation:
                    return
                if stream_status(changed, self.clock.now_ms()) is not StreamStatus.EXISTS:
                    return
                head = changed
            try:
                page = await self.pages.at(name, head, step.page.end, EVENT_BYTES_MAX)
            except StreamVanished:
                return

    async def _next_step(self, name: StreamName, head: Head, page: Page, trim: Trim) -> Step | None:
        """Trim a page. If nothing is left of it, and there are bytes after it, trim a larger page from its start.

        None when the stream was deleted.
        """
        trimmed = trim(head, page)
        if not trimmed.data and page.end < head.tail:
            try:
                page = await self.pages.at(name, head, page.start, PAGE_BYTES_MAX)
            except StreamVanished:
                return None
            trimmed = trim(head, page)
            if not trimmed.data and page.end < head.tail:
                trimmed = page  # a whole large page without the end of a character is sent as it is
        return Step(head, trimmed, is_waiting=page.end == head.tail)

    async def _wait_for_change(self, name: StreamName, seen: Head, timeout_s: float) -> Head | None:
        """Wait as `Store.wait` does, but not past the stream's deadline; a sliding deadline is renewed meanwhile."""
        if not isinstance(seen.lifetime, SlidingTtl):
            if seen.live_until_ms is not None:
                timeout_s = min(timeout_s, max(0, seen.live_until_ms - self.clock.now_ms()) / 1_000)
            return await self.store.wait(name, seen, timeout_s)
        loop = asyncio.get_running_loop()
        ends_at, renewal_s = loop.time() + timeout_s, max(_RENEWAL_S_MIN, seen.lifetime.seconds / 2)
        while True:
            remaining_s = ends_at - loop.time()
            head = await self.store.wait(name, seen, max(0, min(remaining_s, renewal_s)))
            if has_changed(head, seen) or remaining_s <= renewal_s:
                return head
            await load_head_and_renew(self.store, self.clock, name)


async def watch_disconnect(receive: Receive, read: LiveRead) -> None:
    """Interrupt a read when its client disconnects."""
    while (await receive())["type"] != "http.disconnect":
        pass
    read.is_disconnected = True
    read.interrupt()
