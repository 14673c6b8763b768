"""Long-poll and SSE, through a real connection."""

import socket
from collections.abc import Callable
from itertools import count
from threading import Thread

import httpx
import pytest

from tests.support.offsets import offset_in
from tests.support.raw_http import connect, read_answer, request_bytes
from tests.support.servers import RunningServer
from tests.support.sse import subscribed

TEXT = {"Content-Type": "text/plain"}
numbers = count()


def live_reads(http: httpx.Client) -> int:
    """How many the server counts."""
    return int(http.get("/health").json()["liveReads"])


def send_for_ever(connection: socket.socket, data: bytes) -> None:
    """Send the same again and again; 100 times what any head may have must be enough."""
    for _ in range(1_000):
        connection.sendall(data)


def until(holds: Callable[[], bool]) -> None:
    """Ask again until it holds; each time is a round trip."""
    for _ in range(5_000):
        if holds():
            return
    raise AssertionError("it never came about")


def test_a_reader_gets_what_was_there_and_what_comes(http: httpx.Client, stream: str) -> None:
    """Each data event is followed by a control event that says where it ends."""
    with subscribed(http, stream) as events:
        assert next(events).data == "hello"
        assert next(events).fields["upToDate"] is True
        http.post(stream, content=b" world", headers=TEXT)
        assert next(events).data == " world"
        assert next(events).fields["streamNextOffset"] == offset_in(http, stream, 11)
        http.post(stream, content=b"!", headers={**TEXT, "Stream-Closed": "true"})
        assert next(events).data == "!"
        last = next(events).fields
        assert last == {"streamNextOffset": offset_in(http, stream, 12), "upToDate": True, "streamClosed": True}
        assert list(events) == []


def test_readers_share_one_order(http: httpx.Client, stream: str) -> None:
    """Every reader of a stream sees the same batches."""
    seen: list[list[str]] = [[] for _ in range(8)]

    def read(into: list[str]) -> None:
        with httpx.Client(base_url=http.base_url) as own, subscribed(own, stream) as events:
            into += [event.data for event in events if event.kind == "data"]

    readers = [Thread(target=read, args=(one,)) for one in seen]
    for reader in readers:
        reader.start()
    until(lambda: live_reads(http) == len(readers))
    for number in range(50):
        http.post(stream, content=b"%d," % number, headers=TEXT)
    http.post(stream, headers={"Stream-Closed": "true"})
    for reader in readers:
        reader.join(30)
    expected = "hello" + "".join(f"{number}," for number in range(50))
    assert ["".join(one) for one in seen] == [expected] * len(readers)
    until(lambda: live_reads(http) == 0)


@pytest.mark.medium
def test_a_connection_ends_in_time_and_its_reader_goes_on(http: httpx.Client, stream: str) -> None:
    """Spec 10.2: the server ends it; the last control event says where to go on."""
    with subscribed(http, stream) as events:
        *_, last = events
    offset = last.fields["streamNextOffset"]
    http.post(stream, content=b"more", headers=TEXT)
    with subscribed(http, stream, offset) as events:
        assert next(events).data == "more"


def test_a_deleted_stream_ends_its_readers(http: httpx.Client, stream: str) -> None:
    """There is nothing more to come."""
    with subscribed(http, stream, "now") as events:
        assert next(events).fields["upToDate"] is True
        http.delete(stream)
        assert list(events) == []


def test_a_batch_larger_than_any_buffer_reaches_a_reader(http: httpx.Client, stream: str) -> None:
    """Line breaks make an event several times as large as its batch."""
    large = b"\n" * 3_000_000
    http.post(stream, content=large, headers=TEXT)
    with subscribed(http, stream, offset_in(http, stream, 5)) as events:
        assert next(events).data == "\n" * 3_000_000
        assert next(events).fields["streamNextOffset"] == offset_in(http, stream, 5 + len(large))


def test_a_client_that_goes_frees_its_read(server: RunningServer, http: httpx.Client, stream: str) -> None:
    """Even with another request queued behind the read on the same connection."""
    request = request_bytes("GET", f"{stream}?offset=now&live=sse", [])
    for queued in (b"", request):
        with connect(server.url) as connection:
            connection.sendall(request + queued)
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
            until(lambda: live_reads(http) == 1)
        until(lambda: live_reads(http) == 0)


def test_a_reader_that_reads_nothing_holds_up_nobody(server: RunningServer, http: httpx.Client, stream: str) -> None:
    """Its connection fills up; the others and the writers go on."""
    stalled = socket.socket()
    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    with stalled, subscribed(http, stream) as events:
        stalled.connect((httpx.URL(server.url).host, httpx.URL(server.url).port))
        stalled.sendall(request_bytes("GET", f"{stream}?offset=-1&live=sse", []))
        with httpx.Client(base_url=server.url) as writer:
            for _ in range(40):
                assert writer.post(stream, content=b"x" * 60_000, headers=TEXT).status_code == 204
            writer.post(stream, headers={"Stream-Closed": "true"})
        received = sum(len(event.data) for event in events if event.kind == "data")
        assert received == 5 + 40 * 60_000


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux lets the kernel end such connections")
def test_a_reader_that_reads_nothing_is_dropped(server: RunningServer, http: httpx.Client, stream: str) -> None:
    """After half a minute its connection is ended, and all that it held is free."""
    other = stream + "-other"
    http.put(other, headers=TEXT)
    with socket.socket() as stalled:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        stalled.connect((httpx.URL(server.url).host, httpx.URL(server.url).port))
        stalled.sendall(request_bytes("GET", f"{stream}?offset=-1&live=sse", []))
        until(lambda: live_reads(http) == 1)
        for _ in range(100):
            http.post(stream, content=b"x" * 60_000, headers=TEXT)
        waits = 0
        while live_reads(http) > 0 and waits < 100:
            waits += 1  # each is a long-poll's half second
            http.get(other, params={"offset": "now", "live": "long-poll"})
        assert 40 <= waits < 100


def polled(http: httpx.Client, stream: str, meanwhile: Callable[[], httpx.Response]) -> httpx.Response:
    """What a long-poll at the tail is answered, when something happens while it waits."""
    answers: list[httpx.Response] = []
    query = {"offset": "now", "live": "long-poll"}
    poll = Thread(target=lambda: answers.append(httpx.get(f"{http.base_url}{stream}", params=query)))
    poll.start()
    until(lambda: live_reads(http) == 1)
    assert meanwhile().is_success
    poll.join(10)
    return answers[0]


def test_a_long_poll_is_told_the_news(http: httpx.Client, stream: str) -> None:
    """As soon as it is there."""
    answer = polled(http, stream, lambda: http.post(stream, content=b"news", headers=TEXT))
    assert (answer.status_code, answer.content) == (200, b"news")
    assert answer.headers["stream-cursor"].isdigit()


def test_a_fork_is_no_news_to_its_sources_readers(http: httpx.Client, stream: str) -> None:
    """A long-poll waits on; only its time-out ends it."""
    answer = polled(http, stream, lambda: http.put(stream + "-fork", headers={"Stream-Forked-From": stream}))
    assert answer.status_code == 204
    assert answer.elapsed.total_seconds() > 0.4


@pytest.mark.medium
def test_a_live_read_ends_when_its_stream_expires(http: httpx.Client) -> None:
    """A moment passes whether or not anything is written; a stream with a sliding window and readers lives on."""
    name = f"/v1/stream/live-{next(numbers)}"
    http.put(name, headers={"Stream-TTL": "1"})
    with subscribed(http, name, "now") as events:
        kinds = [event.kind for event in events]
    assert len(kinds) >= 1
    assert http.head(name).status_code == 200


def test_head_and_body_may_come_in_pieces(server: RunningServer, http: httpx.Client, stream: str) -> None:
    """Byte by byte, and with a chunked body whose trailer is no header field."""
    request = (
        f"POST {stream} HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
        "3\r\nabc\r\n2\r\nde\r\n0\r\nStream-Closed: true\r\n\r\n"
    ).encode()
    with connect(server.url) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request:
            connection.sendall(bytes([byte]))
        answer = read_answer(connection)
    assert answer.status == 204
    assert "stream-closed" not in answer.headers
    assert http.get(stream).content == b"helloabcde"


def test_an_upgrade_that_is_not_offered_is_passed_over(server: RunningServer, http: httpx.Client, stream: str) -> None:
    """The body comes all the same, and so does the next request on the connection."""
    upgrade = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABk")]
    append = request_bytes("POST", stream, [*upgrade, ("Content-Type", "text/plain"), ("Content-Length", "3")], b"abc")
    with connect(server.url) as connection:
        connection.sendall(append)
        assert read_answer(connection).status == 204
        connection.sendall(request_bytes("HEAD", stream, []))
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
    assert http.get(stream).content == b"helloabc"


def test_upgrades_that_are_not_offered_may_come_in_thousands(server: RunningServer, stream: str) -> None:
    """However many there are in one piece, each is passed over and its request answered."""
    count = 2_500
    upgrade = request_bytes("HEAD", stream, [("Connection", "Upgrade"), ("Upgrade", "h2c")])
    with connect(server.url) as connection:
        connection.sendall(upgrade * count)
        connection.shutdown(socket.SHUT_WR)
        answers = b""
        while part := connection.recv(1_048_576):
            answers += part
    assert answers.count(b"HTTP/1.1 200") == count


def test_garbage_behind_a_request_does_not_take_its_answer(server: RunningServer, stream: str) -> None:
    """The append was applied, and its client hears so."""
    append = request_bytes("POST", stream, [("Content-Type", "text/plain"), ("Content-Length", "3")], b"abc")
    with connect(server.url) as connection:
        connection.sendall(append + b"GARBAGE\r\n\r\n")
        assert read_answer(connection).status == 204


def test_nothing_behind_a_refused_head_is_done(server: RunningServer, http: httpx.Client, stream: str) -> None:
    """A request that rides behind one that is refused is not carried out."""
    refused = request_bytes("GET", stream, [("X-Long", "y" * 40_000)])
    with connect(server.url) as connection:
        connection.sendall(refused + request_bytes("DELETE", stream, []))
        assert read_answer(connection).status == 431
    assert http.head(stream).status_code == 200


def test_trailers_have_a_bound(server: RunningServer, stream: str) -> None:
    """A chunked body whose trailers never end is cut off."""
    head = request_bytes("POST", stream, [("Content-Type", "text/plain"), ("Transfer-Encoding", "chunked")])
    with connect(server.url) as connection:
        connection.sendall(head + b"3\r\nabc\r\n0\r\n")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            send_for_ever(connection, b"x: 1\r\n" * 1_000)
