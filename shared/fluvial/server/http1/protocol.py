"""HTTP/1.1 on one connection: uvicorn's protocol class, with a bound on every wait and every size.

Rules:
1. Each wait for the client has a deadline, and all that is read without getting further has a bound: a client can hold
   a connection, but not forever, and it cannot make one grow.
2. Answers leave in the order of their requests. One request runs at a time; later ones wait in `pipeline`, which has
   the newest on its left.
3. A request whose head is wrong reaches no application. Nothing behind a wrong head or wrong framing is parsed, because
   nothing says where the next request begins: it is discarded.
4. A refusal never takes the place of an answer that is due before it.
5. The last answer reaches its client: a connection with unread input is closed in steps (`_linger`).
6. The one upgrade on offer is that to a WebSocket. A request with any other is answered as if it had none.
7. Running the application and pausing the transport stay uvicorn's. tests/server/test_uvicorn.py fails when a part of
   uvicorn changes that is overridden or relied on here.

What a connection waits for (`Arriving`, and whether an answer is due):

| waits for | deadline | when it has passed |
| --- | --- | --- |
| a request, and no answer is due | IDLE_S | the connection closes |
| the rest of a head | ARRIVAL_S after its first byte | 408 |
| the rest of a body | ARRIVAL_S after its last part | 408, unless reading is paused |
| an answer | none: the application bounds its own time | |
| the client's end, after the last answer | LINGER_S after its last bytes | the connection closes |

It ends as one of these, and never goes back: *discarding* (input is counted and dropped; answers that are due still
leave), *lingering* (discarding, after the last answer), *half-open* (see half_open.py), *upgraded* (uvicorn's WebSocket
class has the transport).
"""

import asyncio
from enum import Enum
from functools import partial
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.limits import HEADER_BYTES_MAX, REFUSED_BODY_BYTES_MAX
from fluvial.server.application import Application
from fluvial.server.http1.bounds import ARRIVAL_S, IDLE_S, LINGER_S, LINGERING_BYTES_MAX, STALLED_BYTES_MAX
from fluvial.server.http1.cycle import HttpCycle
from fluvial.server.http1.deadline import Deadline
from fluvial.server.http1.declined_upgrade import decline_upgrade
from fluvial.server.http1.half_open import HalfOpen
from fluvial.server.http1.refusals import (
    CUT_OFF,
    HEADERS_TOO_LARGE,
    TOO_SLOW,
    Refusal,
    parse_error_refusal,
    render_refusal,
    send_refusal,
)
from fluvial.server.http1.scope import build_scope
from fluvial.wire.http_head import HTTP_1_0, Target, check_fields, check_handshake, parse_target, replace_host
from fluvial.wire.response import request_error_response


class Arriving(Enum):
    """The part of a request that the parser is in."""

    NOTHING = "nothing"
    HEAD = "head"
    BODY = "body"


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection; robust against clients that stall, flood, upgrade or do not send HTTP.

    `cycle` is uvicorn's: the request whose head came last. `_current` is the one that was started last.
    """

    _arriving = Arriving.NOTHING
    _is_discarding = False
    _is_lingering = False
    _is_upgraded = False
    _is_head_new = False
    _field_bytes = 0
    _stalled_bytes = 0
    _discarded_bytes = 0
    _discarded_bytes_max = REFUSED_BODY_BYTES_MAX
    _current: RequestResponseCycle | None = None
    _half_open: HalfOpen | None = None
    _deadline: Deadline

    # -- the transport's callbacks -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the client time to send a request."""
        super().connection_made(transport)
        self._deadline = Deadline(self.loop, self._expire)
        self._deadline.set(IDLE_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell every request on the connection that its client is gone.

        uvicorn tells only the newest one. Then:

        1. An event stream runs, and its client sends another request behind it, which becomes `cycle` and waits.
        2. The client disconnects, and only the waiting request learns of it.
        3. The event stream keeps its place among the live reads until its greatest age.
        """
        self._deadline.close()
        if self._half_open is not None:
            self._half_open.end()
        for cycle in (self._current, *(queued for queued, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends nothing more: send the answers that are due, and end the connection after the last one.

        uvicorn returns None here, which closes the transport. Without the answers:

        1. A client appends and shuts down its sending side at once, as `nc -N` and some proxies do.
        2. The append is committed, but its answer cannot be sent.
        3. The client does not know whether it was, and appends again.
        """
        if self._arriving is not Arriving.NOTHING:
            self._refuse(CUT_OFF)
        unanswered = self._unanswered()
        if not unanswered or self._is_lingering:
            return False
        unanswered[-1].keep_alive = False
        self._deadline.cancel()
        self._half_open = HalfOpen(self.loop, self.transport, unanswered)
        return True

    def data_received(self, data: bytes) -> None:
        """Parse the next bytes, and set the deadline for those that are missing.

        A head has one deadline, however many pieces it comes in. If each piece moved it, a client could send a byte
        every 29 seconds and hold the connection forever. A body's parts do move it, because a slow upload gets further.
        So a piece that brings no part of a body must be bounded in another way:

        1. A client sends a chunked body, and then trailers without end, a few every 29 seconds.
        2. The parser reports each as a header field; trailers are ignored, so `_field_bytes` does not grow.
        3. Only `_stalled_bytes`, which counts what came since the last part of a body, ends it.
        """
        if self._is_discarding:
            self._discard(len(data))
            if self._is_lingering:
                self._deadline.set(LINGER_S)
            return
        was_in_head, is_start = self._arriving is Arriving.HEAD, self._arriving is Arriving.NOTHING
        self._is_head_new = False
        self._stalled_bytes += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError as exc:
            self._refuse(parse_error_refusal(exc, data if is_start else b""))
        if self._is_upgraded:
            # The WebSocket class has the connection, and bounds what comes behind the handshake: a 431 that was written
            # now would stand before its answer.
            self._deadline.cancel()
            return
        if self._arriving is not Arriving.NOTHING and self._stalled_bytes > STALLED_BYTES_MAX:
            self._refuse(HEADERS_TOO_LARGE)
        if self._is_discarding:
            return
        if was_in_head and self._arriving is Arriving.HEAD and not self._is_head_new:
            return
        self._deadline.clear()
        if self._arriving is not Arriving.NOTHING:
            self._deadline.set(ARRIVAL_S)
        elif self._current is None or self._current.response_complete:
            self._deadline.set(IDLE_S)

    # -- the parser's callbacks --------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._is_discarding:
            return
        self._arriving = Arriving.HEAD
        self._is_head_new = True
        self._field_bytes = self._stalled_bytes = 0  # empty lines before a request are not a part of it
        self.url, self.headers, self.expect_100_continue = b"", [], False

    def on_url(self, url: bytes) -> None:
        """Take a part of the request's target."""
        if not self._is_discarding:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header field. Trailers are ignored: the head was checked without them."""
        if self._arriving is not Arriving.HEAD or self._is_discarding:
            return
        self._field_bytes += len(name) + len(value)
        if self._field_bytes > HEADER_BYTES_MAX:
            self._refuse(HEADERS_TOO_LARGE)
            return
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Check the head, and start its request, or queue it behind those that are due before it.

        A head that is wrong becomes a request to `send_refusal`, so that its answer keeps its turn.
        """
        if self._is_discarding:
            return
        self._arriving = Arriving.BODY
        self._discarded_bytes = 0
        app, is_good = self.app, True
        method, version = self.parser.get_method().decode("ascii"), self.parser.get_http_version()
        try:
            self.scope = build_scope(self, method, version, self._check_head(method, version))
        except RequestError as exc:
            self.scope = build_scope(self, method, version, Target(b"/", b""))
            app, is_good = partial(send_refusal, request_error_response(exc)), False
            self._count_refusal(exc.code)
            self._is_discarding = True
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
            self.flow.pause_reading()  # so that a client queues at most the requests of one piece
            self.pipeline.appendleft((self.cycle, app))

    def on_body(self, body: bytes) -> None:
        """Take a part of a body. That of a request whose answer is complete is discarded, up to a bound."""
        if self._is_discarding:
            return
        self._stalled_bytes = 0
        if self.cycle.response_complete:
            self._discard(len(body))
            return
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is complete, unless the parser has only stopped at its head (see declined_upgrade.py)."""
        if self._is_discarding or self.parser.should_upgrade():
            return
        self._arriving = Arriving.NOTHING
        self._stalled_bytes = 0
        super().on_message_complete()

    # -- requests ----------------------------------------------------------------------------------------------------

    def _check_head(self, method: str, version: str) -> Target:
        """The request's target. RequestError for a head that is wrong."""
        check_fields(version, self.headers)
        target = parse_target(method, self.url)
        if target.host is not None:
            self.headers = replace_host(self.headers, target.host)
            self.url = target.path + (b"?" + target.query if target.query else b"")
        if self.parser.should_upgrade() and self._should_upgrade():
            check_handshake(self.url, self.headers)
        return target

    def _parse(self, data: bytes) -> None:
        """Parse bytes. The parser stops at every upgrade; one that is not to a WebSocket is passed over.

        This is a loop, because thousands of requests with an upgrade may come in one piece.
        """
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                if self._is_discarding:
                    return
                if self._should_upgrade():
                    self._is_upgraded = True
                    self.handle_websocket_upgrade()
                    return
                decline_upgrade(self)
                data = data[upgrade.args[0] :]
            else:
                return

    def _should_upgrade(self) -> bool:
        """Whether a WebSocket is asked for, on a connection that does nothing else. Any other upgrade is ignored.

        "A server MUST ignore an Upgrade header field that is received in an HTTP/1.0 request." -- RFC 9110, 7.8

        A handshake that comes behind a request without its answer is not one, either: the transport would pass to the
        WebSocket while the answer is written to it.
        """
        is_idle = self._current is None or self._current.response_complete
        is_get = self.parser.get_method() == b"GET" and self.parser.get_http_version() != HTTP_1_0
        return is_idle and is_get and super()._should_upgrade()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401  uvicorn's own type
        self._current = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """An answer was written: start the next request, let the connection rest, or end it."""
        self.server_state.total_requests += 1
        if self.transport.is_closing() or self._is_lingering:
            return
        if self._current is not None and not self._current.keep_alive:
            self._linger()
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._arriving is Arriving.NOTHING:
            self._deadline.set(IDLE_S)

    def _unanswered(self) -> list[HttpCycle]:
        """The requests without a complete answer, oldest first."""
        cycles = (self._current, *(queued for queued, _ in reversed(self.pipeline)))
        return [cycle for cycle in cycles if isinstance(cycle, HttpCycle) and not cycle.response_complete]

    # -- the end of a connection -------------------------------------------------------------------------------------

    def _expire(self) -> None:
        """Act on a deadline that has passed: see the table above."""
        if self._is_lingering or self._arriving is Arriving.NOTHING:
            self.transport.close()
        elif self.flow.read_paused:
            self._deadline.set(ARRIVAL_S)  # the rest may lie in the socket: the application is slow, not the client
        else:
            self._refuse(TOO_SLOW)

    def _discard(self, byte_count: int) -> None:
        """Count bytes that are dropped, and close the connection when they are too many."""
        self._discarded_bytes += byte_count
        if self._discarded_bytes > self._discarded_bytes_max:
            self.transport.close()

    def _refuse(self, refusal: Refusal) -> None:
        """Take nothing more from the client, and say why, unless another answer is due or under way.

        Why not at once:

        1. A client sends an append and, behind it, bytes that are no request.
        2. The append is committed, and its answer waits for the disk.
        3. A 400 that is written now would be read as the answer to the append.

        So the last answer that is due says that the connection closes, and the refusal is not sent. A request whose
        body is not complete never will be. If it waits in the pipeline it is removed from there, or else it would run,
        and wait for its body; if it runs already, its own answer gives way to the refusal, unless that has begun.
        """
        if self._is_discarding or self.transport.is_closing():
            return
        self._deadline.clear()
        self._is_discarding = True
        arriving = self.cycle if self._arriving is Arriving.BODY else None
        if self.pipeline and self.pipeline[0][0] is arriving:
            self.pipeline.popleft()
        unanswered = self._unanswered()
        if unanswered and (unanswered[-1] is not arriving or arriving.response_started):
            unanswered[-1].keep_alive = False
            return
        if arriving is not None and arriving.response_complete:
            self.transport.close()
            return
        self._count_refusal(refusal.code)
        self.transport.write(render_refusal(refusal, self.server_state.default_headers))
        self._discarded_bytes, self._discarded_bytes_max = 0, LINGERING_BYTES_MAX
        self._linger()

    def _count_refusal(self, code: ErrorCode) -> None:
        """Count a request that no application sees, among those that it refuses itself."""
        if isinstance(self.app, Application):
            self.app.observers.metrics.refused[code.value] += 1

    def _linger(self) -> None:
        """End the connection in steps: shut down the sending side, discard the client's input for a while, close.

        "If a server performs an immediate close of a TCP connection, there is a significant risk that the client will
        not be able to read the last HTTP response." -- RFC 9112, 9.6

        1. A client sends a body of 30 MB, and is answered with 413 while it sends.
        2. The connection is closed with unread input, so the kernel sends a reset.
        3. The reset makes the client's system throw away the answer, and the client sees a broken connection.

        A half-open client sends nothing more, and a transport with TLS cannot shut down one side alone.
        """
        self._is_discarding = self._is_lingering = True
        if self._half_open is not None or not self.transport.can_write_eof():
            self.transport.close()
            return
        self.flow.resume_reading()
        self.transport.write_eof()
        self._deadline.set(LINGER_S)
