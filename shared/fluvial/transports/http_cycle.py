"""One request and its answer on a connection: uvicorn's, with the answer's head and body in one piece.

uvicorn writes the head by itself, and looks through every field for what would split the answer. Here both are done
once for the whole head, which takes half the time and a system call less (docs/decisions/0003).
"""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

_STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus
}
_WITHOUT_BODY: Final = frozenset({204, 304})

#: A larger body is not copied behind its head: it is written by itself.
JOINED_BODY_BYTES_MAX: Final = 65_536


class HttpCycle(RequestResponseCycle):
    """An answer's head is kept until the first part of its body is there."""

    _head = b""

    async def send(self, message: ASGISendEvent) -> None:
        """Take the application's next message; wait while the client does not read."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.start" and not self.response_started:
            self.response_started = True
            self.waiting_for_100_continue = False
            self._head = self._head_of(message["status"], message.get("headers", ()))
        elif message["type"] == "http.response.body" and self.response_started and not self.response_complete:
            self._write_body(message.get("body", b""), is_last=not message.get("more_body", False))
        else:
            raise RuntimeError(f"{message['type']} is out of turn")

    def _head_of(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        parts, is_closing = [_STATUS_LINES[status]], False
        for name, value in (*self.default_headers, *headers):
            if name == b"content-length":
                self.expected_content_length = int(value)
                self.chunked_encoding = False
            elif name == b"connection" and b"close" in value.lower():
                is_closing = True
            parts.append(b"%s: %s\r\n" % (name, value))
        if is_closing:
            self.keep_alive = False
        elif not self.keep_alive:
            parts.append(b"connection: close\r\n")
        if self.chunked_encoding is None:
            self.chunked_encoding = status not in _WITHOUT_BODY and self.scope["method"] != "HEAD"
            if self.chunked_encoding:
                parts.append(b"transfer-encoding: chunked\r\n")
        head = b"".join(parts)
        if head.count(b"\n") != len(parts) or head.count(b"\r") != len(parts):
            raise RuntimeError("a header field would split the answer")
        return head + b"\r\n"

    def _write_body(self, body: bytes, *, is_last: bool) -> None:
        if self.scope["method"] == "HEAD":
            self.expected_content_length, body = 0, b""
        elif self.chunked_encoding:
            body = b"".join((b"%x\r\n" % len(body), body, b"\r\n")) if body else b""
            if is_last:
                body += b"0\r\n\r\n"
        else:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0:
                raise RuntimeError("the body is longer than its Content-Length")
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
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
