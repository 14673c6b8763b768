"""Deadlines of an HTTP/1.1 connection, by a clock that the tests move."""

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, cast

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from fluvial.server.http1.bounds import ARRIVAL_S, IDLE_S, LINGER_S, STALLED_BYTES_MAX
from fluvial.server.http1.deadline import Deadline
from fluvial.server.http1.protocol import BoundedHttpProtocol

POST = b"POST /x HTTP/1.1\r\nHost: x\r\n"


@dataclass(eq=False)
class Timer:
    """A timer of a ManualLoop."""

    loop: "ManualLoop"
    at: float
    run: Callable[[], None]

    def cancel(self) -> None:
        """Do not run it."""
        self.loop.timers.remove(self)


class ManualLoop:
    """As much of an event loop as a connection uses; its timers run when its time is moved, tasks on the real loop."""

    def __init__(self) -> None:
        """The time is 0, and there are no timers."""
        self.timers: list[Timer] = []
        self.started_count = 0
        self._now = 0.0

    def time(self) -> float:
        """The seconds that the tests have let pass."""
        return self._now

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Start a timer."""
        self.timers.append(Timer(self, when, callback))
        self.started_count += 1
        return self.timers[-1]

    def create_task(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run the application."""
        return asyncio.get_running_loop().create_task(coroutine)

    def advance(self, seconds: float) -> None:
        """Let time pass, and run the timers that are due then."""
        self._now += seconds
        while due := [timer for timer in self.timers if timer.at <= self._now]:
            due[0].cancel()
            due[0].run()

    @property
    def as_loop(self) -> asyncio.AbstractEventLoop:
        """The same object, by the type that a connection expects."""
        return cast("asyncio.AbstractEventLoop", self)


class RecordingTransport(asyncio.Transport):
    """A transport that keeps what is written, and whether it was closed."""

    def __init__(self) -> None:
        """Nothing was written, and it is open."""
        super().__init__()
        self.written = b""
        self.is_closed = self.has_ended = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep the bytes."""
        self.written += data

    def write_eof(self) -> None:
        """Note that the sending side was shut down."""
        self.has_ended = True

    def can_write_eof(self) -> bool:
        """As TCP without TLS."""
        return True

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.is_closed

    def close(self) -> None:
        """Note it."""
        self.is_closed = True

    def pause_reading(self) -> None:
        """Tests give no bytes to a paused connection."""

    def resume_reading(self) -> None:
        """See pause_reading."""


class Connection:
    """A connection to an application that reads its requests' bodies and answers none; it runs while a test awaits."""

    def __init__(self) -> None:
        """A client has connected."""
        self.loop, self.transport, self.state = ManualLoop(), RecordingTransport(), ServerState()
        config = uvicorn.Config(self._app, lifespan="off", log_config=None)
        self.protocol = BoundedHttpProtocol(config, self.state, {}, self.loop.as_loop)
        self.protocol.connection_made(self.transport)

    async def _app(self, _scope: Scope, receive: Receive, _send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    def receive(self, data: bytes, *, after_s: float = 0) -> None:
        """Let time pass, and then bytes come from the client."""
        self.loop.advance(after_s)
        self.protocol.data_received(data)

    async def end(self) -> None:
        """Lose the connection, and wait for the application."""
        self.protocol.connection_lost(None)
        await asyncio.gather(*self.state.tasks)


@pytest.fixture
async def connection() -> AsyncIterator[Connection]:
    """A connection that a client has just made."""
    made = Connection()
    yield made
    await made.end()
    assert made.loop.timers == []


async def test_head_has_one_deadline_for_all_its_pieces(connection: Connection) -> None:
    """A client that sends a byte every few seconds does not hold the connection."""
    for byte in b"GET /":
        connection.receive(bytes([byte]), after_s=0 if byte == ord("G") else 7)
    connection.loop.advance(ARRIVAL_S - 4 * 7 - 1)
    assert connection.transport.written == b""
    connection.loop.advance(1)
    assert connection.transport.written.startswith(b"HTTP/1.1 408 ")
    assert b"request_timeout" in connection.transport.written


async def test_head_that_begins_behind_another_one_has_its_own_deadline(connection: Connection) -> None:
    """A client that sends its requests one after the other is not late because the one before took long."""
    connection.receive(b"GET /first HTTP/1.1\r\nHost: x\r\n")
    connection.receive(b"\r\nGET /second HTTP/1.1\r\n", after_s=ARRIVAL_S - 1)
    connection.loop.advance(ARRIVAL_S - 1)
    assert not connection.protocol._is_discarding
    connection.loop.advance(1)
    assert connection.protocol._is_discarding


async def test_empty_lines_before_a_request_are_no_part_of_it(connection: Connection) -> None:
    """However many come: "a server [...] SHOULD ignore at least one empty line" (RFC 9112, 2.2)."""
    connection.receive(b"\r\n" * STALLED_BYTES_MAX)
    connection.receive(POST)
    connection.receive(b"Content-Length: 1\r\n")
    assert connection.transport.written == b""
    assert not connection.protocol._is_discarding


async def test_part_of_a_body_moves_the_deadline(connection: Connection) -> None:
    """A slow upload goes on as long as something comes in time."""
    connection.receive(POST + b"Content-Length: 9\r\n\r\n")
    for _ in range(8):
        connection.receive(b"x", after_s=ARRIVAL_S - 1)
    assert connection.transport.written == b""
    connection.loop.advance(ARRIVAL_S)
    assert connection.transport.written.startswith(b"HTTP/1.1 408 ")


async def test_trailers_in_time_are_refused_when_they_are_too_many(connection: Connection) -> None:
    """They move the deadline as parts of a body do, so their size is limited."""
    connection.receive(POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
    trailers = b"x: 1\r\n" * 1_000
    for _ in range(STALLED_BYTES_MAX // len(trailers)):
        connection.receive(trailers, after_s=ARRIVAL_S - 1)
        assert connection.transport.written == b""
    connection.receive(trailers)
    assert connection.transport.written.startswith(b"HTTP/1.1 431 ")


async def test_slow_application_is_not_the_clients_fault(connection: Connection) -> None:
    """While the application has not read the body that came, reading is paused, and the request is not refused."""
    connection.receive(POST + b"Content-Length: 100000\r\n\r\n" + bytes(90_000))
    connection.loop.advance(10 * ARRIVAL_S)
    assert connection.transport.written == b""
    assert not connection.transport.is_closed


async def test_idle_connection_is_closed(connection: Connection) -> None:
    """Nothing is written: the client has asked for nothing."""
    connection.loop.advance(IDLE_S - 1)
    assert not connection.transport.is_closed
    connection.loop.advance(1)
    assert connection.transport.is_closed
    assert connection.transport.written == b""


async def test_refused_connection_lingers_before_it_is_closed(connection: Connection) -> None:
    """The sending side is shut down at once; input is discarded until none has come for a while."""
    connection.receive(b"GARBAGE\r\n\r\n")
    assert connection.transport.written.startswith(b"HTTP/1.1 400 ")
    for _ in range(3):
        connection.receive(b"more", after_s=LINGER_S - 1)
        assert (connection.transport.has_ended, connection.transport.is_closed) == (True, False)
    connection.loop.advance(LINGER_S)
    assert connection.transport.is_closed


def test_later_deadline_starts_no_timer() -> None:
    """A timer that wakes up before its deadline starts again for the rest."""
    loop, expired = ManualLoop(), list[float]()
    deadline = Deadline(loop.as_loop, lambda: expired.append(loop.time()))
    for _ in range(10):
        deadline.set(30)
        deadline.clear()
        loop.advance(1)
    deadline.set(30)
    assert loop.started_count == 1
    loop.advance(29)
    assert (expired, loop.started_count) == ([], 2)
    loop.advance(1)
    assert (expired, loop.timers) == ([40.0], [])


def test_earlier_deadline_replaces_the_timer() -> None:
    """It is not missed because the timer is due later."""
    loop, expired = ManualLoop(), list[float]()
    deadline = Deadline(loop.as_loop, lambda: expired.append(loop.time()))
    deadline.set(75)
    deadline.set(2)
    loop.advance(2)
    assert (expired, loop.timers) == ([2.0], [])


def test_cleared_deadline_does_not_expire() -> None:
    """The timer finds no deadline and ends."""
    loop, expired = ManualLoop(), list[float]()
    deadline = Deadline(loop.as_loop, lambda: expired.append(loop.time()))
    deadline.set(1)
    deadline.clear()
    loop.advance(1)
    assert (expired, loop.timers) == ([], [])


def test_closed_deadline_does_not_keep_its_connection() -> None:
    """The connection is freed at once, without the garbage collector."""

    class Owner:
        def __init__(self) -> None:
            self.deadline = Deadline(ManualLoop().as_loop, self.expire)

        def expire(self) -> None:
            raise AssertionError

    owner = Owner()
    owner.deadline.set(1)
    owner.deadline.close()
    watched = weakref.ref(owner)
    del owner
    assert watched() is None
