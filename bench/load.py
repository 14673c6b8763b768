"""The loads of `python -m bench`, over the connections that `fluvial bench` has, too."""

import asyncio
import re
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from fluvial.client.load.http_connection import ClosedLoop, RequestRefused, origin_of
from fluvial.client.load.latencies import Latencies
from fluvial.client.load.live_reader import LiveReader

_MARK = re.compile(rb"#(\d{8})")
#: Room for the largest answers, of 1 MB.
READ_BUFFER_BYTES: Final = 1_048_576
FAN_OUT_TIMEOUT_S: Final = 60

__all__ = ["Measure", "RequestRefused", "closed_loops", "each_once", "fan_out", "median_measure", "once", "request"]


@dataclass
class Measure:
    """What one load found: a rate, and latencies."""

    per_second: float
    latencies: Latencies


def request(method: str, path: str, body: bytes = b"", content_type: str = "text/plain") -> bytes:
    """A request, ready to be sent again and again."""
    return origin_of("http://bench").request(method, path, body, {"Content-Type": content_type})


@dataclass
class _Repeated:
    """The same request until the time is over, and at least once."""

    payload: bytes
    ends_at_s: float
    latencies: Latencies
    is_over: bool = False

    def next_request(self) -> bytes | None:
        """The request, or None."""
        return None if self.is_over else self.payload

    def pause_s(self) -> float:
        """No pause: the next request follows the answer."""
        return 0.0

    def take_answer(self, latency_s: float) -> None:
        """Count an answer."""
        self.latencies.add(latency_s)
        self.is_over = time.perf_counter() >= self.ends_at_s


async def closed_loops(url: str, payloads: Sequence[bytes], seconds: float) -> Measure:
    """One connection for each payload, each as fast as the server answers it."""
    loop, latencies, origin = asyncio.get_running_loop(), Latencies(), origin_of(url)
    began_s = time.perf_counter()
    loops = list[ClosedLoop]()
    for payload in payloads:
        repeated = _Repeated(payload, began_s + seconds, latencies)
        _, one = await loop.create_connection(
            lambda repeated=repeated: ClosedLoop(repeated, READ_BUFFER_BYTES),  # type: ignore[misc]
            origin.host,
            origin.port,
        )
        one.start()
        loops.append(one)
    await asyncio.gather(*(one.done for one in loops))
    return Measure(latencies.count / (time.perf_counter() - began_s), latencies)


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
    latencies: Latencies = field(default_factory=Latencies)
    missing: int = 0
    all_have_it: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, text: bytes) -> None:
        """One reader has appends."""
        for found in _MARK.finditer(text):
            number = int(found[1])
            if number in self.sent_at:
                self.latencies.add(time.perf_counter() - self.sent_at[number])
                self.missing -= 1
                if self.missing == 0:
                    self.all_have_it.set()


#: Sends one payload of 100 bytes to where all readers get it.
Send = Callable[[bytes], Awaitable[None]]


async def fan_out(url: str, paths: Sequence[str], send: Send, seconds: float) -> Measure:
    """Payloads of 100 bytes to one reader of each path; each when all readers have the one before."""
    loop, reader_count, origin = asyncio.get_running_loop(), len(paths), origin_of(url)
    state = _FanOut(reader_count)
    readers = list[LiveReader]()
    for path in paths:
        payload = request("GET", f"{path}?offset=now&live=sse")
        _, reader = await loop.create_connection(
            lambda payload=payload: LiveReader(payload, state.take),  # type: ignore[misc]
            origin.host,
            origin.port,
        )
        readers.append(reader)
    for reader in readers:
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
    for reader in readers:
        reader.close()
    return Measure(number * reader_count / elapsed, state.latencies)


def median_measure(measures: Sequence[Measure]) -> Measure | None:
    """The measure with the median rate, with the latencies of all; None of none."""
    if not measures:
        return None
    rate = statistics.median(measure.per_second for measure in measures)
    return Measure(rate, Latencies.of_all(measure.latencies for measure in measures))
