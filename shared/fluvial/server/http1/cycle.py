"""One request and its answer: uvicorn's request cycle with a sending half of its own.

Rules:
1. An answer's head is kept until the first part of its body is there, and both leave in one write, unless the part is
   large: a system call less.
2. Header injection is looked for once in the whole head. uvicorn searches each field, which takes twice the time
   (docs/decisions/0003).
3. An answer has exactly the length that its head says; an application that breaks this raises RuntimeError, and uvicorn
   ends the connection.
4. `send` expects `http.response.start`, then `http.response.body` until `more_body` is false, and nothing after it.
5. Receiving stays uvicorn's, but for `hurry`, which half-open connections need (see half_open.py).

How a body ends for the client (RFC 9112, 6.3):

| the head has | the body is | it ends with |
| --- | --- | --- |
| 204 or 304, or answers HEAD | not sent | the head |
| Content-Length | sent as it is | its length |
| neither, HTTP/1.1 | sent in chunks | the last chunk |
| neither, HTTP/1.0 | sent as it is | the connection |
"""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from fluvial.wire.http_head import HTTP_1_0

_STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus
}
_WITHOUT_BODY: Final = frozenset({204, 304})

#: An unread body of at most this length is read and discarded; an answer to a longer one ends the connection.
UNREAD_BODY_BYTES_MAX: Final = 65_536

_EVENT_STREAM: Final = b"text/event-stream"
#: The empty line that ends an event, and a comment, which is no event.
_EVENT_END: Final = b"\n\n"
_COMMENT: Final = b":\n\n"

#: A larger body is not copied behind its head, but written by itself.
JOINED_BODY_BYTES_MAX: Final = 65_536


class HttpCycle(RequestResponseCycle):
    """One request with its answer; `_head` holds the head of the answer until it is written."""

    _head = b""
    _is_length_known = True
    _is_hurried = False
    _is_body_received = False
    _is_event_stream = False
    _is_between_events = False

    async def receive(self) -> ASGIReceiveEvent:
        """The next part of the body; after the last one, wait until the client is gone or the request is hurried."""
        message = await super().receive()
        if message["type"] == "http.request":
            if self._is_body_received and self._is_hurried and not self.response_started:
                return {"type": "http.disconnect"}
            self._is_body_received = not message["more_body"]
        return message

    def hurry(self) -> None:
        """Make a request without an answer be answered now; an answer that has begun goes on.

        Without it, on a half-open connection:

        1. A client sends a long-poll, shuts down its sending side, and exits. All that arrives here is a FIN.
        2. The application waits for news, and for `http.disconnect`, which uvicorn tells only of a lost connection.
        3. Nothing loses the connection, so the long-poll keeps its place among the live reads until its timeout.
        """
        self._is_hurried = True
        if not self.response_started:
            self.message_event.set()

    def probe(self) -> None:
        """Send a comment on an event stream: a client that is gone resets the connection.

        Only between two events: within one the comment would become a part of the event's data.
        """
        if self._is_between_events and not self.response_complete:
            self.transport.write(self._encode_chunk(_COMMENT))

    async def send(self, message: ASGISendEvent) -> None:
        """Take the application's next message; wait while the client does not read."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.start" and not self.response_started:
            self.response_started = True
            if self._is_body_left_unread():
                self.keep_alive = False
            self.waiting_for_100_continue = False
            headers = message.get("headers", ())
            if message["status"] == HTTPStatus.NO_CONTENT:
                # "A server MUST NOT send a Content-Length header field in [such a] response" -- RFC 9110, 8.6
                headers = [field for field in headers if field[0] != b"content-length"]
            self._head = self._encode_head(message["status"], headers)
        elif message["type"] == "http.response.body" and self.response_started and not self.response_complete:
            self._write_body(message.get("body", b""), is_last=not message.get("more_body", False))
        else:
            raise RuntimeError(f"the application sent {message['type']} out of order")

    def _is_body_left_unread(self) -> bool:
        """Whether the connection must end with this answer because of the part of the body that has not come.

        "A server that responds with a final status code instead of reading the entire request content SHOULD indicate
        whether it intends to close the connection or continue reading and discarding the request content."
        -- RFC 9110, 10.1.1

        Without it:

        1. A client announces a body of 30 MB, and is answered with 413 before it has sent it all.
        2. It sees the answer, stops sending the body, and sends its next request on the same connection.
        3. The next request is read as a part of the body, and is never answered.

        A body that waits for `100 Continue` need not come at all, and a chunked one may be of any length.
        """
        if not self.more_body:
            return False
        lengths = [value for name, value in self.scope["headers"] if name == b"content-length"]
        return self.waiting_for_100_continue or not lengths or int(lengths[0]) > UNREAD_BODY_BYTES_MAX

    def _encode_head(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        parts, is_closing = [_STATUS_LINES[status]], False
        for name, value in (*self.default_headers, *headers):
            if name == b"content-length":
                self.expected_content_length = int(value)
                self.chunked_encoding = False
            elif name == b"connection":
                is_closing = b"close" in value.lower()
            elif name == b"content-type":
                self._is_event_stream = value == _EVENT_STREAM
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
            raise RuntimeError("a header field has a line break, which would split the answer")
        return head + b"\r\n"

    def _choose_framing(self, status: int) -> None:
        """Decide how a body without Content-Length ends: see the table above."""
        self._is_length_known = status in _WITHOUT_BODY or self.scope["method"] == "HEAD"
        self.chunked_encoding = not self._is_length_known and self.scope["http_version"] != HTTP_1_0

    def _encode_chunk(self, body: bytes) -> bytes:
        """A part of the body as it is sent; an empty chunk would end the body, so it is left out."""
        if not self.chunked_encoding:
            return body
        return b"".join((b"%x\r\n" % len(body), body, b"\r\n")) if body else b""

    def _write_body(self, body: bytes, *, is_last: bool) -> None:
        if self.scope["method"] == "HEAD":
            self.expected_content_length, body = 0, b""
        elif self._is_length_known:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0:
                raise RuntimeError("the body is longer than its Content-Length")
        else:
            if self._is_event_stream and body:
                self._is_between_events = bytes(body[-2:]) == _EVENT_END
            body = self._encode_chunk(body)
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
        """Note that the answer is complete. A connection that must linger for a body is the protocol's to close."""
        if self.expected_content_length:
            raise RuntimeError("the body is shorter than its Content-Length")
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive and not self.more_body:
            self.transport.close()
        self.on_response()
