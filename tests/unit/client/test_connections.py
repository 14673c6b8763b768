"""The load's connections read answers that come in any pieces, and say what is no answer."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluvial.client.load.http_connection import HEAD_BYTES_MAX, ClosedLoop, RequestRefused
from fluvial.client.load.live_reader import LiveReader

REQUEST = b"POST / HTTP/1.1\r\n\r\n"
EVENT = b'event: data\ndata: one\ndata: two\n\nevent: control\ndata: {"streamNextOffset": "7"}\n\n'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


@dataclass
class Sent(asyncio.Transport):
    """A connection that keeps what is written."""

    written: list[bytes] = field(default_factory=list)
    is_closed: bool = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep it."""
        self.written.append(bytes(data))

    def close(self) -> None:
        """Note it."""
        self.is_closed = True


@dataclass
class Two:
    """Two requests."""

    left: int = 2
    answers: int = 0

    def pause_s(self) -> float:
        """Nothing."""
        return 0.0

    def next_request(self) -> bytes | None:
        """The next of them."""
        self.left -= 1
        return REQUEST if self.left >= 0 else None

    def take_answer(self, latency_s: float) -> None:
        """Count."""
        assert latency_s >= 0
        self.answers += 1


def pieces(data: bytes, places: set[int]) -> Iterator[bytes]:
    """The data, cut at places."""
    cuts = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return (data[begin:end] for begin, end in pairwise(cuts))


def chunked(data: bytes) -> bytes:
    """The data in two chunks, without an end: an event stream goes on."""
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (data[:20], data[20:]))


async def loop_over(parts: Iterator[bytes]) -> tuple[Two, Sent, BaseException | None]:
    """Give parts of answers to a closed loop; its requests, its connection, and how it ended."""
    requests, sent = Two(), Sent()
    loop = ClosedLoop(requests)
    loop.connection_made(sent)
    loop.start()
    for part in parts:
        loop.get_buffer(-1)[: len(part)] = part
        loop.buffer_updated(len(part))
    return requests, sent, loop.done.exception() if loop.done.done() else None


async def follow(parts: Iterator[bytes]) -> tuple[LiveReader, list[bytes]]:
    """Give parts of an answer to a live reader; it, and the texts that it has passed on."""
    texts = list[bytes]()
    reader = LiveReader(REQUEST, texts.append)
    reader.connection_made(Sent())
    for part in parts:
        reader.data_received(part)
    return reader, texts


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ],
    ids=["without a body", "with a length", "in chunks"],
)
@given(places=st.sets(st.integers(0, 200), max_size=8))
def test_answer_in_any_pieces_is_one_answer(answer: bytes, places: set[int]) -> None:
    """The next request is sent when the answer is whole."""
    requests, sent, error = asyncio.run(loop_over(pieces(answer, places)))
    assert (requests.answers, len(sent.written), error) == (1, 2, None)


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        (b"HTTP/1.1 429 Too Many Requests\r\n\r\n", RequestRefused, "429"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", ConnectionError, "not HTTP"),
        (b"HTTP/1.1 OK\r\n\r\n", ConnectionError, "not HTTP"),
        (b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", ConnectionResetError, "closes connections"),
        (b"x" * (HEAD_BYTES_MAX + 1), ConnectionError, "not HTTP"),
    ],
    ids=["refusal", "another protocol", "no status", "connection that closes", "endless head"],
)
def test_loop_ends_with_the_reason(answer: bytes, kind: type[Exception], reason: str) -> None:
    """And its connection is closed."""
    parts = (answer[begin : begin + 30_000] for begin in range(0, len(answer), 30_000))
    _, sent, error = asyncio.run(loop_over(parts))
    assert isinstance(error, kind)
    assert reason in str(error)
    assert sent.is_closed


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("frame", [bytes, chunked], ids=["plain", "in chunks"])
@given(places=st.sets(st.integers(0, 400), max_size=12))
def test_events_in_any_pieces_are_passed_on_once(
    frame: Callable[[bytes], bytes], line_end: bytes, places: set[int]
) -> None:
    """The text of two events, each with the offset after it."""
    head = HEAD + (b"Transfer-Encoding: chunked\r\n\r\n" if frame is chunked else b"\r\n")
    events = (EVENT + EVENT.replace(b'"7"', b'"14"')).replace(b"\n", line_end)
    reader, texts = asyncio.run(follow(pieces(head + frame(events), places)))
    assert (texts, reader.next_offset, reader.is_ready.is_set()) == ([b"one\ntwo"] * 2, "14", True)
    assert not reader.done.done()


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", RequestRefused, "503"),
        (b"hello\r\n\r\n", ConnectionError, "not HTTP"),
        (b"x" * (HEAD_BYTES_MAX + 1), ConnectionError, "not HTTP"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nno chunk\r\n", ConnectionError, "no chunks"),
    ],
    ids=["refusal", "another protocol", "endless head", "no chunks"],
)
def test_reader_ends_with_the_reason(answer: bytes, kind: type[Exception], reason: str) -> None:
    """Nothing is passed on."""
    reader, texts = asyncio.run(follow(iter([answer])))
    error = reader.done.exception()
    assert isinstance(error, kind)
    assert reason in str(error)
    assert not texts


def test_end_of_an_answer_is_in_order_and_an_end_before_it_is_not() -> None:
    """Servers end event streams now and then."""

    async def end(answer: bytes) -> BaseException | None:
        reader, _ = await follow(iter([answer]))
        reader.connection_lost(None)
        return reader.done.exception()

    assert asyncio.run(end(HEAD + b"\r\n" + EVENT)) is None
    assert isinstance(asyncio.run(end(HEAD)), ConnectionResetError)
