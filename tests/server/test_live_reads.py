"""Long-poll and SSE, through a real connection."""

import socket
from collections.abc import Callable
from itertools import count
from pathlib import Path
from threading import Thread

import httpx
import pytest

from tests.support.offsets import offset_in
from tests.support.raw_http import connect, read_answer, request_bytes
from tests.support.servers import RunningServer, running_server
from tests.support.sse import data_until_closed, subscribed

TEXT = {"Content-Type": "text/plain"}
numbers = count()


def live_reads(http: httpx.Client) -> int:
    """The number of live reads that the server counts."""
    return int(http.get("/health").json()["liveReads"])


def send_repeatedly(connection: socket.socket, data: bytes) -> None:
    """Send the same data again and again: a hundred times the largest head."""
    for _ in range(1_000):
        connection.sendall(data)


def until(holds: Callable[[], bool]) -> None:
    """Check a condition again and again until it holds; each check is a round trip."""
    for _ in range(5_000):
        if holds():
            return
    raise AssertionError("the condition never held")


def test_event_stream_sends_existing_and_new_batches(http: httpx.Client, stream: str) -> None:
    """Each data event is followed by a control event with its end."""
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


def test_all_event_streams_have_the_same_order(http: httpx.Client, stream: str) -> None:
    """Every reader of a stream gets the same batches."""
    seen: list[list[str]] = [[] for _ in range(8)]

    def read(into: list[str]) -> None:
        with httpx.Client(base_url=http.base_url) as own:
            into += data_until_closed(own, stream)

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
def test_event_stream_ends_at_its_maximal_age_and_is_resumed(http: httpx.Client, stream: str) -> None:
    """The last control event has the offset to go on from (spec 10.2)."""
    with subscribed(http, stream) as events:
        *_, last = events
    offset = last.fields["streamNextOffset"]
    http.post(stream, content=b"more", headers=TEXT)
    with subscribed(http, stream, offset) as events:
        assert next(events).data == "more"


def test_event_stream_ends_when_its_stream_is_deleted(http: httpx.Client, stream: str) -> None:
    """Without another event."""
    with subscribed(http, stream, "now") as events:
        assert next(events).fields["upToDate"] is True
        http.delete(stream)
        assert list(events) == []


def test_event_stream_sends_a_batch_larger_than_any_buffer(http: httpx.Client, stream: str) -> None:
    """A batch of line breaks makes an event several times as large."""
    large = b"\n" * 3_000_000
    http.post(stream, content=large, headers=TEXT)
    with subscribed(http, stream, offset_in(http, stream, 5)) as events:
        assert next(events).data == "\n" * 3_000_000
        assert next(events).fields["streamNextOffset"] == offset_in(http, stream, 5 + len(large))


def test_live_read_ends_when_its_client_disconnects(server: RunningServer, http: httpx.Client, stream: str) -> None:
    """Also when another request is queued on the same connection."""
    request = request_bytes("GET", f"{stream}?offset=now&live=sse", [])
    for queued in (b"", request):
        with connect(server.url) as connection:
            connection.sendall(request + queued)
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
            until(lambda: live_reads(http) == 1)
        until(lambda: live_reads(http) == 0)


def test_client_that_reads_nothing_delays_no_other_client(
    server: RunningServer, http: httpx.Client, stream: str
) -> None:
    """Its connection's buffers fill up; other readers and writers go on."""
    stalled, received = socket.socket(), list[str]()
    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)

    def read() -> None:
        with httpx.Client(base_url=server.url) as own:
            received.extend(data_until_closed(own, stream))

    reader = Thread(target=read)
    with stalled:
        stalled.connect((httpx.URL(server.url).host, httpx.URL(server.url).port))
        stalled.sendall(request_bytes("GET", f"{stream}?offset=-1&live=sse", []))
        reader.start()
        until(lambda: live_reads(http) == 2)
        for _ in range(40):
            assert http.post(stream, content=b"x" * 60_000, headers=TEXT).status_code == 204
        http.post(stream, headers={"Stream-Closed": "true"})
        reader.join(30)
        assert sum(map(len, received)) == 5 + 40 * 60_000


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux lets the kernel end such connections")
def test_client_that_reads_nothing_is_disconnected(server: RunningServer, http: httpx.Client, stream: str) -> None:
    """After half a minute the kernel ends its connection, and its live read ends."""
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
    """The answer to a long-poll at the tail, when `meanwhile` is called while it waits."""
    answers: list[httpx.Response] = []
    query = {"offset": "now", "live": "long-poll"}
    poll = Thread(target=lambda: answers.append(httpx.get(f"{http.base_url}{stream}", params=query, timeout=70)))
    poll.start()
    until(lambda: live_reads(http) == 1)
    assert meanwhile().is_success
    poll.join(70)
    return answers[0]


def test_long_poll_returns_a_new_batch_at_once(tmp_path: Path) -> None:
    """With a cursor. The time-out is far longer than the test, so that a busy machine does not end the wait."""
    with (
        running_server(tmp_path / "data", "--long-poll-timeout", "60") as patient,
        httpx.Client(base_url=patient.url, timeout=60) as http,
    ):
        stream = "/v1/stream/waiting"
        http.put(stream, headers=TEXT)
        answer = polled(http, stream, lambda: http.post(stream, content=b"news", headers=TEXT))
    assert (answer.status_code, answer.content) == (200, b"news")
    assert answer.headers["stream-cursor"].isdigit()


def test_fork_does_not_end_a_long_poll_of_its_source(http: httpx.Client, stream: str) -> None:
    """It ends at its timeout."""
    answer = polled(http, stream, lambda: http.put(stream + "-fork", headers={"Stream-Forked-From": stream}))
    assert answer.status_code == 204
    assert answer.elapsed.total_seconds() > 0.4


@pytest.mark.medium
def test_live_read_renews_a_sliding_deadline(http: httpx.Client) -> None:
    """A stream with a sliding TTL does not expire while it has a reader."""
    name = f"/v1/stream/live-{next(numbers)}"
    http.put(name, headers={"Stream-TTL": "1"})
    with subscribed(http, name, "now") as events:
        kinds = [event.kind for event in events]
    assert len(kinds) >= 1
    assert http.head(name).status_code == 200


def test_request_may_arrive_byte_by_byte(server: RunningServer, http: httpx.Client, stream: str) -> None:
    """Also with a chunked body; its trailers are not header fields."""
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


def test_unsupported_upgrade_is_ignored(server: RunningServer, http: httpx.Client, stream: str) -> None:
    """The request's body is read, and the next request on the connection is answered."""
    upgrade = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABk")]
    append = request_bytes("POST", stream, [*upgrade, ("Content-Type", "text/plain"), ("Content-Length", "3")], b"abc")
    with connect(server.url) as connection:
        connection.sendall(append)
        assert read_answer(connection).status == 204
        connection.sendall(request_bytes("HEAD", stream, []))
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
    assert http.get(stream).content == b"helloabc"


def test_thousands_of_unsupported_upgrades_are_ignored(server: RunningServer, stream: str) -> None:
    """All arrive at once, and each request is answered."""
    count = 2_500
    upgrade = request_bytes("HEAD", stream, [("Connection", "Upgrade"), ("Upgrade", "h2c")])
    with connect(server.url) as connection:
        connection.sendall(upgrade * count)
        connection.shutdown(socket.SHUT_WR)
        answers = b""
        while part := connection.recv(1_048_576):
            answers += part
    assert answers.count(b"HTTP/1.1 200") == count


def test_garbage_after_a_request_does_not_suppress_its_answer(server: RunningServer, stream: str) -> None:
    """The append was applied, and is answered."""
    append = request_bytes("POST", stream, [("Content-Type", "text/plain"), ("Content-Length", "3")], b"abc")
    with connect(server.url) as connection:
        connection.sendall(append + b"GARBAGE\r\n\r\n")
        assert read_answer(connection).status == 204


def test_request_after_a_refused_one_is_not_carried_out(server: RunningServer, http: httpx.Client, stream: str) -> None:
    """Although it is on the same connection and complete."""
    refused = request_bytes("GET", stream, [("X-Long", "y" * 40_000)])
    with connect(server.url) as connection:
        connection.sendall(refused + request_bytes("DELETE", stream, []))
        assert read_answer(connection).status == 431
    assert http.head(stream).status_code == 200


def test_trailers_are_limited(server: RunningServer, stream: str) -> None:
    """The connection ends when a chunked body's trailers do not."""
    head = request_bytes("POST", stream, [("Content-Type", "text/plain"), ("Transfer-Encoding", "chunked")])
    with connect(server.url) as connection:
        connection.sendall(head + b"3\r\nabc\r\n0\r\n")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            send_repeatedly(connection, b"x: 1\r\n" * 1_000)
