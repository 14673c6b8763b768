"""The line producer: epochs that count lines, and processes that are killed at any request."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluvial.client import streams
from fluvial.client.connection import Answer, Connection
from fluvial.client.errors import ServerRefused, ServerUnreachable
from fluvial.client.producer import (
    BATCH_LINES_MAX,
    CLOSING,
    LINES_PER_EPOCH,
    OPENING,
    LineProducer,
    ProducerTaken,
    epoch_of,
    lines_through,
)
from fluvial.client.streams import NewStream
from tests.support.servers import server_in_thread

#: For a new stream in each example.
NUMBERS = itertools.count()

LINES = [b"%d\n" % number for number in range(40)]


@pytest.fixture(scope="module")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An open server with streams in memory."""
    with server_in_thread(tmp_path_factory.mktemp("data"), "--store", "memory") as server:
        yield server.url


@dataclass
class Killed(Exception):
    """The process of a producer ends."""


class DyingConnection(Connection):
    """Ends the process at one of its appends, before the server has the request or after it."""

    def __init__(self, url: str, appends_left: int, *, arrives: bool) -> None:
        """`appends_left` appends are answered; `arrives` tells whether the server gets the next one."""
        super().__init__(url)
        self.appends_left = appends_left
        self.arrives = arrives

    def request_stream(self, method: str, name: str, **parts: Any) -> Answer:  # noqa: ANN401
        """Count the appends."""
        if method == "POST":
            self.appends_left -= 1
            if self.appends_left < 0:
                if self.arrives:
                    super().request_stream(method, name, **parts)
                raise Killed
        return super().request_stream(method, name, **parts)


def line_at(lines: Sequence[bytes]) -> Callable[[int], bytes | None]:
    """The lines by the number of lines before them."""
    return lambda index: lines[index] if index < len(lines) else None


def append_all(connection: Connection, name: str, size: int) -> None:
    """Append all lines in batches of a size, and close the stream, as a new process does."""
    producer = LineProducer(connection, name, "p", "text/plain")
    try:
        producer.open(line_at(LINES))
    except ServerRefused as exc:
        assert exc.is_closed  # noqa: PT017  other refusals fail, too
        producer.line_count = len(LINES)
    while producer.line_count < len(LINES):
        batch = LINES[producer.line_count : producer.line_count + size]
        producer.append(b"".join(batch), len(batch))
    producer.close()


@pytest.mark.medium
@settings(max_examples=25, deadline=None)
@given(deaths=st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.integers(1, 9)), max_size=8))
def test_every_line_is_there_once_after_any_deaths(server_url: str, deaths: list[tuple[int, bool, int]]) -> None:
    """Each process dies at an append, which has arrived or not; batches have other sizes in each process."""
    with Connection(server_url) as connection:
        name = f"deaths/{next(NUMBERS)}"
        streams.create(connection, name, NewStream("text/plain"))
        for count, arrives, size in deaths:
            with DyingConnection(server_url, count, arrives=arrives) as dying:
                try:
                    append_all(dying, name, size)
                except Killed:
                    continue
                break
        else:
            append_all(connection, name, 7)
        assert streams.read_page(connection, name, "-1").body == b"".join(LINES)


def test_late_batch_of_a_process_before_is_refused(server_url: str) -> None:
    """The next process begins with an epoch above those of all batches."""
    with Connection(server_url) as connection:
        streams.create(connection, "late", NewStream("text/plain"))
        first, second = (LineProducer(connection, "late", "p", "text/plain") for _ in range(2))
        first.open(line_at(LINES))
        assert second.open(line_at(LINES)) == 1
        with pytest.raises(ProducerTaken, match="another process"):
            first.append(b"late", 1)
        second.append(b"".join(LINES[2:]), len(LINES) - 2)
        assert streams.read_page(connection, "late", "-1").body == b"".join(LINES)


@pytest.mark.parametrize("stamps", [[(0, 0)], [(0, 0), (0, 1)], [(0, 0), (7, 0)], [(OPENING + 1, 0)]], ids=str)
def test_producer_of_another_program_is_not_taken_over(server_url: str, stamps: list[tuple[int, int]]) -> None:
    """Its epochs are small, or none of a batch. Its next append is carried out as if nothing had been."""
    with Connection(server_url) as connection:
        name = f"other/{next(NUMBERS)}"
        streams.create(connection, name, NewStream("text/plain"))
        for epoch, seq in stamps:
            streams.append(connection, name, b"x", content_type="text/plain", stamp=streams.Stamp("p", epoch, seq))
        with pytest.raises(ProducerTaken, match="another program"):
            LineProducer(connection, name, "p", "text/plain").open(line_at(LINES))
        epoch, seq = stamps[-1]
        following = streams.Stamp("p", epoch, seq + 1)
        assert streams.append(connection, name, b"x", content_type="text/plain", stamp=following).is_new
        assert streams.read_page(connection, name, "-1").body == b"x" * (len(stamps) + 1)


def test_last_epoch_is_found_without_an_append(server_url: str) -> None:
    """Before and after the producer's first line."""
    with Connection(server_url) as connection:
        streams.create(connection, "known", NewStream("text/plain"))
        producer = LineProducer(connection, "known", "p", "text/plain")
        assert producer.find_epoch() is None
        producer.open(line_at(LINES))
        assert producer.find_epoch() == OPENING
        assert streams.read_page(connection, "known", "-1").body == LINES[0]


@given(before=st.integers(1, 10**9), kind=st.integers(1, BATCH_LINES_MAX))
def test_epoch_tells_the_lines_up_to_its_end(before: int, kind: int) -> None:
    """For batches, openings and closings; a later batch has a higher epoch."""
    assert lines_through(epoch_of(before, kind)) == before + kind
    assert lines_through(epoch_of(before, OPENING)) == before + 1
    assert lines_through(epoch_of(before, CLOSING)) == before
    assert epoch_of(before, OPENING) < epoch_of(before + 1, 1)
    assert BATCH_LINES_MAX < CLOSING < OPENING < LINES_PER_EPOCH


def test_unreachable_server_may_not_have_the_request() -> None:
    """A refused connection has carried nothing."""
    with Connection("http://127.0.0.1:1") as connection, pytest.raises(ServerUnreachable) as caught:
        connection.request("GET", "/health")
    assert not caught.value.may_have_arrived
