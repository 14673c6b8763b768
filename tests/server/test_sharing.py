"""Readers of one stream share encoded events, and an event stream is interrupted wherever it waits."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from fluvial.access.authorizer import OPEN_ACCESS
from fluvial.access.throttle import Throttle
from fluvial.model.commit import Applied
from fluvial.model.errors import StoreUnavailable
from fluvial.model.head import Head
from fluvial.operations.open_read import OpenedRead
from fluvial.server import sse
from fluvial.server.asgi_send import SLICE_BYTES, TRAILING_BYTES_MAX, send_parts
from fluvial.server.live_reads import LiveLimits, LiveReads
from fluvial.server.sse import EventStream, EventStreams
from fluvial.storage.memory import MemoryStore
from fluvial.wire.request import parse_read
from fluvial.wire.sse import data_events
from tests.support.clocks import FixedClock
from tests.support.commands import NAME, append_commit, close_commit, create_commit

READERS = 50


def event_stream(head: Head, cursor: int | None = None) -> EventStream:
    """The events of a stream from its beginning, for a client with a cursor."""
    query = parse_read(b"offset=-1&live=sse&cursor=%s" % (b"" if cursor is None else b"%d" % cursor))
    return EventStream(OpenedRead(NAME, head, 0, query, OPEN_ACCESS))


def live_reads_of(store: MemoryStore) -> LiveReads:
    """The live reads of a store."""
    clock = FixedClock().clock()
    return LiveReads(store, clock, LiveLimits(1, 60, 1_000), Throttle(store.projects, clock))


async def stay() -> dict[str, Any]:
    """The client sends nothing, and does not disconnect."""
    return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The size of each page whose data event was encoded."""
    seen = list[int]()

    def counting(content_type: str, stored: bytes, token: str) -> bytes:
        seen.append(len(stored))
        return data_events(content_type, stored, token)

    monkeypatch.setattr(sse, "data_events", counting)
    return seen


async def send_to_readers(store: MemoryStore, cursor_of: Callable[[int], int | None], data: bytes) -> list[list[bytes]]:
    """Send a stream that gets a batch and is closed to many readers, each with a cursor of its own."""
    outcome = await store.apply(NAME, create_commit())
    assert isinstance(outcome, Applied)
    assert outcome.head is not None
    live, sent = live_reads_of(store), [list[bytes]() for _ in range(READERS)]
    events = EventStreams(live)

    async def read(number: int, head: Head) -> None:
        async def send(message: Any) -> None:  # noqa: ANN401  ASGI's own
            sent[number].append(bytes(message.get("body", b"")))
            await asyncio.sleep(0)

        await events.send(event_stream(head, cursor_of(number)), stay, send, ())

    readers = [asyncio.create_task(read(number, outcome.head)) for number in range(READERS)]
    while live.count < READERS:  # noqa: ASYNC110  a turn of the loop at a time
        await asyncio.sleep(0)
    await store.apply(NAME, append_commit(data))
    await store.apply(NAME, close_commit())
    await asyncio.gather(*readers)
    return sent


@pytest.mark.parametrize("size", [100, 100_000, 3_000_000])
async def test_event_is_encoded_once_for_readers_with_different_cursors(encodings: list[int], size: int) -> None:
    """Small and large events; each reader that reconnects has another cursor."""
    sent = await send_to_readers(MemoryStore(), lambda number: 10**9 + number, b"z" * size)
    assert sum(encodings) == size
    assert all(b"".join(parts).count(b"z") == size for parts in sent)
    assert all(len(part) <= SLICE_BYTES + TRAILING_BYTES_MAX for parts in sent for part in parts)
    assert len({b"".join(parts) for parts in sent}) > 1, "each reader has its own cursor"


async def test_event_stream_that_is_stopped_before_it_begins_raises_unavailable() -> None:
    """So it is answered with 503, because nothing was sent yet."""
    store = MemoryStore()
    live = live_reads_of(store)
    outcome = await store.apply(NAME, create_commit())
    assert outcome.head is not None
    sent = list[Any]()

    async def hanging(*_: object) -> Any:  # noqa: ANN401
        live.stop()
        await asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:  # noqa: ANN401  ASGI's own
        sent.append(message)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(LiveReads, "load_first_page", hanging)
        with pytest.raises(StoreUnavailable):
            await EventStreams(live).send(event_stream(outcome.head), stay, send, ())
    assert sent == []
    assert live.count == 0


async def test_event_stream_to_a_client_that_reads_nothing_ends_when_the_server_stops() -> None:
    """It is interrupted in `send`, where flow control suspends it."""
    store = MemoryStore()
    live = live_reads_of(store)
    outcome = await store.apply(NAME, create_commit(body=b"kept"))
    assert outcome.head is not None
    sending, blocked = asyncio.Event(), asyncio.Event()

    async def send(message: Any) -> None:  # noqa: ANN401  ASGI's own
        if message.get("more_body"):
            sending.set()
            await blocked.wait()

    task = asyncio.create_task(EventStreams(live).send(event_stream(outcome.head), stay, send, ()))
    await sending.wait()
    live.stop()
    await asyncio.wait_for(task, 5)
    assert live.count == 0


async def test_cancellation_of_an_interrupted_read_is_not_lost() -> None:
    """A task that is cancelled at the moment when its read is interrupted ends as cancelled."""
    live = live_reads_of(MemoryStore())

    async def read() -> None:
        async def watch(_: object) -> None:
            await stay()

        async with live.register(NAME, OPEN_ACCESS, watch):
            await stay()
        await stay()

    task = asyncio.create_task(read())
    while live.count == 0:  # noqa: ASYNC110  a turn of the loop at a time
        await asyncio.sleep(0)
    live.stop()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    assert task.cancelled()


async def test_small_last_part_is_sent_with_the_slice_before_it() -> None:
    """A reader that has a data event has its control event, too, wherever the connection breaks."""
    sent = list[bytes]()

    async def send(message: Any) -> None:  # noqa: ANN401  ASGI's own
        sent.append(bytes(message["body"]))

    await send_parts(send, (b"d" * (2 * SLICE_BYTES), b"control"))
    assert [len(one) for one in sent] == [SLICE_BYTES, SLICE_BYTES + len(b"control")]
    assert sent[-1].endswith(b"dcontrol")
