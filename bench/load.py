"""The load: closed loops over raw connections, so that the generator costs as little as it can."""

import asyncio
import re
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_MARK = re.compile(rb"#(\d{8})")
_END_OF_CHUNKS = b"0\r\n\r\n"
READ_BUFFER_BYTES = 1_048_576
FAN_OUT_TIMEOUT_S = 60


@dataclass
class Measure:
    """What one load found: a rate, and latencies in seconds."""

    per_second: float
    latencies_s: list[float]

    def percentile_ms(self, percent: int) -> float:
        """A percentile of the latencies, in milliseconds."""
        ordered = sorted(self.latencies_s)
        return 1_000 * ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def request(method: str, path: str, body: bytes = b"", content_type: str = "text/plain") -> bytes:
    """A request, ready to be sent again and again."""
    head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Content-Type: {content_type}\r\n\r\n".encode() + body


def address_of(url: str) -> tuple[str, int]:
    """Host and port."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


class _ClosedLoop(asyncio.BufferedProtocol):
    """One connection that sends a request, takes the whole answer, and sends it again until the time is over."""

    def __init__(self, payload: bytes, ends_at: float, latencies_s: list[float]) -> None:
        self.payload, self.ends_at, self.latencies_s = payload, ends_at, latencies_s
        self.buffer = bytearray(READ_BUFFER_BYTES)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.missing: int | None = None
        self.head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._send()

    def get_buffer(self, _size_hint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, byte_count: int) -> None:
        if self.missing is None:
            self._take_head(bytes(memoryview(self.buffer)[:byte_count]))
        elif self.missing < 0:
            tail = bytes(memoryview(self.buffer)[max(0, byte_count - 5) : byte_count])
            if tail.endswith(_END_OF_CHUNKS):
                self._finish()
        else:
            self.missing -= byte_count
            if self.missing <= 0:
                self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server hung up"))

    def _send(self) -> None:
        self.began = time.perf_counter()
        self.head, self.missing = b"", None
        self.transport.write(self.payload)

    def _take_head(self, data: bytes) -> None:
        self.head += data
        end = self.head.find(b"\r\n\r\n")
        if end < 0:
            return
        status = int(self.head[9:12])
        if status not in {200, 201, 204}:
            self.done.set_exception(RuntimeError(self.head.decode("latin-1")))
            self.transport.close()
            return
        found = _LENGTH.search(self.head, 0, end)
        rest = len(self.head) - end - 4
        if found is None and b"chunked" in self.head[:end].lower():
            self.missing = -1
            if self.head.endswith(_END_OF_CHUNKS):
                self._finish()
            return
        self.missing = (int(found[1]) if found else 0) - rest
        if self.missing <= 0:
            self._finish()

    def _finish(self) -> None:
        now = time.perf_counter()
        self.latencies_s.append(now - self.began)
        if now < self.ends_at:
            self._send()
        else:
            self.done.set_result(None)
            self.transport.close()


async def closed_loops(url: str, payloads: Sequence[bytes], seconds: float) -> Measure:
    """One connection for each payload, each as fast as the server answers it."""
    loop, latencies_s = asyncio.get_running_loop(), list[float]()
    began = time.perf_counter()
    connections = [
        await loop.create_connection(lambda one=one: _ClosedLoop(one, began + seconds, latencies_s), *address_of(url))  # type: ignore[misc]
        for one in payloads
    ]
    await asyncio.gather(*(protocol.done for _, protocol in connections))
    return Measure(len(latencies_s) / (time.perf_counter() - began), latencies_s)


async def once(url: str, payload: bytes) -> None:
    """Send one request and take its answer."""
    await closed_loops(url, [payload], 0)


async def each_once(url: str, payloads: Sequence[bytes], connection_count: int) -> None:
    """Send each request once, over so many connections."""
    shares = [iter(payloads[start::connection_count]) for start in range(connection_count)]

    async def send(share: Iterator[bytes]) -> None:
        for payload in share:
            await once(url, payload)

    await asyncio.gather(*map(send, shares))


@dataclass
class _FanOut:
    """How many readers have which append, and how long each delivery took."""

    reader_count: int
    sent_at: dict[int, float] = field(default_factory=dict)
    latencies_s: list[float] = field(default_factory=list)
    missing: int = 0
    all_have_it: asyncio.Event = field(default_factory=asyncio.Event)

    def delivered(self, number: int) -> None:
        """One reader has one append."""
        if number in self.sent_at:
            self.latencies_s.append(time.perf_counter() - self.sent_at[number])
            self.missing -= 1
            if self.missing == 0:
                self.all_have_it.set()


class _Reader(asyncio.Protocol):
    """One SSE connection."""

    def __init__(self, payload: bytes, fan_out: _FanOut) -> None:
        self.payload, self.fan_out, self.rest = payload, fan_out, b""
        self.is_ready = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(self.payload)

    def data_received(self, data: bytes) -> None:
        self.is_ready.set()
        data = self.rest + data
        end = 0
        for found in _MARK.finditer(data):
            self.fan_out.delivered(int(found[1]))
            end = found.end()
        self.rest = data[max(end, len(data) - 9) :]


#: Sends one payload of 100 bytes to whoever is to have it.
Send = Callable[[bytes], Awaitable[None]]


async def fan_out(url: str, paths: Sequence[str], send: Send, seconds: float) -> Measure:
    """Payloads of 100 bytes to one reader of each path; each when all readers have the one before."""
    loop, reader_count = asyncio.get_running_loop(), len(paths)
    state = _FanOut(reader_count)
    connections = [
        await loop.create_connection(
            lambda path=path: _Reader(request("GET", f"{path}?offset=now&live=sse"), state),  # type: ignore[misc]
            *address_of(url),
        )
        for path in paths
    ]
    for _, reader in connections:
        await asyncio.wait_for(reader.is_ready.wait(), FAN_OUT_TIMEOUT_S)
    began, number = time.perf_counter(), 0
    while time.perf_counter() < began + seconds:
        number += 1
        state.missing = reader_count
        state.all_have_it.clear()
        state.sent_at[number] = time.perf_counter()
        sending = send(b"#%08d" % number + b"." * 91)
        await asyncio.wait_for(asyncio.gather(sending, state.all_have_it.wait()), FAN_OUT_TIMEOUT_S)
    elapsed = time.perf_counter() - began
    for transport, _ in connections:
        transport.close()
    return Measure(number * reader_count / elapsed, state.latencies_s)


def median_measure(measures: Sequence[Measure]) -> Measure | None:
    """The measure with the median rate, with the latencies of all; None of none."""
    if not measures:
        return None
    rate = statistics.median(measure.per_second for measure in measures)
    return Measure(rate, [latency for measure in measures for latency in measure.latencies_s])
