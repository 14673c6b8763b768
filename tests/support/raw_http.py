"""HTTP by hand: requests that no client library would send."""

import json
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

TIMEOUT_S = 20


@dataclass(frozen=True)
class RawAnswer:
    """What came back, as far as it could be read."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error_code(self) -> str:
        """The `code` of the error body; the body must have the one shape that all errors have."""
        error = json.loads(self.body)["error"]
        assert set(error) == {"code", "message"}
        assert error["message"]
        return str(error["code"])


def connect(url: str) -> socket.socket:
    """A connection to the server."""
    address = urlsplit(url)
    assert address.hostname
    assert address.port
    return socket.create_connection((address.hostname, address.port), TIMEOUT_S)


def read_answer(connection: socket.socket) -> RawAnswer:
    """One response with a Content-Length, or without a body."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65_536)
        assert part, f"the server hung up after {data!r}"
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65_536)
    return RawAnswer(int(status_line.split()[1]), headers, body)


def exchange(url: str, request: bytes) -> RawAnswer:
    """Send the bytes of a request on a connection of its own."""
    with connect(url) as connection:
        connection.sendall(request)
        return read_answer(connection)


def request_bytes(method: str, target: str, headers: list[tuple[str, str]], body: bytes = b"") -> bytes:
    """A request, spelt as it is given."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"{method} {target} HTTP/1.1\r\nHost: test\r\n{fields}".encode("latin-1") + b"\r\n" + body
