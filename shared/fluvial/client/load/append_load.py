"""The load of `fluvial bench`: writers that append numbered lines, and live readers that check them.

Time limits are `asyncio.timeout`: `wait_for` loses a Ctrl-C that comes together with the end of what it waits for, as
when a server is killed, and the load would go on.
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import msgspec

from fluvial.client.load.http_connection import ClosedLoop, Origin, RequestRefused
from fluvial.client.load.latencies import Latencies
from fluvial.client.load.live_reader import LiveReader
from fluvial.client.load.numbered_lines import Checker, Findings, Sent, make_line

#: How long the server may take to accept a connection, and for its last answers.
CONNECT_TIMEOUT_S: Final = 10.0
ANSWER_TIMEOUT_S: Final = 30.0
#: How long readers may wait for the next of the lines that they do not have yet.
DRAIN_TIMEOUT_S: Final = 10.0
#: The pauses before a connection is opened again.
RETRY_S_FIRST: Final = 0.05
RETRY_S_MAX: Final = 1.0
#: After so many errors there is nothing to measure.
ERROR_COUNT_MAX: Final = 10_000
_POLL_S: Final = 0.02
#: Refusals that may pass: too many requests, and the errors of servers and proxies.
_PASSING_STATUSES: Final = frozenset({408, 429, 500, 502, 503, 504})


class LoadFailed(Exception):
    """The load cannot be carried out."""


@dataclass(frozen=True)
class Load:
    """How much of what, for how long.

    Without a `rate` each connection sends an append when the one before is answered: the load is as heavy as the server
    allows, and waits when the server does. With a rate, of appends a second by all connections together, each append is
    due at a time of its own. One that cannot be sent then, because its connection still waits for an answer, is sent as
    soon as possible, and its latency counts from when it was due.
    """

    streams: Sequence[str]
    seconds: float
    connection_count: int
    reader_count: int
    line_bytes: int
    progress: Callable[[str, int, int], None] = lambda _what, _done, _total: None
    drain_timeout_s: float = DRAIN_TIMEOUT_S
    rate: float | None = None

    @property
    def due_count(self) -> int | None:
        """How many appends are due within the time of the load; None without a rate."""
        return None if self.rate is None else math.ceil(self.rate * self.seconds)


@dataclass
class Outcome:
    """What the load has measured, and what its writers have sent.

    `processor_share` is how busy this process was: near 1 it was the bottleneck, not the server.
    """

    seconds: float = 0.0
    processor_share: float = 0.0
    sent: dict[int, Sent] = field(default_factory=dict)
    latencies: Latencies = field(default_factory=Latencies)
    error_counts: dict[str, int] = field(default_factory=dict)
    delivery_latencies: Latencies = field(default_factory=Latencies)
    delivered: Findings = field(default_factory=Findings)

    @property
    def acknowledged_count(self) -> int:
        """How many appends were acknowledged."""
        return self.latencies.count

    @property
    def sent_count(self) -> int:
        """How many appends were sent."""
        return sum(sent.count for sent in self.sent.values())

    @property
    def error_count(self) -> int:
        """How many requests failed."""
        return sum(self.error_counts.values())

    def sent_to(self, place: int, stream_count: int) -> dict[int, Sent]:
        """What was sent to one of the streams."""
        return {writer: sent for writer, sent in self.sent.items() if writer % stream_count == place}

    def note_error(self, error: Exception) -> None:
        """Count an error by its text. Raises LoadFailed for one that stays, and for one too many."""
        text = f"status {error.status}" if isinstance(error, RequestRefused) else _reason(error)
        self.error_counts[text] = self.error_counts.get(text, 0) + 1
        if isinstance(error, RequestRefused) and error.status not in _PASSING_STATUSES:
            raise LoadFailed(_message_of(error)) from error
        if self.error_count >= ERROR_COUNT_MAX:
            message = f"{ERROR_COUNT_MAX:,} requests failed, the last with: {text}"
            raise LoadFailed(message) from error


class _Writer:
    """One connection's appends, one after the other."""

    def __init__(self, origin: Origin, load: Load, number: int, outcome: Outcome) -> None:
        self._origin, self._load, self._number, self._outcome = origin, load, number, outcome
        self._path = f"/{load.streams[number % len(load.streams)]}"
        self._head = origin.request("POST", self._path, b"." * load.line_bytes, {"Content-Type": "text/plain"})
        self._head = self._head[: -load.line_bytes]
        self.sent = outcome.sent[number] = Sent()
        self.loop: ClosedLoop | None = None
        self.began_s = self.ends_at_s = self._late_s = 0.0

    def pause_s(self) -> float:
        """How long until the next append is due; nothing without a rate, or if none is due any more."""
        due_s = self._due_s()
        return 0.0 if due_s is None or due_s >= self.ends_at_s else due_s - time.perf_counter()

    def next_request(self) -> bytes | None:
        """The next append, or None when the time is over."""
        due_s, now_s = self._due_s(), time.perf_counter()
        if due_s is None:
            due_s = now_s
        if max(due_s, now_s) >= self.ends_at_s:
            return None
        self._late_s = max(0.0, now_s - due_s)
        return self._head + make_line(self._number, self.sent.next_number(), int(due_s * 1e9), self._load.line_bytes)

    def take_answer(self, latency_s: float) -> None:
        """Count an acknowledged append."""
        self.sent.acknowledge()
        self._outcome.latencies.add(self._late_s + latency_s)

    def _due_s(self) -> float | None:
        """When the next append is due: the connections take turns. None without a rate."""
        if self._load.rate is None:
            return None
        return self.began_s + (self.sent.count * self._load.connection_count + self._number) / self._load.rate

    async def connect(self) -> None:
        """Open the connection."""
        origin, loop = self._origin, asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, self.loop = await loop.create_connection(
                lambda: ClosedLoop(self), origin.host, origin.port, ssl=origin.tls
            )

    async def write(self, began_s: float) -> None:
        """Append until the time is over, over new connections if need be."""
        self.began_s, self.ends_at_s = began_s, (ends_at_s := began_s + self._load.seconds)
        pause_s = RETRY_S_FIRST
        try:
            while time.perf_counter() < ends_at_s:
                count = self.sent.acknowledged_count
                try:
                    if self.loop is None:
                        await self.connect()
                    await self._run()
                except (OSError, RequestRefused) as exc:
                    self._outcome.note_error(exc)
                    pause_s = RETRY_S_FIRST if self.sent.acknowledged_count > count else min(2 * pause_s, RETRY_S_MAX)
                    wait_s = max(pause_s, exc.retry_after_s if isinstance(exc, RequestRefused) else 0.0)
                    left_s = max(0.0, ends_at_s - time.perf_counter())
                    await asyncio.sleep(min(wait_s, left_s))
                    if wait_s >= left_s:  # a sleep may end a moment early, which would be time for one more request
                        return
                else:
                    return
        finally:
            await self.close()

    async def _run(self) -> None:
        assert self.loop is not None
        try:
            self.loop.start()
            left_s = self.ends_at_s - time.perf_counter() + ANSWER_TIMEOUT_S
            async with asyncio.timeout(left_s):
                await asyncio.shield(self.loop.done)
        finally:
            await self.close()

    async def close(self) -> None:
        """Hang up."""
        loop, self.loop = self.loop, None
        if loop is not None:
            await loop.hang_up()


class _Reader:
    """One live reader, over as many connections as it needs."""

    def __init__(self, origin: Origin, load: Load, number: int, outcome: Outcome) -> None:
        self._origin, self._outcome = origin, outcome
        place = number % len(load.streams)
        self._path = f"/{load.streams[place]}"
        self.checker = Checker(outcome.sent_to(place, len(load.streams)), outcome.delivery_latencies)
        self._offset = "-1"
        self.is_ready = asyncio.Event()

    async def follow(self) -> None:
        """Read until cancelled."""
        pause_s = RETRY_S_FIRST
        while True:
            read = self.checker.read
            try:
                await self._read_once()
            except (OSError, RequestRefused) as exc:
                self._outcome.note_error(exc)
            if self.checker.read > read:
                pause_s = RETRY_S_FIRST
            else:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, RETRY_S_MAX)

    async def _read_once(self) -> None:
        origin, loop = self._origin, asyncio.get_running_loop()
        request = origin.request("GET", f"{self._path}?offset={self._offset}&live=sse")
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, reader = await loop.create_connection(
                lambda: LiveReader(request, self._take), origin.host, origin.port, ssl=origin.tls
            )
        try:
            ready = asyncio.ensure_future(reader.is_ready.wait())
            await asyncio.wait((ready, reader.done), timeout=ANSWER_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
            if not reader.is_ready.is_set() and not reader.done.done():
                message = "a live read has no answer"
                raise TimeoutError(message)
            if reader.is_ready.is_set():
                self.is_ready.set()
            await asyncio.shield(reader.done)
        finally:
            self._offset = reader.next_offset or self._offset
            await reader.hang_up()

    def _take(self, text: bytes) -> None:
        self.checker.take(text, time.perf_counter_ns())


async def run_load(origin: Origin, load: Load) -> Outcome:
    """Append for the time of the load, and wait until the readers have it all. Raises LoadFailed."""
    outcome = Outcome()
    writers = [_Writer(origin, load, number, outcome) for number in range(load.connection_count)]
    readers = [_Reader(origin, load, number, outcome) for number in range(load.reader_count)]
    try:
        async with asyncio.TaskGroup() as tasks:
            following = [tasks.create_task(reader.follow()) for reader in readers]
            await _get_ready(writers, readers, outcome)
            began_s, processor_s = time.perf_counter(), time.process_time()
            showing = tasks.create_task(_show(load, began_s))
            await asyncio.gather(*(tasks.create_task(writer.write(began_s)) for writer in writers))
            outcome.seconds = max(load.seconds, time.perf_counter() - began_s)
            outcome.processor_share = (time.process_time() - processor_s) / outcome.seconds
            showing.cancel()
            await _drain(readers, load.drain_timeout_s)
            for task in following:
                task.cancel()
    except BaseExceptionGroup as group:
        failed = group.subgroup(LoadFailed)
        if failed is None:
            raise
        raise _first(failed) from None
    finally:
        for writer in writers:
            await writer.close()
    outcome.delivered = sum((reader.checker.findings() for reader in readers), Findings())
    return outcome


async def _get_ready(writers: Sequence[_Writer], readers: Sequence[_Reader], outcome: Outcome) -> None:
    try:
        for writer in writers:
            await writer.connect()
        for reader in readers:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await reader.is_ready.wait()
    except OSError as exc:
        reason = ", ".join(outcome.error_counts) or _reason(exc)
        message = f"cannot open {len(writers):,} connections and {len(readers):,} live reads: {reason}"
        raise LoadFailed(message) from exc


async def _show(load: Load, began_s: float) -> None:
    while True:
        load.progress("appending", int(10 * (time.perf_counter() - began_s)), int(10 * load.seconds))
        await asyncio.sleep(0.1)


async def _drain(readers: Sequence[_Reader], timeout_s: float) -> None:
    """Wait until all readers have all lines, or none has got one for some time."""
    read, since_s = -1, time.perf_counter()
    while not all(reader.checker.has_all() for reader in readers):
        now_read = sum(reader.checker.read for reader in readers)
        if now_read != read:
            read, since_s = now_read, time.perf_counter()
        elif time.perf_counter() - since_s > timeout_s:
            return
        await asyncio.sleep(_POLL_S)


def _first(group: BaseExceptionGroup[LoadFailed]) -> LoadFailed:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _message_of(refused: RequestRefused) -> str:
    """The server's message, from a body that came with the head."""
    with suppress(msgspec.DecodeError, KeyError, TypeError):
        error = msgspec.json.decode(str(refused).partition("\r\n\r\n")[2])["error"]
        return f"{error['message']} ({error['code']})"
    return f"the server refused a request with status {refused.status}"
