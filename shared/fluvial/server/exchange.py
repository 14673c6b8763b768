"""Exchanges: one request with its answer, as metrics, access log and traces see it.

Rules:
1. An exchange is observed around the whole application, whichever server or function runs that. What only the inside
   knows (the route, the stream, the project), the inside adds: it finds the exchange in the request's scope.
2. It costs an append about two microseconds, of more than fifty (`make bench-metrics`). So it is a struct whose fields
   are those of a line of the access log, counts in plain numbers, and adds no coroutine to the sending of an answer.
3. An error's answer has `X-Request-Id`, and so have the log lines about it. Other answers have none: a cache would give
   the id of one request to many.
"""

import re
import time
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Final, Protocol

import msgspec
from msgspec import UNSET, UnsetType
from starlette.types import Message, Scope, Send

from fluvial.clock import Clock
from fluvial.metrics.metrics import UNMATCHED, Metrics
from fluvial.model.commit import Outcome
from fluvial.model.names import STREAM_ROOT
from fluvial.model.project import Project
from fluvial.wire.request import Headers

#: Where a request's scope has its exchange.
EXCHANGE: Final = "fluvial.exchange"

#: The status of a request whose client was gone before there was an answer. It is nginx's; it is never sent.
CLIENT_GONE: Final = 499

#: The status of a WebSocket that was opened.
SWITCHING: Final = 101

_FIRST_ERROR: Final = 400

#: What metrics and logs call the path of a stream.
STREAM_ROUTE: Final = STREAM_ROOT + "{stream:path}"

_STREAM_ROOT: Final = STREAM_ROOT.encode()

REQUEST_ID: Final = b"x-request-id"

#: A client's or a proxy's own request id is taken if it cannot break a log line.
_SANE_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")

#: Times of the access log are this exact: requests that end within it share one.
_TIMESTAMP_S: Final = 0.001


class _Error(msgspec.Struct):
    code: str


class _ErrorBody(msgspec.Struct):
    error: _Error


_DECODER: Final = msgspec.json.Decoder(_ErrorBody)


class Exchange(msgspec.Struct, gc=False):
    """One request, and what is known of it and its answer so far.

    The fields from `timestamp` on are those of the access log, in their order; UNSET ones are left out.
    """

    scope: Scope
    pass_on: Send
    observers: "Observers"
    began: float
    is_traced: bool = False
    commit_ns: tuple[int, int] | UnsetType = UNSET

    timestamp: datetime | UnsetType = UNSET
    level: str = "info"
    event: str = "request"
    logger: str = "fluvial.access"
    method: str = "GET"
    route: str = UNMATCHED
    project: str | UnsetType = UNSET
    stream: str | UnsetType = UNSET
    status: int = 0
    code: str | UnsetType = UNSET
    ms: float = 0.0
    request_bytes: int = 0
    response_bytes: int = 0
    live: str | UnsetType = UNSET
    request_id: str | UnsetType = UNSET

    def release(self) -> None:
        """Keep nothing but the fields of the access log."""
        self.scope = self.pass_on = self.observers = self.began = self.is_traced = UNSET  # type: ignore[assignment]
        self.commit_ns = UNSET

    def send(self, message: Message) -> Awaitable[None]:
        """Send a message of the answer, and take note of it."""
        kind = message["type"]
        if kind == "http.response.start":
            status = self.status = message["status"]
            if status >= _FIRST_ERROR:
                message = self._with_request_id(message)
        elif kind == "http.response.body":
            body = message["body"]
            self.response_bytes += len(body)
            if self.status >= _FIRST_ERROR:
                self._note_error(body)
        else:
            message = self._note_socket(kind, message)
        return self.pass_on(message)

    def _note_socket(self, kind: str, message: Message) -> Message:
        """Take note of a WebSocket's message; return what to send."""
        if kind == "websocket.send":
            self.response_bytes += len(message.get("text") or message.get("bytes") or b"")
        elif kind == "websocket.accept":
            self.status = SWITCHING
        elif kind == "websocket.http.response.start":
            self.status = message["status"]
            return self._with_request_id(message)
        elif kind == "websocket.http.response.body":
            self._note_error(message.get("body", b""))
        return message

    def _with_request_id(self, message: Message) -> Message:
        return {**message, "headers": (*message.get("headers", ()), (REQUEST_ID, self.known_id().encode()))}

    def known_id(self) -> str:
        """The id that the client or a proxy has given to the request, or a new one."""
        if self.request_id is UNSET:
            self.note_id(next((value for name, value in self.scope["headers"] if name == REQUEST_ID), None))
        if self.request_id is UNSET:
            self.request_id = self.observers.clock.new_request_id()
        return self.request_id

    def note_id(self, given: bytes | None) -> None:
        """Note the id that the request came with, if it is a sane one."""
        if given is not None and _SANE_ID.fullmatch(given):
            self.request_id = given.decode("ascii")

    async def time_write(self, write: Awaitable[Outcome]) -> Outcome:
        """Carry out a write, and note when it was, for its span."""
        began_ns = time.time_ns()
        try:
            return await write
        finally:
            self.commit_ns = (began_ns, time.time_ns())

    def _note_error(self, body: bytes) -> None:
        """Take the code of an error out of its body, which has it for the client in every transport."""
        if self.code is UNSET and body:
            try:
                self.code = _DECODER.decode(body).error.code
            except msgspec.DecodeError:
                return


def note_stream(scope: Scope, name: str | None, project: Project | None, headers: Headers) -> None:
    """Note which stream a request is on, whose it is, and the request's id if it came with one."""
    exchange: Exchange | None = scope.get(EXCHANGE)
    if exchange is not None:
        if name is not None:
            exchange.stream = name
        if project is not None:
            exchange.project = project.name
        if REQUEST_ID in headers:
            exchange.note_id(headers[REQUEST_ID])


def note_live_read(scope: Scope, transport: str) -> None:
    """Note that a request is a live read."""
    exchange: Exchange | None = scope.get(EXCHANGE)
    if exchange is not None and exchange.live is UNSET:
        exchange.live = transport
        exchange.observers.metrics.live_reads[transport] += 1


def note_body(scope: Scope, byte_count: int) -> None:
    """Note how long a request's body was."""
    exchange: Exchange | None = scope.get(EXCHANGE)
    if exchange is not None:
        exchange.request_bytes = byte_count


def note_append(scope: Scope, byte_count: int) -> None:
    """Count an append that was applied."""
    exchange: Exchange | None = scope.get(EXCHANGE)
    if exchange is not None:
        exchange.observers.metrics.on_append(byte_count)


def exchange_of(scope: Scope) -> Exchange | None:
    """The exchange of a request; None when nothing observes it."""
    return scope.get(EXCHANGE)


def request_id_of(scope: Scope) -> str | None:
    """The request id for a log line about a request."""
    exchange = exchange_of(scope)
    return None if exchange is None else exchange.known_id()


class SpanMaker(Protocol):
    """Makes spans of exchanges that have ended."""

    def on_exchange(self, exchange: Exchange, seconds: float) -> None:
        """Take a copy of what is needed; it must be quick. `seconds` is how long the exchange took."""
        ...


class AccessLogger(Protocol):
    """Writes a line for each exchange that has ended."""

    @property
    def dropped_count(self) -> int:
        """Lines that could not be written."""
        ...

    def add(self, exchange: Exchange) -> None:
        """Write a line later: the exchange is the log's from now on."""
        ...


class RequestObserver(Protocol):
    """Takes note of each request as a whole, in a process that serves one at a time."""

    def begin(self, scope: Scope) -> None:
        """A request has come; it must be quick, and must not raise."""
        ...

    def end(self) -> None:
        """The request is answered, and counted."""
        ...


class Observers:
    """What observes the requests of an application: the metrics always, an access log and spans if they are wanted."""

    __slots__ = ("_stamped_at", "_timestamp", "access_log", "clock", "metrics", "requests", "spans")

    def __init__(
        self,
        metrics: Metrics,
        clock: Clock,
        access_log: AccessLogger | None = None,
        spans: SpanMaker | None = None,
        requests: RequestObserver | None = None,
    ) -> None:
        """The metrics may also observe the application's store; `requests` is a Lambda function's."""
        self.requests = requests
        self.metrics, self.clock, self.access_log, self.spans = metrics, clock, access_log, spans
        self._timestamp, self._stamped_at = datetime.now(UTC), time.perf_counter()

    def begin(self, scope: Scope, send: Send) -> Exchange:
        """Begin an exchange; `send` is the server's, and the application is given the exchange's own."""
        if self.requests is not None:
            self.requests.begin(scope)
        exchange = scope[EXCHANGE] = Exchange(scope, send, self, time.perf_counter(), self.spans is not None)
        if scope["raw_path"].startswith(_STREAM_ROOT):
            exchange.route = STREAM_ROUTE
        return exchange

    def end(self, exchange: Exchange) -> None:
        """Count an exchange that has ended, and pass it on."""
        # The two refer to each other. Only the cycle collector would free them, which seldom runs.
        scope = exchange.scope
        del scope[EXCHANGE]
        ended, metrics = time.perf_counter(), self.metrics
        seconds = ended - exchange.began
        method = exchange.method = scope.get("method", "GET")
        if method == "HEAD":
            exchange.response_bytes = 0  # the body was given, for its length, and is not sent
        if not exchange.status:
            exchange.status = CLIENT_GONE
        if exchange.live is UNSET:
            metrics.on_request(exchange.route, method, exchange.status, seconds)
        else:
            metrics.live_reads[exchange.live] -= 1
            metrics.on_live_request(exchange.route, method, exchange.status)
        if exchange.code is not UNSET:
            metrics.refused[exchange.code] += 1
        if self.spans is not None:
            self.spans.on_exchange(exchange, seconds)
        if self.access_log is not None:
            exchange.ms = int(seconds * 1_000_000) / 1_000
            exchange.timestamp = self._now(ended)
            exchange.release()
            self.access_log.add(exchange)
        if self.requests is not None:
            self.requests.end()

    def _now(self, at: float) -> datetime:
        """The time of day; `at` is the same time on the clock that measures durations, which is quicker to compare."""
        if at - self._stamped_at >= _TIMESTAMP_S:
            self._timestamp, self._stamped_at = datetime.now(UTC), at
        return self._timestamp
