"""HTTP as bytes, for requests that client libraries do not send."""

import json
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

TIMEOUT_S = 20


@dataclass(frozen=True)
class RawAnswer:
    """One response: its status, its header fields by lower-case name, and its body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error_code(self) -> str:
        """The `code` of the error body, which must have the shape of all errors."""
        error = json.loads(self.body)["error"]
        assert set(error) == {"code", "message"}
        assert error["message"]
        return str(error["code"])


def connect(url: str) -> socket.socket:
    """Open a connection to the server at a URL."""
    address = urlsplit(url)
    assert address.hostname
    assert address.port
    return socket.create_connection((address.hostname, address.port), TIMEOUT_S)


def read_answer(connection: socket.socket) -> RawAnswer:
    """Read one response that has a Content-Length, or no body."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65_536)
        assert part, f"the server closed the connection after {data!r}"
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65_536)
    return RawAnswer(int(status_line.split()[1]), headers, body)


def exchange(url: str, request: bytes) -> RawAnswer:
    """Send a request on a new connection, and read the response."""
    with connect(url) as connection:
        connection.sendall(request)
        return read_answer(connection)


def request_bytes(method: str, target: str, headers: list[tuple[str, str]], body: bytes = b"") -> bytes:
    """An HTTP/1.1 request with these fields and no others but Host."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"{method} {target} HTTP/1.1\r\nHost: test\r\n{fields}".encode("latin-1") + b"\r\n" + body
