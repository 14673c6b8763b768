"""Offsets that clients store: of a former incarnation, inside a batch, past the tail (docs/decisions/0010)."""

from collections.abc import Callable
from itertools import count
from threading import Thread

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.offsets import offset_in
from tests.support.servers import RunningServer
from tests.support.sse import subscribed

TEXT = {"Content-Type": "text/plain"}
numbers = count()


@pytest.fixture
def stream(http: httpx.Client) -> str:
    """A text stream with two batches, `first.` and `second`."""
    name = f"/v1/stream/offsets-{next(numbers)}"
    fill(http, name)
    return name


def fill(http: httpx.Client, name: str) -> None:
    """Create a stream with the two batches."""
    assert http.put(name, content=b"first.", headers=TEXT).status_code == 201
    assert http.post(name, content=b"second", headers=TEXT).status_code == 204


MODES = ["", "&live=long-poll", "&live=sse"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("position", [0, 6, 12, 99])
def test_offset_of_a_former_incarnation_is_410(http: httpx.Client, stream: str, mode: str, position: int) -> None:
    """Its reader may have missed bytes, so it gets an error, whose message tells how to go on."""
    offset = offset_in(http, stream, position)
    http.delete(stream)
    fill(http, stream)
    answer = http.get(f"{stream}?offset={offset}{mode}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "offset_gone")
    assert "-1" in answer.json()["error"]["message"]
    assert answer.headers["cache-control"] == "no-store"


def test_websocket_at_an_offset_of_a_former_incarnation_is_410(
    server: RunningServer, http: httpx.Client, stream: str
) -> None:
    """The handshake is answered in HTTP."""
    offset = offset_in(http, stream, 6)
    http.delete(stream)
    fill(http, stream)
    with pytest.raises(InvalidStatus) as refused:
        connect(f"{server.url.replace('http', 'ws')}{stream}?live=websocket&offset={offset}")
    assert refused.value.response.status_code == 410


def test_fork_at_an_offset_of_a_former_incarnation_is_rejected(http: httpx.Client, stream: str) -> None:
    """It would inherit bytes that its creator has not seen."""
    offset = offset_in(http, stream, 6)
    http.delete(stream)
    fill(http, stream)
    headers = {"Stream-Forked-From": stream, "Stream-Fork-Offset": offset}
    answer = http.put(stream + "-fork", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unknown_fork_offset")


def test_offsets_of_a_later_incarnation_sort_after_those_of_an_earlier_one(http: httpx.Client, stream: str) -> None:
    """So a client that compares them finds that it is behind."""
    tails = []
    for _ in range(5):
        tails.append(http.head(stream).headers["stream-next-offset"])
        http.delete(stream)
        http.put(stream, content=b"x", headers=TEXT)
    assert tails == sorted(set(tails))


@pytest.mark.parametrize(
    ("position", "data"),
    [(0, b"first.second"), (1, b"first.second"), (5, b"first.second"), (6, b"second"), (7, b"second"), (11, b"second")],
)
@pytest.mark.parametrize("mode", ["", "&live=long-poll"])
def test_offset_inside_a_batch_returns_the_whole_batch(
    http: httpx.Client, stream: str, mode: str, position: int, data: bytes
) -> None:
    """And all batches after it, because clients may rely on complete batches."""
    answer = http.get(f"{stream}?offset={offset_in(http, stream, position)}{mode}")
    assert (answer.status_code, answer.content) == (200, data)
    assert answer.headers["stream-next-offset"] == offset_in(http, stream, 12)


@pytest.mark.parametrize("past", [1, 10**9])
def test_offset_past_the_tail_returns_an_empty_page(http: httpx.Client, stream: str, past: int) -> None:
    """With the offset of the tail, so that the reader misses no batch, however short (spec 5.6)."""
    answer = http.get(f"{stream}?offset={offset_in(http, stream, 12 + past)}")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["stream-up-to-date"] == "true"
    assert answer.headers["stream-next-offset"] == offset_in(http, stream, 12)
    assert "stream-closed" not in answer.headers
    http.post(stream, headers={"Stream-Closed": "true"})
    closed = http.get(f"{stream}?offset={offset_in(http, stream, 12 + past)}")
    assert (closed.status_code, closed.headers["stream-closed"]) == (200, "true")


def by_long_poll(http: httpx.Client, stream: str, offset: str) -> str:
    """The first new batch."""
    while (answer := http.get(f"{stream}?offset={offset}&live=long-poll")).status_code == 204:
        pass
    return answer.text


def by_events(http: httpx.Client, stream: str, offset: str) -> str:
    """The first new batch."""
    while True:
        with subscribed(http, stream, offset) as events:
            for event in events:
                if event.kind == "data":
                    return event.data


@pytest.mark.parametrize("read", [by_long_poll, by_events])
def test_live_read_past_the_tail_returns_the_next_batch(
    http: httpx.Client, stream: str, read: Callable[[httpx.Client, str, str], str]
) -> None:
    """Even if that is a single byte."""
    got, offset = list[str](), offset_in(http, stream, 13)

    def wait() -> None:
        with httpx.Client(base_url=http.base_url, timeout=30) as own:
            got.append(read(own, stream, offset))

    reader = Thread(target=wait)
    reader.start()
    while http.get("/health").json()["liveReads"] == 0 and not got:
        pass
    http.post(stream, content=b"!", headers=TEXT)
    reader.join(30)
    assert got == ["!"]


def test_fork_is_read_with_its_sources_offsets(http: httpx.Client, stream: str) -> None:
    """Up to the offset where it diverges; later offsets of its source are of another incarnation."""
    source = {position: offset_in(http, stream, position) for position in (0, 6, 12)}
    fork = stream + "-fork"
    headers = {"Stream-Forked-From": stream, "Stream-Fork-Offset": source[6]}
    made = http.put(fork, content=b"FORK", headers={**TEXT, **headers})
    own_tail = made.headers["stream-next-offset"]
    assert made.status_code == 201
    assert own_tail > source[12] > source[6]
    assert http.put(fork, headers={**TEXT, **headers}).status_code == 200
    assert http.get(f"{fork}?offset={source[0]}").text == "first.FORK"
    assert http.get(f"{fork}?offset={source[6]}").text == "FORK"
    assert http.get(f"{fork}?offset={own_tail}").text == ""
    past = http.get(f"{fork}?offset={source[12]}")
    assert (past.status_code, past.json()["error"]["code"]) == (410, "offset_gone")
    assert "this fork has left its source" in past.json()["error"]["message"]
    assert http.get(f"{stream}?offset={own_tail}").status_code == 410
