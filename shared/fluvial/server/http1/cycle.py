"""One request and its answer on a connection: uvicorn's, with the answer's head and body in one piece.

uvicorn writes the head by itself, and looks through every field for what would split the answer. Here both are done
once for the whole head, which takes half the time and a system call less (docs/decisions/0003).
"""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from starlette.types import Receive, Scope, Send
from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from fluvial.server.asgi_send import send_parts
from fluvial.wire.http_head import HTTP_1_0
from fluvial.wire.response import Response

_STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus
}
_WITHOUT_BODY: Final = frozenset({204, 304})

#: An unread body that is no longer than this is read and dropped; the connection ends with an answer to a longer one.
UNREAD_BODY_BYTES_MAX: Final = 65_536

_EVENTS: Final = b"text/event-stream"
#: What ends an event, and a comment, which is none.
_EVENT_END: Final = b"\n\n"
_COMMENT: Final = b":\n\n"

#: A larger body is not copied behind its head: it is written by itself.
JOINED_BODY_BYTES_MAX: Final = 65_536


class HttpCycle(RequestResponseCycle):
    """An answer's head is kept until the first part of its body is there."""

    _head = b""
    _has_length = True
    _is_hurried = False
    _has_handed_body_over = False
    _is_at_event_end: bool | None = None  # None in an answer that is no event stream

    async def receive(self) -> ASGIReceiveEvent:
        """The next part of the body; after the last one, wait until the client goes or must not be waited for."""
        message = await super().receive()
        if message["type"] == "http.request":
            if self._has_handed_body_over and self._is_hurried and not self.response_started:
                return {"type": "http.disconnect"}
            self._has_handed_body_over = not message["more_body"]
        return message

    def hurry(self) -> None:
        """Let a request that waits be answered now; an answer that has begun takes its time."""
        self._is_hurried = True
        if not self.response_started:
            self.message_event.set()

    def probe(self) -> None:
        """Send something, if anything may be sent, that a client which has gone refuses."""
        if self._is_at_event_end and not self.response_complete:
            self.transport.write(self._framed(_COMMENT))

    async def send(self, message: ASGISendEvent) -> None:
        """Take the application's next message; wait while the client does not read."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.start" and not self.response_started:
            self.response_started = True
            if self._leaves_body_unread():
                self.keep_alive = False
            self.waiting_for_100_continue = False
            headers = message.get("headers", ())
            if message["status"] == HTTPStatus.NO_CONTENT:
                # "A server MUST NOT send a Content-Length header field in [such a] response" -- RFC 9110, 8.6
                headers = [field for field in headers if field[0] != b"content-length"]
            self._head = self._head_of(message["status"], headers)
        elif message["type"] == "http.response.body" and self.response_started and not self.response_complete:
            self._write_body(message.get("body", b""), is_last=not message.get("more_body", False))
        else:
            raise RuntimeError(f"{message['type']} is out of turn")

    def _leaves_body_unread(self) -> bool:
        """Whether so much of the request is missing that its rest is not worth waiting for, or will not come.

        "A server that responds with a final status code instead of reading the entire request content SHOULD indicate
        whether it intends to close the connection or continue reading and discarding the request content."
        -- RFC 9110, 10.1.1
        """
        if not self.more_body:
            return False
        lengths = [value for name, value in self.scope["headers"] if name == b"content-length"]
        return self.waiting_for_100_continue or not lengths or int(lengths[0]) > UNREAD_BODY_BYTES_MAX

    def _head_of(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        parts, is_closing = [_STATUS_LINES[status]], False
        for name, value in (*self.default_headers, *headers):
            if name == b"content-length":
                self.expected_content_length = int(value)
                self.chunked_encoding = False
            elif name == b"connection":
                is_closing = b"close" in value.lower()
            elif name == b"content-type":
                self._is_at_event_end = False if value == _EVENTS else None
            parts.append(b"%s: %s\r\n" % (name, value))
        if is_closing:
            self.keep_alive = False
        elif not self.keep_alive:
            parts.append(b"connection: close\r\n")
        if self.chunked_encoding is None:
            self._choose_framing(status)
            if self.chunked_encoding:
                parts.append(b"transfer-encoding: chunked\r\n")
        head = b"".join(parts)
        if head.count(b"\n") != len(parts) or head.count(b"\r") != len(parts):
            raise RuntimeError("a header field would split the answer")
        return head + b"\r\n"

    def _choose_framing(self, status: int) -> None:
        """An answer of unknown length to HTTP/1.0 ends with its connection (RFC 9112, 6.1 and 6.3)."""
        self._has_length = status in _WITHOUT_BODY or self.scope["method"] == "HEAD"
        self.chunked_encoding = not self._has_length and self.scope["http_version"] != HTTP_1_0

    def _framed(self, body: bytes) -> bytes:
        if not self.chunked_encoding:
            return body
        return b"".join((b"%x\r\n" % len(body), body, b"\r\n")) if body else b""

    def _write_body(self, body: bytes, *, is_last: bool) -> None:
        if self.scope["method"] == "HEAD":
            self.expected_content_length, body = 0, b""
        elif self._has_length:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0:
                raise RuntimeError("the body is longer than its Content-Length")
        else:
            if self._is_at_event_end is not None and body:
                self._is_at_event_end = bytes(body[-2:]) == _EVENT_END
            body = self._framed(body)
            if is_last and self.chunked_encoding:
                body += b"0\r\n\r\n"
        if self._head and len(body) <= JOINED_BODY_BYTES_MAX:
            self.transport.write(b"".join((self._head, body)))
        else:
            if self._head:
                self.transport.write(self._head)
            self.transport.write(body)
        self._head = b""
        if is_last:
            self._complete()

    def _complete(self) -> None:
        if self.expected_content_length:
            raise RuntimeError("the body is shorter than its Content-Length")
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive and not self.more_body:
            self.transport.close()
        self.on_response()


async def send_refusal(response: Response, _scope: Scope, _receive: Receive, send: Send) -> None:
    """The application of a request that no application is to get."""
    await send({"type": "http.response.start", "status": response.status, "headers": response.headers})
    await send_parts(send, response.parts, is_last=True)
