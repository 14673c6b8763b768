"""HTTP/1.1 on a socket: uvicorn's protocol with a bound on every wait and size, and Fluvial's errors."""

import asyncio
from functools import partial
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote

import httptools
from uvicorn._types import ASGISendEvent, ASGIVersions, HTTPScope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.limits import HEADER_BYTES_MAX, PATH_BYTES_MAX, QUERY_BYTES_MAX, REFUSED_BODY_BYTES_MAX
from fluvial.server.http1.cycle import HttpCycle, send_refusal
from fluvial.server.http1.half_open import HalfOpen
from fluvial.wire.http_head import (
    HTTP_1_0,
    Target,
    check_fields,
    check_handshake,
    is_request_line,
    parse_target,
    with_host,
)
from fluvial.wire.response import error_response, request_error_response

#: How long a connection may stay without a request; longer than the usual 60 s of proxies, so that they close first.
IDLE_S: Final = 75

#: How long a request's head may take in all, and its body between two parts.
ARRIVAL_S: Final = 30

#: How long more is waited for of what a client still sends after an answer that it had not finished asking for.
LINGER_S: Final = 2

#: And how much of it, where it is not known what it is.
LINGERING_BYTES_MAX: Final = 1_048_576

#: What may come in without getting any further: a head and its line, or the trailers of a chunked body.
STALLED_BYTES_MAX: Final = HEADER_BYTES_MAX + PATH_BYTES_MAX + QUERY_BYTES_MAX

_ASGI: Final[ASGIVersions] = {"version": "3.0", "spec_version": "2.3"}
_FRAMING_FIELDS: Final = (b"content-length", b"transfer-encoding")


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, for clients that stall, flood, upgrade or send what is no HTTP."""

    _is_arriving = False
    _is_in_head = False
    _is_resuming = False
    _is_refused = False
    _is_lingering = False
    _is_upgraded = False
    _field_bytes = 0
    _stalled_bytes = 0
    _refused_bytes = 0
    _refused_bytes_max = REFUSED_BODY_BYTES_MAX
    _running: RequestResponseCycle | None = None
    _ends_at: float | None = None
    _timer: asyncio.Handle | None = None
    _looks_at = 0.0
    _half_open: HalfOpen | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection must bring a request in time."""
        super().connection_made(transport)
        self._arm(IDLE_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell every request of the connection, not the last one alone."""
        self._drop_timer()
        if self._half_open is not None:
            self._half_open.end()
        for cycle in (self._running, *(queued for queued, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends nothing more. It gets the answers that are due, and then the connection ends."""
        if self._is_arriving:
            self._refuse(400, ErrorCode.MALFORMED_REQUEST, "the connection ended within the request")
        due = self._due()
        if not due or self._is_lingering:
            return False
        due[-1].keep_alive = False
        self._drop_timer()
        self._half_open = HalfOpen(self.loop, self.transport, due)
        return True

    def data_received(self, data: bytes) -> None:
        """Parse what came, and see to it that what is missing comes in time."""
        if self._is_refused:
            self._drop(len(data))
            if self._is_lingering:
                self._arm(LINGER_S)
            return
        was_in_head, is_start = self._is_in_head, not self._is_arriving
        self._stalled_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError as exc:
            self._refuse(*_reason(exc, data if is_start else b""))
        if self._is_arriving and self._stalled_bytes > STALLED_BYTES_MAX:
            self._refuse(431, ErrorCode.HEADERS_TOO_LARGE, f"header fields may have {HEADER_BYTES_MAX} bytes")
        if self._is_refused:
            return
        if self._is_upgraded:
            self._drop_timer()  # the connection is another protocol's from here on
            return
        if self._is_arriving and self._is_in_head and was_in_head:
            return  # a head has one deadline, however many pieces it comes in
        self._disarm()
        if self._is_arriving:
            self._arm(ARRIVAL_S)
        elif self._running is None or self._running.response_complete:
            self._arm(IDLE_S)

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._is_resuming or self._is_refused:
            return
        self._is_arriving = self._is_in_head = True
        self._field_bytes = 0
        self.url, self.headers, self.expect_100_continue = b"", [], False

    def on_url(self, url: bytes) -> None:
        """A part of the request's target."""
        if not self._is_resuming and not self._is_refused:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field; a trailer is none, for it was not there when the request was judged."""
        if not self._is_in_head or self._is_resuming or self._is_refused:
            return
        self._field_bytes += len(name) + len(value)
        if self._field_bytes > HEADER_BYTES_MAX:
            self._refuse(431, ErrorCode.HEADERS_TOO_LARGE, f"header fields may have {HEADER_BYTES_MAX} bytes")
            return
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A head is whole."""
        if self._is_resuming or self._is_refused:
            return
        self._is_in_head = False
        self._refused_bytes = 0
        app, is_good = self.app, True
        method, version = self.parser.get_method().decode("ascii"), self.parser.get_http_version()
        try:
            self.scope = self._new_scope(method, version, self._judged(method, version))
        except RequestError as exc:
            self.scope = self._new_scope(method, version, Target(b"/", b""))
            app, is_good = partial(send_refusal, request_error_response(exc)), False
            self._is_refused = True  # where such a request ends, and what follows it, is not looked for
        if is_good and self.parser.should_upgrade() and self._should_upgrade():
            return
        before: RequestResponseCycle | None = self.cycle
        self.cycle = HttpCycle(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue and version != HTTP_1_0,
            keep_alive=is_good and version != HTTP_1_0 and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, app))

    def _judged(self, method: str, version: str) -> Target:
        """What the request is for. Raises RequestError when the application is not to get it."""
        check_fields(version, self.headers)
        target = parse_target(method, self.url)
        if target.host is not None:
            self.headers = with_host(self.headers, target.host)
            self.url = target.path + (b"?" + target.query if target.query else b"")
        if self.parser.should_upgrade() and self._should_upgrade():
            check_handshake(self.url, self.headers)
        return target

    def _new_scope(self, method: str, version: str, target: Target) -> HTTPScope:
        path = target.path.decode("latin-1")
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme or "http",
            "root_path": "",
            "headers": self.headers,
            "method": method,
            "path": unquote(path) if "%" in path else path,
            "raw_path": target.path,
            "query_string": target.query,
        }

    def on_body(self, body: bytes) -> None:
        """A part of a body; what nobody waits for any more is dropped, up to a bound."""
        if self._is_refused:
            return
        self._stalled_bytes = 0
        if self.cycle.response_complete:
            self._drop(len(body))
            return
        super().on_body(body)

    def _drop(self, byte_count: int) -> None:
        """Throw away what nobody waits for."""
        self._refused_bytes += byte_count
        if self._refused_bytes > self._refused_bytes_max:
            self.transport.close()

    def on_message_complete(self) -> None:
        """A request is whole, unless the parser stopped at its head because of an upgrade that is not offered."""
        if self._is_refused or (self.parser.should_upgrade() and not self._is_resuming):
            return
        self._is_arriving = False
        self._stalled_bytes = 0
        super().on_message_complete()

    def _feed(self, data: bytes) -> None:
        """Parse. The parser gives up at an upgrade; only that to a WebSocket is offered, any other is ignored.

        curl's --http2 and Java's client offer an upgrade with every request, and send its body all the same.
        """
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                if self._is_refused:
                    return
                if self._should_upgrade():
                    self._is_upgraded = True
                    self.handle_websocket_upgrade()
                    return
                self._resume()
                data = data[upgrade.args[0] :]
            else:
                return

    def _resume(self) -> None:
        """Take the parser past the head at which it has given up, to the body that the head tells of."""
        framing = [b"%s: %s\r\n" % field for field in self.headers if field[0] in _FRAMING_FIELDS]
        self.parser = httptools.HttpRequestParser(self)
        self._is_resuming = True
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%s\r\n" % b"".join(framing))
        self._is_resuming = False

    def _should_upgrade(self) -> bool:
        """Whether a WebSocket is asked for, on a connection that does nothing else. Any other upgrade is ignored.

        "A server MUST ignore an Upgrade header field that is received in an HTTP/1.0 request." -- RFC 9110, 7.8
        """
        is_idle = self._running is None or self._running.response_complete
        is_get = self.parser.get_method() == b"GET" and self.parser.get_http_version() != HTTP_1_0
        return is_idle and is_get and super()._should_upgrade()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401  uvicorn's own type
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """An answer was sent: the next request has its turn, or the connection may rest."""
        self.server_state.total_requests += 1
        if self.transport.is_closing() or self._is_lingering:
            return
        if self._running is not None and not self._running.keep_alive:
            self._linger()
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif not self._is_arriving:
            self._arm(IDLE_S)

    def _arm(self, seconds: float) -> None:
        """Have a deadline. Its timer is kept from one request to the next, for most deadlines never come."""
        self._ends_at = self.loop.time() + seconds
        if self._timer is not None and self._looks_at > self._ends_at:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._set_timer(self._ends_at)

    def _set_timer(self, at: float) -> None:
        self._looks_at = at
        self._timer = self.loop.call_at(at, self._look)

    def _disarm(self) -> None:
        self._ends_at = None

    def _drop_timer(self) -> None:
        self._disarm()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """Whether the deadline has come, or has been moved since the timer was set."""
        self._timer = None
        if self._ends_at is None:
            return
        if self.loop.time() >= self._ends_at:
            self._ends_at = None
            self._ran_out()
        else:
            self._set_timer(self._ends_at)

    def _ran_out(self) -> None:
        """What was waited for did not come."""
        if self._is_lingering or not self._is_arriving:
            self.transport.close()
        elif self.flow.read_paused:
            self._arm(ARRIVAL_S)  # it is this side that does not read
        else:
            self._refuse(408, ErrorCode.REQUEST_TIMEOUT, f"no more of the request came in {ARRIVAL_S} seconds")

    def _due(self) -> list[HttpCycle]:
        """The requests without a whole answer, in the order that they came in."""
        cycles = (self._running, *(queued for queued, _ in reversed(self.pipeline)))
        return [cycle for cycle in cycles if isinstance(cycle, HttpCycle) and not cycle.response_complete]

    def _refuse(self, status: int, code: ErrorCode, message: str) -> None:
        """Take nothing more from the connection, and say why, unless another answer is due or under way before."""
        if self._is_refused or self.transport.is_closing():
            return
        self._disarm()
        self._is_refused = True
        arriving = self.cycle if self._is_arriving and not self._is_in_head else None
        if self.pipeline and self.pipeline[0][0] is arriving:
            self.pipeline.popleft()  # it will never be whole
        due = self._due()
        if due and (due[-1] is not arriving or arriving.response_started):
            due[-1].keep_alive = False
            return
        if arriving is not None and arriving.response_complete:
            self.transport.close()
            return
        response = error_response(status, code, message, (b"connection", b"close"))
        headers = (*self.server_state.default_headers, *response.headers)
        fields = b"".join(b"%s: %s\r\n" % field for field in headers)
        phrase = HTTPStatus(status).phrase.encode()
        self.transport.write(b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (status, phrase, fields, response.body))
        self._refused_bytes, self._refused_bytes_max = 0, LINGERING_BYTES_MAX
        self._linger()

    def _linger(self) -> None:
        """End the connection, but let the client see the answer first: what it still sends is read and dropped.

        "If a server performs an immediate close of a TCP connection, there is a significant risk that the client will
        not be able to read the last HTTP response." -- RFC 9112, 9.6
        """
        self._is_refused = self._is_lingering = True
        if self._half_open is not None or not self.transport.can_write_eof():
            self.transport.close()
            return
        self.flow.resume_reading()
        self.transport.write_eof()
        self._arm(LINGER_S)


def _reason(error: httptools.HttpParserError, line: bytes) -> tuple[int, ErrorCode, str]:
    """What is wrong with what the parser does not take; `line` is what the request begins with, if that is known."""
    if isinstance(error, httptools.HttpParserInvalidMethodError) and is_request_line(line):
        return 501, ErrorCode.NOT_IMPLEMENTED, "this server knows no such method"
    if isinstance(error, httptools.HttpParserInvalidURLError):
        message = "the request's target has a character that must be percent-encoded, or is none"
        return 400, ErrorCode.MALFORMED_REQUEST, message
    return 400, ErrorCode.MALFORMED_REQUEST, "the request is not valid HTTP/1.1"


class SocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket, which takes a handshake that was answered in plain HTTP for one that was not answered."""

    async def send(self, message: ASGISendEvent) -> None:
        """Send what the application says."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True
