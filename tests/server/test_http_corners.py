"""HTTP's fine print on a real connection: what RFC 9110, 9112 and 6455 ask of a server, sent by hand."""

import http.client
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.support.raw_http import RawAnswer, connect, exchange, read_answer, request_bytes
from tests.support.servers import RunningServer

TEXT = {"Content-Type": "text/plain"}
HOST = b"Host: x\r\n"
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
UPGRADE = HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
CHUNKED = b"\r\n3\r\nabc\r\n0\r\n\r\n"


def rest_of(connection: socket.socket) -> bytes:
    """All that comes until the server ends the connection."""
    data = b""
    while part := connection.recv(65_536):
        data += part
    return data


def ask(server: RunningServer, request: bytes, *, half_closed: bool = False) -> bytes:
    """Everything that the server sends on a connection of its own."""
    with connect(server.url) as connection:
        connection.sendall(request)
        if half_closed:
            connection.shutdown(socket.SHUT_WR)
        return rest_of(connection)


def live_reads(client: httpx.Client) -> int:
    """How many live reads are open."""
    return int(client.get("/health").json()["liveReads"])


@contextmanager
def waiting(server: RunningServer, http: httpx.Client, target: str) -> Iterator[socket.socket]:
    """A live read in progress."""
    with connect(server.url) as connection:
        connection.sendall(request_bytes("GET", target, []))
        while live_reads(http) == 0:
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
def test_head_that_cannot_be_is_refused_and_nothing_behind_it_is_done(
    server: RunningServer, http: httpx.Client, stream: str, request_head: bytes, refusal: tuple[int, str]
) -> None:
    """In the one shape of errors, and the connection ends: nobody knows where the next request begins."""
    request = request_head.replace(b"{s}", stream.encode())
    with connect(server.url) as connection:
        connection.sendall(request + request_bytes("DELETE", stream, []))
        answer = read_answer(connection)
        assert rest_of(connection) == b""
    assert (answer.status, answer.error_code) == refusal
    assert "close" in answer.headers["connection"]
    assert http.get(stream).content == b"hello"


def test_raw_characters_in_a_target_are_named_as_the_fault(server: RunningServer) -> None:
    """A client that forgot to encode its path is told so."""
    answer = exchange(server.url, "GET /v1/stream/café HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert b"percent-encoded" in answer.body


def test_other_handshake_version_is_told_this_one(server: RunningServer, stream: str) -> None:
    """RFC 6455, section 4.4."""
    answer = exchange(server.url, b"GET %s HTTP/1.1\r\n%s%s\r\n" % (stream.encode(), UPGRADE, KEY))
    assert (answer.status, answer.headers["sec-websocket-version"]) == (426, "13")
    assert answer.headers["upgrade"] == "websocket"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_upgrade_that_cannot_be_is_ignored(
    server: RunningServer, http: httpx.Client, stream: str, version: str
) -> None:
    """Of HTTP/1.0, and of a POST: both are what they are without it."""
    fields = UPGRADE + KEY + b"Sec-WebSocket-Version: 13\r\nContent-Type: text/plain\r\nContent-Length: 1\r\n\r\nx"
    answer = exchange(server.url, b"POST %s HTTP/%s\r\n%s" % (stream.encode(), version.encode(), fields))
    assert answer.status == 204
    assert http.get(stream).content == b"hellox"
    get = b"GET %s HTTP/1.0\r\n%s%sSec-WebSocket-Version: 13\r\n\r\n" % (stream.encode(), UPGRADE, KEY)
    assert ask(server, get).endswith(b"\r\n\r\nhellox")


def test_browser_that_offers_subprotocols_is_told_why_it_fails(server: RunningServer, stream: str) -> None:
    """A client that is no browser may go on without one (RFC 6455, section 4.2.2)."""
    offer = UPGRADE + KEY + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: bearer, x\r\n"
    head = b"GET %s?live=websocket&offset=-1 HTTP/1.1\r\n%s" % (stream.encode(), offer)
    refused = exchange(server.url, head + b"Origin: http://localhost:3000\r\n\r\n")
    assert (refused.status, refused.error_code) == (400, "malformed_header")
    assert b"token=" in refused.body
    with connect(server.url) as connection:
        connection.sendall(head + b"\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 101 ")


def test_handshake_with_a_body_is_refused(server: RunningServer, stream: str) -> None:
    """Whatever comes with it; the server lives on."""
    fields = UPGRADE + KEY + b"Sec-WebSocket-Version: 13\r\nContent-Length: 5\r\n\r\nhello"
    answer = exchange(server.url, b"GET %s?live=websocket&offset=-1 HTTP/1.1\r\n%s" % (stream.encode(), fields))
    assert (answer.status, answer.error_code) == (400, "malformed_request")


def test_target_with_a_host_is_for_that_host(server: RunningServer, http: httpx.Client, stream: str) -> None:
    """As proxies send it (RFC 9112, section 3.2.2)."""
    target = f"http://streams.example:81{stream}-new"
    answer = exchange(server.url, request_bytes("PUT", target, [("Content-Type", "text/plain")]))
    assert (answer.status, answer.headers["location"]) == (201, target)
    assert http.get(stream + "-new").status_code == 200


def test_options_of_the_whole_server_are_answered(server: RunningServer) -> None:
    """`OPTIONS *` (RFC 9110, section 9.3.7)."""
    answer = exchange(server.url, request_bytes("OPTIONS", "*", []))
    assert answer.status == 204
    assert "HEAD" in answer.headers["allow"]


# -- answers ---------------------------------------------------------------------------------------------------------


def test_no_answer_without_content_has_a_length(server: RunningServer, stream: str) -> None:
    """RFC 9110, section 8.6; strict proxies take it for a broken answer."""
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


def test_http_1_0_gets_no_chunks(server: RunningServer, http: httpx.Client, stream: str) -> None:
    """The end of the connection ends an event stream (RFC 9112, section 6.3)."""
    http.post(stream, headers={"Stream-Closed": "true"})
    head, _, events = ask(server, f"GET {stream}?offset=-1&live=sse HTTP/1.0\r\n\r\n".encode()).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert events.startswith(b"retry:")
    assert events.endswith(b"\n\n")


@pytest.mark.parametrize(
    "path", ["/health", "/metrics", "/openapi.json", "/v1/streams", "/v1/estuary/wire/e", "/v1/nothing", "{s}"]
)
def test_head_is_wherever_get_is(server: RunningServer, http: httpx.Client, stream: str, path: str) -> None:
    """With the status and the fields of GET, and no body (RFC 9110, section 9.3.2)."""
    target = path.replace("{s}", stream)
    got = http.get(target, headers={"Accept-Encoding": "identity"})
    head, _, body = ask(server, request_bytes("HEAD", target, [("Connection", "close")])).partition(b"\r\n\r\n")
    assert body == b""
    assert head.startswith(b"HTTP/1.1 %d " % got.status_code)
    assert got.headers["content-type"].encode() in head
    if path not in {"{s}", "/metrics"}:
        assert b"content-length: %d" % len(got.content) in head


def test_methods_of_a_control_route_are_all_told(http: httpx.Client) -> None:
    """RFC 9110, section 10.2.1."""
    answer = http.request("PATCH", "/v1/projects/shop")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "DELETE, GET, HEAD, OPTIONS"


def test_answer_that_leaves_the_body_unread_ends_the_connection(server: RunningServer, stream: str) -> None:
    """The next request would be taken for the rest of the body (RFC 9110, section 10.1.1)."""
    typed = [("Content-Type", "text/plain"), ("Content-Length", "30000000")]
    for fields in (typed, [*typed, ("Expect", "100-continue")]):
        with connect(server.url) as connection:
            connection.sendall(request_bytes("POST", stream, fields))
            answer = read_answer(connection)
            assert (answer.status, answer.headers["connection"]) == (413, "close")
            assert rest_of(connection) == b""


def test_client_that_sends_on_sees_why_it_was_refused(server: RunningServer, stream: str) -> None:
    """What it still sends is read for a while, so that the connection is not reset under the answer."""
    client = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=20)
    client.request("POST", stream, body=bytes(30_000_000), headers=TEXT)
    answer = client.getresponse()
    assert answer.status == 413
    assert b"body_too_large" in answer.read()
    client.close()


def test_small_unread_body_leaves_the_connection_open(server: RunningServer, stream: str) -> None:
    """It is read and thrown away, and the next request is answered."""
    with connect(server.url) as connection:
        connection.sendall(request_bytes("PATCH", stream, [("Content-Length", "5")]))
        assert read_answer(connection).status == 405
        connection.sendall(b"hello" + request_bytes("GET", stream, []))
        assert read_answer(connection).body == b"hello"


def test_requests_before_a_bad_one_are_all_answered(server: RunningServer, stream: str) -> None:
    """They came in one piece, and are answered in order."""
    get = request_bytes("GET", stream, [])
    for bad, last in ((b"GET /x HTTP/1.1\r\n\r\n", b"400"), (b"GARBAGE\r\n\r\n", b"200")):
        answers = ask(server, get * 3 + bad)
        assert answers.count(b"\r\n\r\nhello") == 3
        assert re.findall(rb"HTTP/1.1 (\d+)", answers)[-1] == last


# -- half-closed clients ---------------------------------------------------------------------------------------------


def test_half_closed_client_gets_its_answers(server: RunningServer, http: httpx.Client, stream: str) -> None:
    """An append, and requests that were sent behind one another; then the connection ends."""
    append = request_bytes("POST", stream, [("Content-Type", "text/plain"), ("Content-Length", "1")], b"x")
    answers = ask(server, append + request_bytes("GET", stream, []), half_closed=True)
    assert answers.startswith(b"HTTP/1.1 204 ")
    assert answers.endswith(b"\r\n\r\nhellox")
    poll = ask(server, request_bytes("GET", stream + "?offset=now&live=long-poll", []), half_closed=True)
    assert poll.startswith(b"HTTP/1.1 204 ")
    assert http.get(stream).content == b"hellox"


def test_half_closed_client_gets_its_events(server: RunningServer, http: httpx.Client, stream: str) -> None:
    """Until the event stream ends as any other."""
    with waiting(server, http, stream + "?offset=-1&live=sse") as connection:
        connection.shutdown(socket.SHUT_WR)
        http.post(stream, content=b"more", headers={**TEXT, "Stream-Closed": "true"})
        events = rest_of(connection)
    assert b"data:more" in events
    assert b'"streamClosed":true' in events
    assert events.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(
    "unfinished", [b"POST /v1/str", b"POST {s} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"]
)
def test_half_a_request_is_refused(server: RunningServer, http: httpx.Client, stream: str, unfinished: bytes) -> None:
    """And nothing of it is done (RFC 9112, section 8)."""
    answer = ask(server, unfinished.replace(b"{s}", stream.encode()), half_closed=True)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert http.get(stream).content == b"hello"


@pytest.mark.parametrize("live", ["sse", "long-poll"])
@pytest.mark.parametrize("is_reset", [False, True])
def test_reader_that_has_gone_is_not_waited_for(
    server: RunningServer,
    http: httpx.Client,
    stream: str,
    live: str,
    is_reset: bool,  # noqa: FBT001  a table's column
) -> None:
    """Whether it says so by a reset, or only that it sends no more."""
    with waiting(server, http, f"{stream}?offset=now&live={live}") as connection:
        if is_reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    while live_reads(http) > 0:
        pass


def test_answer_to_half_a_pipeline_names_the_end(server: RunningServer, stream: str) -> None:
    """The last answer says that the connection closes."""
    with connect(server.url) as connection:
        connection.sendall(request_bytes("GET", stream + "?offset=now&live=long-poll", []))
        connection.shutdown(socket.SHUT_WR)
        answer: RawAnswer = read_answer(connection)
        assert (answer.status, answer.headers["connection"]) == (204, "close")
        assert rest_of(connection) == b""
