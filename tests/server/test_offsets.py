"""Offsets that clients keep and count with: of another life, inside a batch, past the tail (docs/decisions/0010)."""

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
    """Make a stream with the two batches."""
    assert http.put(name, content=b"first.", headers=TEXT).status_code == 201
    assert http.post(name, content=b"second", headers=TEXT).status_code == 204


MODES = ["", "&live=long-poll", "&live=sse"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("position", [0, 6, 12, 99])
def test_an_offset_of_a_former_life_is_gone(http: httpx.Client, stream: str, mode: str, position: int) -> None:
    """What its reader lacks of this one nobody can tell, so it must hear of it; the message says how to go on."""
    offset = offset_in(http, stream, position)
    http.delete(stream)
    fill(http, stream)
    answer = http.get(f"{stream}?offset={offset}{mode}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "offset_gone")
    assert "-1" in answer.json()["error"]["message"]
    assert answer.headers["cache-control"] == "no-store"


def test_a_socket_at_an_offset_of_a_former_life_is_refused(
    server: RunningServer, http: httpx.Client, stream: str
) -> None:
    """In plain HTTP, before the connection is one."""
    offset = offset_in(http, stream, 6)
    http.delete(stream)
    fill(http, stream)
    with pytest.raises(InvalidStatus) as refused:
        connect(f"{server.url.replace('http', 'ws')}{stream}?live=websocket&offset={offset}")
    assert refused.value.response.status_code == 410


def test_a_fork_at_an_offset_of_a_former_life_is_refused(http: httpx.Client, stream: str) -> None:
    """It would inherit what its creator has never seen."""
    offset = offset_in(http, stream, 6)
    http.delete(stream)
    fill(http, stream)
    headers = {"Stream-Forked-From": stream, "Stream-Fork-Offset": offset}
    answer = http.put(stream + "-fork", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unknown_fork_offset")


def test_offsets_of_a_later_life_sort_after_those_of_an_earlier_one(http: httpx.Client, stream: str) -> None:
    """A client that compares them sees that it is behind."""
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
def test_a_position_inside_a_batch_gives_the_batch(
    http: httpx.Client, stream: str, mode: str, position: int, data: bytes
) -> None:
    """All that ends after it, in whole batches, as clients need that frame them."""
    answer = http.get(f"{stream}?offset={offset_in(http, stream, position)}{mode}")
    assert (answer.status_code, answer.content) == (200, data)
    assert answer.headers["stream-next-offset"] == offset_in(http, stream, 12)


@pytest.mark.parametrize("past", [1, 10**9])
def test_past_the_tail_there_is_nothing_yet(http: httpx.Client, stream: str, past: int) -> None:
    """Spec 5.6: 200, and where to go on, so that no batch is missed, however short."""
    answer = http.get(f"{stream}?offset={offset_in(http, stream, 12 + past)}")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["stream-up-to-date"] == "true"
    assert answer.headers["stream-next-offset"] == offset_in(http, stream, 12)
    assert "stream-closed" not in answer.headers
    http.post(stream, headers={"Stream-Closed": "true"})
    closed = http.get(f"{stream}?offset={offset_in(http, stream, 12 + past)}")
    assert (closed.status_code, closed.headers["stream-closed"]) == (200, "true")


def by_long_poll(http: httpx.Client, stream: str, offset: str) -> str:
    """The first news."""
    while (answer := http.get(f"{stream}?offset={offset}&live=long-poll")).status_code == 204:
        pass
    return answer.text


def by_events(http: httpx.Client, stream: str, offset: str) -> str:
    """The first news."""
    while True:
        with subscribed(http, stream, offset) as events:
            for event in events:
                if event.kind == "data":
                    return event.data


@pytest.mark.parametrize("read", [by_long_poll, by_events])
def test_a_live_read_past_the_tail_waits_for_what_comes(
    http: httpx.Client, stream: str, read: Callable[[httpx.Client, str, str], str]
) -> None:
    """Even for a batch of a single byte."""
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


def test_a_fork_is_read_with_its_sources_offsets(http: httpx.Client, stream: str) -> None:
    """Up to where it diverges; what its source goes on with is none of its own."""
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
