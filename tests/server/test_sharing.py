"""What readers of one stream share."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from fluvial.access.authorizer import OPEN
from fluvial.access.throttle import Throttle
from fluvial.model.commit import Applied
from fluvial.model.errors import StoreUnavailable
from fluvial.server import live_reads
from fluvial.server.asgi_send import SLICE_BYTES, TRAILING_BYTES_MAX, send_parts
from fluvial.server.live_reads import LiveLimits, LiveReadRequest, LiveReads
from fluvial.storage.memory import MemoryStore
from fluvial.wire.sse import data_events
from tests.support.clocks import FixedClock
from tests.support.commands import NAME, append_commit, close_commit, create_commit

START = {"type": "http.response.start", "status": 200, "headers": []}
READERS = 50


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How large each data event was that has been encoded."""
    seen = list[int]()

    def counting(content_type: str, stored: bytes, token: str) -> bytes:
        seen.append(len(stored))
        return data_events(content_type, stored, token)

    monkeypatch.setattr(live_reads, "data_events", counting)
    return seen


async def followed(reads: LiveReads, store: MemoryStore, cursor_of: Callable[[int], int | None], data: bytes) -> Any:  # noqa: ANN401
    """What many readers, each with a cursor of its own, are sent of a stream that gets a batch and is closed."""
    outcome = await store.apply(NAME, create_commit())
    assert isinstance(outcome, Applied)
    assert outcome.head is not None
    sent: list[list[bytes]] = [[] for _ in range(READERS)]

    async def receive() -> dict[str, Any]:
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    async def read(number: int, head: Any) -> None:  # noqa: ANN401  a head
        async def send(message: Any) -> None:  # noqa: ANN401  ASGI's own
            sent[number].append(bytes(message.get("body", b"")))
            await asyncio.sleep(0)

        await reads.send_events(LiveReadRequest(NAME, head, 0, cursor_of(number), OPEN), receive, send, START)

    readers = [asyncio.create_task(read(number, outcome.head)) for number in range(READERS)]
    while reads.count < READERS:  # noqa: ASYNC110  a turn of the loop at a time
        await asyncio.sleep(0)
    await store.apply(NAME, append_commit(data))
    await store.apply(NAME, close_commit())
    await asyncio.gather(*readers)
    return sent


@pytest.mark.parametrize("size", [100, 100_000, 3_000_000])
async def test_an_event_is_encoded_once_whatever_its_readers_cursors(encodings: list[int], size: int) -> None:
    """However large it is, and although each reader that comes back has another cursor."""
    store, still = MemoryStore(), FixedClock()
    reads = LiveReads(store, still.clock(), LiveLimits(1, 60, 1_000), Throttle(store.projects, still.clock()))
    sent = await followed(reads, store, lambda number: 10**9 + number, b"z" * size)
    assert sum(encodings) == size
    assert all(b"".join(parts).count(b"z") == size for parts in sent)
    assert all(len(part) <= SLICE_BYTES + TRAILING_BYTES_MAX for parts in sent for part in parts)
    assert len({b"".join(parts) for parts in sent}) > 1, "the cursors are each reader's own"


async def test_a_read_that_is_stopped_before_it_starts_is_told_to_come_back() -> None:
    """A 503, as nothing was answered yet."""
    store, still = MemoryStore(), FixedClock()
    reads = LiveReads(store, still.clock(), LiveLimits(1, 60, 1_000), Throttle(store.projects, still.clock()))
    outcome = await store.apply(NAME, create_commit())
    assert outcome.head is not None
    sent = list[Any]()

    async def hanging(*_: object) -> Any:  # noqa: ANN401
        reads.stop()
        await asyncio.get_running_loop().create_future()

    async def receive() -> dict[str, Any]:
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    async def send(message: Any) -> None:  # noqa: ANN401  ASGI's own
        sent.append(message)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(LiveReads, "first_page", hanging)
        with pytest.raises(StoreUnavailable):
            await reads.send_events(LiveReadRequest(NAME, outcome.head, 0, None, OPEN), receive, send, START)
    assert sent == []
    assert reads.count == 0


async def test_what_is_small_leaves_with_what_comes_before_it() -> None:
    """A reader that has a data event has its control event, too, however the answer ends."""
    sent = list[bytes]()

    async def send(message: Any) -> None:  # noqa: ANN401  ASGI's own
        sent.append(bytes(message["body"]))

    await send_parts(send, (b"d" * (2 * SLICE_BYTES), b"control"))
    assert [len(one) for one in sent] == [SLICE_BYTES, SLICE_BYTES + len(b"control")]
    assert sent[-1].endswith(b"dcontrol")
