"""Connections of a load, and a loop that sends a request once the one before is answered and it is due."""

import asyncio
import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol, cast
from urllib.parse import urlsplit

import httpx

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_CLOSES: Final = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_RETRY_AFTER: Final = re.compile(r"\r\nretry-after: *(\d{1,5})(?=\r\n|$)", re.IGNORECASE)
_END_OF_CHUNKS: Final = b"0\r\n\r\n"
_SUCCESS: Final = frozenset({200, 201, 204})
#: An answer's head in a protocol without a limit for it.
HEAD_BYTES_MAX: Final = 65_536
READ_BUFFER_BYTES: Final = 65_536


class RequestRefused(Exception):
    """The server has answered that it does not carry out the request."""

    def __init__(self, status: int, answer: str) -> None:
        """`answer` is the head, and as much of the body as came with it."""
        super().__init__(answer)
        self.status = status
        found = _RETRY_AFTER.search(answer.partition("\r\n\r\n")[0])
        #: How long the server asks to wait, in seconds.
        self.retry_after_s = float(found[1]) if found else 0.0


@dataclass(frozen=True)
class Origin:
    """Where connections go, and what each request to there says."""

    host: str
    port: int
    path: str = ""
    tls: ssl.SSLContext | None = None
    host_field: str = ""
    authorization: str | None = None

    def request(self, method: str, path: str, body: bytes = b"", fields: Mapping[str, str] | None = None) -> bytes:
        """A request, ready to be sent again and again. `path` is below the origin's."""
        lines = [f"{method} {self.path}{path} HTTP/1.1", f"Host: {self.host_field}", f"Content-Length: {len(body)}"]
        if self.authorization is not None:
            lines.append(f"Authorization: {self.authorization}")
        lines += [f"{name}: {value}" for name, value in (fields or {}).items()]
        return "\r\n".join([*lines, "", ""]).encode() + body


def origin_of(url: str, authorization: str | None = None) -> Origin:
    """The origin of a URL, which is one of HTTP or HTTPS. Certificates are trusted as by all other commands."""
    parts = urlsplit(url)
    assert parts.hostname is not None, url
    is_tls = parts.scheme == "https"
    return Origin(
        host=parts.hostname,
        port=parts.port or (443 if is_tls else 80),
        path=parts.path.rstrip("/"),
        tls=httpx.create_ssl_context() if is_tls else None,
        host_field=parts.netloc,
        authorization=authorization,
    )


class Requests(Protocol):
    """The requests of one connection."""

    def pause_s(self) -> float:
        """How long to wait before the next request; 0 or less if it is due."""
        ...

    def next_request(self) -> bytes | None:
        """The request to send now; None when the load is over."""
        ...

    def take_answer(self, latency_s: float) -> None:
        """Count an answer."""
        ...


class ClosedLoop(asyncio.BufferedProtocol):
    """One connection that sends a request, takes the whole answer, and sends the next one when it is due.

    `done` has RequestRefused after the first refusal, and ConnectionError if the server hangs up.
    """

    def __init__(self, requests: Requests, buffer_bytes: int = READ_BUFFER_BYTES) -> None:
        """Nothing is sent before `start`."""
        self._requests = requests
        self._buffer = bytearray(buffer_bytes)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._is_lost = asyncio.Event()
        self._missing: int | None = None
        self._head, self._tail = b"", b""
        self._hangs_up = False
        self._began_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Send the first request."""
        self._send()

    async def hang_up(self) -> None:
        """Close the connection, whatever the server still has to answer, and wait until it is closed."""
        self._end(None)
        self._transport.abort()
        await self._is_lost.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, _size_hint: int) -> bytearray:
        """Where to put the next bytes."""
        return self._buffer

    def buffer_updated(self, byte_count: int) -> None:
        """Take bytes of an answer."""
        if self._missing is None:
            self._take_head(bytes(memoryview(self._buffer)[:byte_count]))
        elif self._missing < 0:
            last = bytes(memoryview(self._buffer)[max(0, byte_count - 5) : byte_count])
            self._tail = (self._tail + last)[-5:]
            if self._tail == _END_OF_CHUNKS:
                self._finish()
        else:
            self._missing -= byte_count
            if self._missing <= 0:
                self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell it, unless all is done."""
        self._is_lost.set()
        if not self.done.done():
            self._fail(exc or ConnectionResetError("the server hung up"))

    def _send(self) -> None:
        if (pause_s := self._requests.pause_s()) > 0:
            self._timer = asyncio.get_running_loop().call_later(pause_s, self._send_now)
        else:
            self._send_now()

    def _send_now(self) -> None:
        if self.done.done():
            return
        payload = self._requests.next_request()
        if payload is None:
            self._end(None)
            return
        self._head, self._tail, self._missing = b"", b"", None
        self._began_s = time.perf_counter()
        self._transport.write(payload)

    def _end(self, error: Exception | None) -> None:
        if not self.done.done():
            if error is None:
                self.done.set_result(None)
            else:
                self._fail(error)
        if self._timer is not None:
            self._timer.cancel()
        self._transport.close()

    def _fail(self, error: Exception) -> None:
        self.done.set_exception(error)
        self.done.exception()  # marks it as seen: a load may end without a look at it

    def _take_head(self, data: bytes) -> None:
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            if len(self._head) > HEAD_BYTES_MAX:
                self._end(ConnectionError("the server's answer is not HTTP"))
            return
        status = self._head[9:12]
        if not self._head.startswith(b"HTTP/1.") or not status.isdigit():
            self._end(ConnectionError("the server's answer is not HTTP"))
            return
        if int(status) not in _SUCCESS:
            self._end(RequestRefused(int(status), self._head.decode("latin-1")))
            return
        self._hangs_up = _CLOSES.search(self._head, 0, end) is not None
        found = _LENGTH.search(self._head, 0, end)
        if found is None and _CHUNKED.search(self._head, 0, end) is not None:
            self._missing, self._tail = -1, self._head[-5:]
            if self._tail == _END_OF_CHUNKS:
                self._finish()
            return
        self._missing = (int(found[1]) if found else 0) - (len(self._head) - end - 4)
        if self._missing <= 0:
            self._finish()

    def _finish(self) -> None:
        self._requests.take_answer(time.perf_counter() - self._began_s)
        if self._hangs_up:
            self._end(ConnectionResetError("the server closes connections"))
        else:
            self._send()
