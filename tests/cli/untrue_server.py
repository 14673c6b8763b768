"""A server that does not do what it answers, for commands that must find out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import ClassVar

import msgspec


@dataclass
class Answers:
    """What the server answers. `keep` decides which appends are stored; each is acknowledged.

    A refusal has Retry-After if `retry_after_s` is given.
    `is_earlier`: it lists names alone, as earlier versions of the server do.
    """

    keep: Callable[[int], bool] = lambda _number: True
    refuses_append: Callable[[int], bool] = lambda _number: False
    retry_after_s: int | None = None
    refused_paths: frozenset[str] = frozenset()
    is_earlier: bool = False
    append_count: int = 0
    streams: dict[str, bytes] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answers: ClassVar[Answers]

    def do_PUT(self) -> None:
        """Create a stream."""
        self.answers.streams[self.path] = b""
        self._answer(201)

    def do_POST(self) -> None:
        """Acknowledge an append, and keep it or not."""
        body = self.rfile.read(int(self.headers["content-length"]))
        with self.answers.lock:
            number = self.answers.append_count = self.answers.append_count + 1
            if self.answers.refuses_append(number):
                return self._answer(429)
            if self.answers.keep(number):
                self.answers.streams[self.path] += body
        return self._answer(204)

    def do_DELETE(self) -> None:
        """Delete a stream."""
        del self.answers.streams[self.path]
        self._answer(204)

    def do_GET(self) -> None:
        """Answer a stream's whole contents, or the list of streams."""
        path = self.path.partition("?")[0]
        if path in self.answers.refused_paths:
            return self._answer(403)
        if path == "/v1/streams":
            if self.answers.is_earlier:
                return self._answer(200, b'{"streams":["a"],"next":null}')
            return self._answer(200, msgspec.json.encode({"streams": [{"name": "a", "bytes": 7}], "next": None}))
        if path not in self.answers.streams:
            return self._answer(404)
        return self._answer(200, self.answers.streams[path])

    def do_HEAD(self) -> None:
        """Answer as GET does; without a body."""
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Stream-Next-Offset", str(len(body)))
        if status == 429 and self.answers.retry_after_s is not None:
            self.send_header("Retry-After", str(self.answers.retry_after_s))
        self.send_header("Stream-Up-To-Date", "true")
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def untrue_server(answers: Answers) -> Iterator[str]:
    """Its URL."""
    handler = type("Handler", (_Handler,), {"answers": answers})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
