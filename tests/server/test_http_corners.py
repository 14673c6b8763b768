"""Rules of RFC 9110, 9112 and 6455 that clients seldom test: requests are sent as bytes over a real connection."""

import http.client
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from fluvial.server.http1.bounds import STALLED_BYTES_MAX
from tests.support.raw_http import RawAnswer, connect, exchange, read_answer, request_bytes
from tests.support.servers import RunningServer

TEXT = {"Content-Type": "text/plain"}
HOST = b"Host: x\r\n"
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
UPGRADE = HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
CHUNKED = b"\r\n3\r\nabc\r\n0\r\n\r\n"


def read_to_end(connection: socket.socket) -> bytes:
    """All bytes until the server ends the connection."""
    data = b""
    while part := connection.recv(65_536):
        data += part
    return data


def exchange_to_end(server: RunningServer, request: bytes, *, half_closed: bool = False) -> bytes:
    """Send bytes on a new connection, and return all that the server sends on it."""
    with connect(server.url) as connection:
        connection.sendall(request)
        if half_closed:
            connection.shutdown(socket.SHUT_WR)
        return read_to_end(connection)


def count_live_reads(client: httpx.Client) -> int:
    """How many live reads are open."""
    return int(client.get("/health").json()["liveReads"])


@contextmanager
def open_live_read(server: RunningServer, http: httpx.Client, target: str) -> Iterator[socket.socket]:
    """The connection of a live read that the server counts."""
    with connect(server.url) as connection:
        connection.sendall(request_bytes("GET", target, []))
        while count_live_reads(http) == 0:
            pass
        yield connection


# -- heads -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_head", "refusal"),
    [
        (b"GET {s} HTTP/1.1\r\n\r\n", (400, "malformed_header")),
        (b"GET {s} HTTP/1.1\r\n" + HOST + HOST + b"\r\n", (400, "malformed_header")),
        (b"GET {s} HTTP/1.1\r\nHost: a b\r\n\r\n", (400, "malformed_header")),
        (b"GET http://x{s} HTTP/1.1\r\n\r\n", (400, "malformed_header")),
        (b"GET * HTTP/1.1\r\n" + HOST + b"\r\n", (400, "malformed_request")),
        (b"CONNECT x:443 HTTP/1.1\r\n" + HOST + b"\r\n", (405, "method_not_allowed")),
        (b"BREW {s} HTTP/1.1\r\n" + HOST + b"\r\n", (501, "not_implemented")),
        (b"GET {s} HTTP/2.0\r\n" + HOST + b"\r\n", (505, "not_implemented")),
        (b"POST {s} HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n" + CHUNKED, (501, "not_implemented")),
        (b"POST {s} HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip\r\n" + CHUNKED, (400, "malformed_request")),
        (b"POST {s} HTTP/1.0\r\nTransfer-Encoding: chunked\r\n" + CHUNKED, (400, "malformed_request")),
        (b"POST {s} HTTP/1.1\r\n" + HOST + b"Expect: x\r\nContent-Length: 1\r\n\r\nx", (417, "expectation_failed")),
        (b"GET {s}\xc3\xa9 HTTP/1.1\r\n" + HOST + b"\r\n", (400, "malformed_request")),
        (b"GET {s} HTTP/1.1\r\n" + UPGRADE + b"Sec-WebSocket-Version: 13\r\n\r\n", (400, "malformed_header")),
        (b"GET {s} HTTP/1.1\r\n" + UPGRADE + KEY + b"\r\n", (426, "upgrade_required")),
        (b"GET {s} HTTP/1.1\r\n" + UPGRADE + KEY + b"Sec-WebSocket-Version: 8\r\n\r\n", (426, "upgrade_required")),
    ],
)
def test_invalid_head_is_refused_and_next_request_is_not_executed(
    server: RunningServer, http: httpx.Client, stream: str, request_head: bytes, refusal: tuple[int, str]
) -> None:
    """The error has the shape of all errors, and the connection ends: where the next request begins is unknown."""
    request = request_head.replace(b"{s}", stream.encode())
    with connect(server.url) as connection:
        connection.sendall(request + request_bytes("DELETE", stream, []))
        answer = read_answer(connection)
        assert read_to_end(connection) == b""
    assert (answer.status, answer.error_code) == refusal
    assert "close" in answer.headers["connection"]
    assert http.get(stream).content == b"hello"


def test_error_of_unencoded_target_names_percent_encoding(server: RunningServer) -> None:
    """A client that does not encode its path learns the reason."""
    answer = exchange(server.url, "GET /v1/stream/café HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert b"percent-encoded" in answer.body


def test_handshake_of_other_version_is_answered_with_supported_version(server: RunningServer, stream: str) -> None:
    """RFC 6455, section 4.4."""
    answer = exchange(server.url, b"GET %s HTTP/1.1\r\n%s%s\r\n" % (stream.encode(), UPGRADE, KEY))
    assert (answer.status, answer.headers["sec-websocket-version"]) == (426, "13")
    assert answer.headers["upgrade"] == "websocket"


def test_bytes_behind_a_handshake_are_the_websockets(server: RunningServer, stream: str) -> None:
    """Also when they are more than a head may have: no second answer is written, and nothing fails."""
    head = b"GET %s?offset=-1&live=websocket HTTP/1.1\r\n%s%s" % (stream.encode(), UPGRADE, KEY)
    with connect(server.url) as connection:
        connection.sendall(head + b"Sec-WebSocket-Version: 13\r\n\r\n" + bytes(STALLED_BYTES_MAX + 1))
        assert read_answer(connection).status == 101
    assert exchange(server.url, b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % stream.encode()).status == 200
    assert "error" not in server.log, server.log


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_websocket_upgrade_of_http_1_0_or_post_is_ignored(
    server: RunningServer, http: httpx.Client, stream: str, version: str
) -> None:
    """The request is answered as if it had no Upgrade field."""
    fields = UPGRADE + KEY + b"Sec-WebSocket-Version: 13\r\nContent-Type: text/plain\r\nContent-Length: 1\r\n\r\nx"
    answer = exchange(server.url, b"POST %s HTTP/%s\r\n%s" % (stream.encode(), version.encode(), fields))
    assert answer.status == 204
    assert http.get(stream).content == b"hellox"
    get = b"GET %s HTTP/1.0\r\n%s%sSec-WebSocket-Version: 13\r\n\r\n" % (stream.encode(), UPGRADE, KEY)
    assert exchange_to_end(server, get).endswith(b"\r\n\r\nhellox")


@pytest.mark.parametrize("is_chunked", [False, True])
def test_body_behind_declined_upgrade_is_not_a_request(
    server: RunningServer,
    http: httpx.Client,
    stream: str,
    is_chunked: bool,  # noqa: FBT001  a table's column
) -> None:
    """An upgrade to another protocol is ignored, and the body belongs to its request, whatever it looks like."""
    body = request_bytes("DELETE", stream, [])
    framing, sent = ("Content-Length", str(len(body))), body
    if is_chunked:
        framing, sent = ("Transfer-Encoding", "chunked"), b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    upgrade = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABk")]
    append = request_bytes("POST", stream, [*upgrade, *TEXT.items(), framing], sent)
    answers = exchange_to_end(server, append + request_bytes("GET", stream, [("Connection", "close")]))
    assert answers.startswith(b"HTTP/1.1 204 ")
    assert answers.endswith(b"\r\n\r\nhello" + body)
    assert http.get(stream).content == b"hello" + body


def test_browser_handshake_with_subprotocols_is_refused_with_reason(server: RunningServer, stream: str) -> None:
    """A client that is not a browser may connect without one (RFC 6455, section 4.2.2)."""
    offer = UPGRADE + KEY + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: bearer, x\r\n"
    head = b"GET %s?live=websocket&offset=-1 HTTP/1.1\r\n%s" % (stream.encode(), offer)
    refused = exchange(server.url, head + b"Origin: http://localhost:3000\r\n\r\n")
    assert (refused.status, refused.error_code) == (400, "malformed_header")
    assert b"token=" in refused.body
    with connect(server.url) as connection:
        connection.sendall(head + b"\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 101 ")


def test_handshake_with_a_body_is_refused(server: RunningServer, stream: str) -> None:
    """The body would break the WebSocket parser."""
    fields = UPGRADE + KEY + b"Sec-WebSocket-Version: 13\r\nContent-Length: 5\r\n\r\nhello"
    answer = exchange(server.url, b"GET %s?live=websocket&offset=-1 HTTP/1.1\r\n%s" % (stream.encode(), fields))
    assert (answer.status, answer.error_code) == (400, "malformed_request")


def test_absolute_target_replaces_host(server: RunningServer, http: httpx.Client, stream: str) -> None:
    """Proxies send a target with a host (RFC 9112, section 3.2.2)."""
    target = f"http://streams.example:81{stream}-new"
    answer = exchange(server.url, request_bytes("PUT", target, [("Content-Type", "text/plain")]))
    assert (answer.status, answer.headers["location"]) == (201, target)
    assert http.get(stream + "-new").status_code == 200


def test_options_asterisk_is_answered(server: RunningServer) -> None:
    """`OPTIONS *` asks about the whole server (RFC 9110, section 9.3.7)."""
    answer = exchange(server.url, request_bytes("OPTIONS", "*", []))
    assert answer.status == 204
    assert "HEAD" in answer.headers["allow"]


# -- answers ---------------------------------------------------------------------------------------------------------


def test_answer_without_content_has_no_content_length(server: RunningServer, stream: str) -> None:
    """Strict proxies reject an answer that has one (RFC 9110, section 8.6)."""
    stamp = [("Producer-Id", "p"), ("Producer-Epoch", "0"), ("Producer-Seq", "0")]
    typed = ("Content-Type", "text/plain")
    asked = [
        request_bytes("POST", stream, [typed, ("Content-Length", "1")], b"x"),
        request_bytes("POST", stream, [typed, *stamp, ("Content-Length", "1")], b"x"),
        request_bytes("POST", stream, [typed, *stamp, ("Content-Length", "1")], b"x"),
        request_bytes("GET", stream + "?offset=now&live=long-poll", []),
        request_bytes("OPTIONS", stream, []),
        request_bytes("OPTIONS", "/v1/streams", []),
        request_bytes("POST", stream, [("Stream-Closed", "true")]),
        request_bytes("DELETE", stream, []),
    ]
    statuses = []
    for request in asked:
        answer = exchange(server.url, request)
        statuses.append(answer.status)
        assert answer.status == 200 or not {"content-length", "transfer-encoding"} & set(answer.headers)
    assert statuses == [204, 200, 204, 204, 204, 204, 204, 204]


def test_http_1_0_event_stream_is_not_chunked(server: RunningServer, http: httpx.Client, stream: str) -> None:
    """The end of the connection ends it (RFC 9112, section 6.3)."""
    http.post(stream, headers={"Stream-Closed": "true"})
    head, _, events = exchange_to_end(server, f"GET {stream}?offset=-1&live=sse HTTP/1.0\r\n\r\n".encode()).partition(
        b"\r\n\r\n"
    )
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert events.startswith(b"retry:")
    assert events.endswith(b"\n\n")


@pytest.mark.parametrize(
    "path", ["/health", "/metrics", "/openapi.json", "/v1/streams", "/v1/estuary/wire/e", "/v1/nothing", "{s}"]
)
def test_head_is_answered_like_get_without_body(
    server: RunningServer, http: httpx.Client, stream: str, path: str
) -> None:
    """HEAD has the status and the fields of GET on every route (RFC 9110, section 9.3.2)."""
    target = path.replace("{s}", stream)
    got = http.get(target, headers={"Accept-Encoding": "identity"})
    head, _, body = exchange_to_end(server, request_bytes("HEAD", target, [("Connection", "close")])).partition(
        b"\r\n\r\n"
    )
    assert body == b""
    assert head.startswith(b"HTTP/1.1 %d " % got.status_code)
    assert got.headers["content-type"].encode() in head
    if path not in {"{s}", "/metrics"}:
        assert b"content-length: %d" % len(got.content) in head


def test_405_of_control_route_lists_its_methods(http: httpx.Client) -> None:
    """Allow has HEAD and OPTIONS, too (RFC 9110, section 10.2.1)."""
    answer = http.request("PATCH", "/v1/projects/shop")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "DELETE, GET, HEAD, OPTIONS"


def test_answer_before_a_large_body_closes_the_connection(server: RunningServer, stream: str) -> None:
    """The next request would be read as the rest of the body (RFC 9110, section 10.1.1)."""
    typed = [("Content-Type", "text/plain"), ("Content-Length", "30000000")]
    for fields in (typed, [*typed, ("Expect", "100-continue")]):
        with connect(server.url) as connection:
            connection.sendall(request_bytes("POST", stream, fields))
            answer = read_answer(connection)
            assert (answer.status, answer.headers["connection"]) == (413, "close")
            assert read_to_end(connection) == b""


def test_client_that_still_sends_its_body_receives_413(server: RunningServer, stream: str) -> None:
    """The server reads for a while after its answer, because a reset would take the answer away from the client."""
    client = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=20)
    client.request("POST", stream, body=bytes(30_000_000), headers=TEXT)
    answer = client.getresponse()
    assert answer.status == 413
    assert b"body_too_large" in answer.read()
    client.close()


def test_small_unread_body_keeps_the_connection_open(server: RunningServer, stream: str) -> None:
    """The body is read and discarded, and the next request is answered."""
    with connect(server.url) as connection:
        connection.sendall(request_bytes("PATCH", stream, [("Content-Length", "5")]))
        assert read_answer(connection).status == 405
        connection.sendall(b"hello" + request_bytes("GET", stream, []))
        assert read_answer(connection).body == b"hello"


def test_pipelined_requests_before_an_invalid_one_are_answered(server: RunningServer, stream: str) -> None:
    """The answers are in the order of the requests, although all came in one piece."""
    get = request_bytes("GET", stream, [])
    for bad, last in ((b"GET /x HTTP/1.1\r\n\r\n", b"400"), (b"GARBAGE\r\n\r\n", b"200")):
        answers = exchange_to_end(server, get * 3 + bad)
        assert answers.count(b"\r\n\r\nhello") == 3
        assert re.findall(rb"HTTP/1.1 (\d+)", answers)[-1] == last


# -- half-closed clients ---------------------------------------------------------------------------------------------


def test_half_closed_client_receives_due_answers(server: RunningServer, http: httpx.Client, stream: str) -> None:
    """The connection ends after the answers to an append and a pipelined read, or to a long-poll."""
    append = request_bytes("POST", stream, [("Content-Type", "text/plain"), ("Content-Length", "1")], b"x")
    answers = exchange_to_end(server, append + request_bytes("GET", stream, []), half_closed=True)
    assert answers.startswith(b"HTTP/1.1 204 ")
    assert answers.endswith(b"\r\n\r\nhellox")
    poll = exchange_to_end(server, request_bytes("GET", stream + "?offset=now&live=long-poll", []), half_closed=True)
    assert poll.startswith(b"HTTP/1.1 204 ")
    assert http.get(stream).content == b"hellox"


def test_half_closed_client_receives_events(server: RunningServer, http: httpx.Client, stream: str) -> None:
    """The event stream goes on until the stream is closed."""
    with open_live_read(server, http, stream + "?offset=-1&live=sse") as connection:
        connection.shutdown(socket.SHUT_WR)
        http.post(stream, content=b"more", headers={**TEXT, "Stream-Closed": "true"})
        events = read_to_end(connection)
    assert b"data:more" in events
    assert b'"streamClosed":true' in events
    assert events.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(
    "unfinished", [b"POST /v1/str", b"POST {s} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"]
)
def test_request_cut_off_by_half_close_is_refused(
    server: RunningServer, http: httpx.Client, stream: str, unfinished: bytes
) -> None:
    """No part of it is executed (RFC 9112, section 8)."""
    answer = exchange_to_end(server, unfinished.replace(b"{s}", stream.encode()), half_closed=True)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert http.get(stream).content == b"hello"


@pytest.mark.parametrize("live", ["sse", "long-poll"])
@pytest.mark.parametrize("is_reset", [False, True])
def test_live_read_ends_when_its_reader_disconnects(
    server: RunningServer,
    http: httpx.Client,
    stream: str,
    live: str,
    is_reset: bool,  # noqa: FBT001  a table's column
) -> None:
    """The reader's system sends a reset, or a FIN, which a half-closed reader sends as well."""
    with open_live_read(server, http, f"{stream}?offset=now&live={live}") as connection:
        if is_reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    while count_live_reads(http) > 0:
        pass


def test_last_answer_to_half_closed_client_has_connection_close(server: RunningServer, stream: str) -> None:
    """The connection ends after it."""
    with connect(server.url) as connection:
        connection.sendall(request_bytes("GET", stream + "?offset=now&live=long-poll", []))
        connection.shutdown(socket.SHUT_WR)
        answer: RawAnswer = read_answer(connection)
        assert (answer.status, answer.headers["connection"]) == (204, "close")
        assert read_to_end(connection) == b""
