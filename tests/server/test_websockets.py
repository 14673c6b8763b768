"""Live reads over a WebSocket, through a real connection."""

import json
from base64 import b64decode
from itertools import count
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from fluvial.wire.websocket_messages import MESSAGE_BYTES_MAX
from tests.support.offsets import offset_in
from tests.support.servers import RunningServer

TEXT = {"Content-Type": "text/plain"}
numbers = count()


@pytest.fixture
def name() -> str:
    """A path without a stream."""
    return f"/v1/stream/socket-{next(numbers)}"


def opened(server: RunningServer, name: str, query: str = "offset=-1&live=websocket") -> ClientConnection:
    """Connect and read a stream."""
    return connect(server.url.replace("http", "ws") + f"{name}?{query}", max_size=MESSAGE_BYTES_MAX)


def next_page(socket: ClientConnection) -> tuple[bytes, dict[str, Any]]:
    """The payload of the data messages, and the control message after them."""
    data = b""
    while True:
        message = json.loads(socket.recv(timeout=10))
        if message.pop("type") == "control":
            return data, message
        payload = message["payload"]
        data += b64decode(payload) if message.get("encoding") == "base64" else payload.encode()


def close_code(socket: ClientConnection) -> int:
    """The close code, which comes without another message."""
    with pytest.raises(ConnectionClosed) as closed:
        socket.recv(timeout=10)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


def test_websocket_sends_existing_batches_new_ones_and_the_end(
    server: RunningServer, http: httpx.Client, name: str
) -> None:
    """In the same data and control messages as SSE."""
    http.put(name, content=b"missed", headers=TEXT)
    with opened(server, name) as socket:
        assert next_page(socket) == (b"missed", {"streamNextOffset": offset_in(http, name, 6), "upToDate": True})
        for number in range(3):
            http.post(name, content=b"%d" % number, headers=TEXT)
            assert next_page(socket)[0] == b"%d" % number
        http.post(name, content=b"last", headers={**TEXT, "Stream-Closed": "true"})
        end = {"streamNextOffset": offset_in(http, name, 13), "upToDate": True, "streamClosed": True}
        assert next_page(socket) == (b"last", end)
        assert close_code(socket) == 1000


def test_websocket_reader_resumes_at_its_offset(server: RunningServer, http: httpx.Client, name: str) -> None:
    """Without a gap or a repeat, however often the connection breaks."""
    http.put(name, headers=TEXT)
    offset, data = "-1", b""
    for number in range(5):
        http.post(name, content=b"<%d>" % number, headers=TEXT)
        with opened(server, name, f"live=websocket&offset={offset}") as socket:
            page, control = next_page(socket)
        data, offset = data + page, control["streamNextOffset"]
    assert data == b"<0><1><2><3><4>"
    with opened(server, name, "live=websocket&offset=now") as socket:
        assert next_page(socket)[0] == b""
        http.post(name, content=b"new", headers=TEXT)
        assert next_page(socket)[0] == b"new"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/plain", ("é\x01\n" * 40_000).encode()),
        ("text/plain", b"\xff" + b"x" * 50_000),
        ("application/octet-stream", bytes(range(256)) * 400),
        ("application/json", json.dumps(["é" * 30_000, {"a": "\x02" * 30_000}], ensure_ascii=False).encode()),
    ],
    ids=["text", "no-text", "binary", "json"],
)
def test_websocket_splits_a_large_batch_into_messages(
    server: RunningServer, http: httpx.Client, name: str, content_type: str, body: bytes
) -> None:
    """Each fits a frame of API Gateway, which is the test client's limit."""
    http.put(name, content=body, headers={"Content-Type": content_type})
    with opened(server, name) as socket:
        data = next_page(socket)[0]
    if content_type == "application/json":
        assert json.loads(data) == json.loads(body)
    else:
        assert data == body


def test_websocket_is_closed_when_its_stream_is_deleted(server: RunningServer, http: httpx.Client, name: str) -> None:
    """With close code 1000."""
    http.put(name, content=b"x", headers=TEXT)
    with opened(server, name) as socket:
        next_page(socket)
        http.delete(name)
        assert close_code(socket) == 1000


def test_websocket_answers_pings_and_closes_on_other_messages(
    server: RunningServer, http: httpx.Client, name: str
) -> None:
    """Pings keep a connection alive; a client that writes uses POST."""
    http.put(name, headers=TEXT)
    with opened(server, name) as socket:
        next_page(socket)
        for _ in range(3):
            socket.send('{"type":"ping"}')
            assert json.loads(socket.recv(timeout=10)) == {"type": "pong"}
        socket.send('{"type":"append"}')
        assert close_code(socket) == 1003
    for wrong in ("x", b"\x00"):
        with opened(server, name) as socket:
            next_page(socket)
            socket.send(wrong)
            assert close_code(socket) == 1003


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/nothing?live=websocket&offset=-1", 404),
        ("?live=websocket", 400),
        ("?live=websocket&offset=x", 400),
        ("?live=websocket&offset=0000000000000000_0000000000000002", 410),
        ("?live=sse&offset=-1", 400),
        ("?offset=-1", 400),
    ],
)
def test_rejected_websocket_handshake_is_answered_in_http(
    server: RunningServer, http: httpx.Client, name: str, target: str, status: int
) -> None:
    """With the status and the body of a GET's answer."""
    http.put(name, content=b"abc", headers=TEXT)
    path, _, query = target.partition("?")
    with pytest.raises(InvalidStatus) as refused:
        opened(server, name + path, query)
    assert refused.value.response.status_code == status
    assert json.loads(refused.value.response.body)["error"]["code"]


def test_websocket_handshake_on_a_control_route_is_404(server: RunningServer) -> None:
    """Control routes have no WebSockets."""
    with pytest.raises(InvalidStatus) as refused:
        opened(server, "/health")
    assert refused.value.response.status_code == 404


def test_websocket_read_without_a_handshake_is_426(http: httpx.Client, name: str) -> None:
    """With the protocol to upgrade to."""
    http.put(name, headers=TEXT)
    answer = http.get(name, params={"live": "websocket", "offset": "-1"})
    assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")
