"""A live reader of a load: one SSE connection (PROTOCOL.md, section 5.8)."""

import asyncio
import re
from collections.abc import Callable
from typing import Final, cast

from fluvial.client.load.http_connection import HEAD_BYTES_MAX, RequestRefused

_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_NEXT_OFFSET: Final = re.compile(rb'"streamNextOffset" *: *"([^"\\]*)"')
_OK: Final = 200
#: What may wait for the end of an event or a chunk.
UNREAD_BYTES_MAX: Final = 67_108_864


class LiveReader(asyncio.Protocol):
    """One SSE connection. Text is passed on with the offset after it, so that the next connection repeats nothing.

    `done` is done when the connection has ended; it has RequestRefused or ConnectionError if that was not in order.
    """

    def __init__(self, payload: bytes, take_text: Callable[[bytes], None]) -> None:
        """`payload` is the request."""
        self._payload, self._take_text = payload, take_text
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_ready, self._is_lost = asyncio.Event(), asyncio.Event()
        self.next_offset: str | None = None
        self._head: bytes | None = b""
        self._is_chunked = False
        self._raw, self._events, self._text = b"", b"", b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._payload)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell it. Servers end SSE connections now and then, but not before they have answered."""
        self._is_lost.set()
        self._end(exc or (ConnectionResetError("the server hung up") if self._head is not None else None))

    def close(self) -> None:
        """Hang up."""
        self._end(None)

    async def hang_up(self) -> None:
        """Hang up, and wait until the connection is closed."""
        self._end(None)
        self._transport.abort()
        await self._is_lost.wait()

    def data_received(self, data: bytes) -> None:
        """Take bytes of the answer."""
        if self.done.done():
            return
        if self._head is not None:
            rest = self._take_head(data)
            if rest is None:
                return
            data = rest
        self._raw += data
        if self._is_chunked:
            self._take_chunks()
        else:
            self._events, self._raw = self._events + self._raw, b""
        self._take_events()
        if len(self._raw) + len(self._events) + len(self._text) > UNREAD_BYTES_MAX:
            self._end(ConnectionError("the server's events do not end"))

    def _end(self, error: Exception | None) -> None:
        if not self.done.done():
            if error is None:
                self.done.set_result(None)
            else:
                self.done.set_exception(error)
                self.done.exception()  # marks it as seen: a reader may be closed without a look at it
        self._transport.close()

    def _take_head(self, data: bytes) -> bytes | None:
        """The bytes after the head, or None when there are none to take."""
        head = (self._head or b"") + data
        end = head.find(b"\r\n\r\n")
        if end < 0:
            self._head = head
            if len(head) > HEAD_BYTES_MAX:
                self._end(ConnectionError("the server's answer is not HTTP"))
            return None
        status = head[9:12]
        if not head.startswith(b"HTTP/1.") or not status.isdigit():
            self._end(ConnectionError("the server's answer is not HTTP"))
            return None
        if int(status) != _OK:
            self._end(RequestRefused(int(status), head.decode("latin-1")))
            return None
        self._head = None
        self._is_chunked = _CHUNKED.search(head, 0, end + 2) is not None
        self.is_ready.set()
        return head[end + 4 :]

    def _take_chunks(self) -> None:
        raw, place = self._raw, 0
        found = list[bytes]()
        while True:
            end = raw.find(b"\r\n", place)
            if end < 0:
                break
            try:
                size = int(raw[place:end].split(b";")[0], 16)
            except ValueError:
                self._end(ConnectionError("the server's answer has no chunks"))
                return
            if len(raw) < end + 4 + size:
                break
            found.append(raw[end + 2 : end + 2 + size])
            place = end + 4 + size
        self._raw = raw[place:]
        self._events += b"".join(found)

    def _take_events(self) -> None:
        events = self._events
        if b"\r" in events:
            events = events.replace(b"\r\n", b"\n")
        *whole, self._events = events.split(b"\n\n")
        for event in whole:
            self._take_event(event)

    def _take_event(self, event: bytes) -> None:
        kind, data = b"message", list[bytes]()
        for line in event.split(b"\n"):
            name, _, value = line.partition(b":")
            if name == b"data":
                data.append(value.removeprefix(b" "))
            elif name == b"event":
                kind = value.strip()
        if kind == b"data":
            self._text += b"\n".join(data)
        elif kind == b"control":
            # "emit an event: control event after every data event": the offset is that of all text so far
            found = _NEXT_OFFSET.search(b"\n".join(data))
            if found is not None:
                self.next_offset = found[1].decode("latin-1")
            text, self._text = self._text, b""
            if text:
                self._take_text(text)
