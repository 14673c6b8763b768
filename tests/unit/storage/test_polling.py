"""One poller for all who wait: nobody misses news, however reads overtake each other."""

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from fluvial.model.head import Head, Incarnation
from fluvial.model.names import StreamName
from fluvial.storage.dynamodb.reads.head_poller import Poller
from fluvial.storage.dynamodb.table.head_cache import HeadCache
from fluvial.storage.dynamodb.table.items import HeadItem, encode_head_item
from fluvial.storage.notifier import HeadNotifier
from tests.support.commands import NAME, head

NINE, TEN = head(tail=9), head(tail=10)
LONG_S = 60


class HeadTable:
    """A table with one head, of which a consistent read may be slow."""

    def __init__(self) -> None:
        """At position 9."""
        self.now = NINE
        self.slow: asyncio.Event | None = None

    async def get(self, _key: object, *, consistent: bool = True) -> dict[str, Any]:
        """The head as it was when the read began."""
        seen, slow = self.now, self.slow
        if consistent and slow is not None:
            self.slow = None
            await slow.wait()
        return encode_head_item(NAME, HeadItem(seen, 0, base=seen.tail))


class WatchfulWaiters(HeadNotifier):
    """Tells when a poller has found that nobody waits."""

    def __init__(self) -> None:
        """Nobody waits yet."""
        super().__init__()
        self.found_none = asyncio.Event()

    def has_waiters(self, name: StreamName) -> bool:
        """Whether anybody waits."""
        waits = super().has_waiters(name)
        if not waits:
            self.found_none.set()
        return waits


async def test_waiter_is_notified_when_its_read_was_overtaken() -> None:
    """The poller has told the others already, and looks no more for what it knows."""
    table, waiters = HeadTable(), HeadNotifier()
    poller = Poller(table, HeadCache(table), waiters)  # type: ignore[arg-type]
    first = asyncio.create_task(poller.wait(NAME, NINE, LONG_S))
    await _until_waiting(waiters, 1)
    table.slow = overtaken = asyncio.Event()
    second = asyncio.create_task(poller.wait(NAME, NINE, LONG_S))
    while table.slow is not None:  # noqa: ASYNC110  a turn of the loop at a time
        await asyncio.sleep(0)
    table.now = TEN
    assert await first == TEN
    third = asyncio.create_task(poller.wait(NAME, TEN, LONG_S))
    await _until_waiting(waiters, 1)
    overtaken.set()
    assert await asyncio.wait_for(second, 5) == TEN
    third.cancel()
    await poller.close()


async def test_poller_behind_a_waiter_catches_up() -> None:
    """And then tells it what is new to it."""
    table, waiters = HeadTable(), HeadNotifier()
    poller = Poller(table, HeadCache(table), waiters)  # type: ignore[arg-type]
    first = asyncio.create_task(poller.wait(NAME, NINE, LONG_S))
    await _until_waiting(waiters, 1)
    table.now = TEN
    second = asyncio.create_task(poller.wait(NAME, TEN, LONG_S))
    assert await asyncio.wait_for(first, 5) == TEN
    eleven: Head = replace(TEN, tail=11)
    table.now = eleven
    assert await asyncio.wait_for(second, 5) == eleven
    await poller.close()


async def test_overtaken_answer_does_not_notify_a_waiter() -> None:
    """Heads of an earlier append or incarnation, and the end of an earlier incarnation, are older than `seen`."""
    table, waiters = HeadTable(), HeadNotifier()
    table.now = replace(TEN, incarnation=Incarnation(2), born_us=2)
    poller = Poller(table, HeadCache(table), waiters)  # type: ignore[arg-type]
    waiting = asyncio.create_task(poller.wait(NAME, table.now, LONG_S))
    for older in (replace(table.now, tail=9), None, replace(TEN, tail=100, born_us=1)):
        await _until_waiting(waiters, 1)
        waiters.notify(NAME, older)
    await _until_waiting(waiters, 1)
    assert not waiting.done()
    newer: Head = replace(table.now, tail=11)
    waiters.notify(NAME, newer)
    assert await asyncio.wait_for(waiting, 5) == newer
    await poller.close()


class LateWaiters(HeadNotifier):
    """Tells an older head, when the time to wait is over."""

    async def wait(self, name: StreamName, timeout_s: float) -> Head | None:
        """See HeadNotifier.wait."""
        with pytest.raises(TimeoutError):
            await super().wait(name, timeout_s)
        return NINE


async def test_wait_never_returns_an_older_head() -> None:
    """A late answer to an append wakes a reader that has seen more, in the moment in which its time is over."""
    table, waiters = HeadTable(), LateWaiters()
    table.now = TEN
    poller = Poller(table, HeadCache(table), waiters)  # type: ignore[arg-type]
    assert await poller.wait(NAME, TEN, 0.001) == TEN
    await poller.close()


async def test_poller_continues_after_an_unforeseen_error(caplog: pytest.LogCaptureFixture) -> None:
    """With a traceback in the log; whoever waits is told of what comes next."""
    table, waiters = HeadTable(), HeadNotifier()
    poller = Poller(table, HeadCache(table), waiters)  # type: ignore[arg-type]
    waiting = asyncio.create_task(poller.wait(NAME, NINE, LONG_S))
    await _until_waiting(waiters, 1)
    table.now = "no head"  # type: ignore[assignment]
    while not caplog.records:  # noqa: ASYNC110  until the poller has looked
        await asyncio.sleep(0.01)
    table.now = TEN
    assert await asyncio.wait_for(waiting, 5) == TEN
    assert {(record.message, record.exc_info is not None) for record in caplog.records} == {("poll_failed", True)}
    await poller.close()


async def test_waiter_that_comes_as_the_poller_ends_starts_another() -> None:
    """In the very turn of the loop."""
    table, waiters = HeadTable(), WatchfulWaiters()
    poller = Poller(table, HeadCache(table), waiters)  # type: ignore[arg-type]
    gone = asyncio.create_task(poller.wait(NAME, NINE, LONG_S))
    await _until_waiting(waiters, 1)
    gone.cancel()
    await waiters.found_none.wait()
    waiting = asyncio.create_task(poller.wait(NAME, NINE, LONG_S))
    await _until_waiting(waiters, 1)
    table.now = TEN
    assert await asyncio.wait_for(waiting, 5) == TEN
    await poller.close()


async def test_stream_without_waiters_is_not_polled() -> None:
    """Neither the task nor its place stays."""
    table, waiters = HeadTable(), WatchfulWaiters()
    poller = Poller(table, HeadCache(table), waiters)  # type: ignore[arg-type]
    gone = asyncio.create_task(poller.wait(NAME, NINE, LONG_S))
    await _until_waiting(waiters, 1)
    gone.cancel()
    await waiters.found_none.wait()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert poller._watches == {}


async def _until_waiting(waiters: HeadNotifier, count: int) -> None:
    while waiters.count < count:  # noqa: ASYNC110  a turn of the loop at a time
        await asyncio.sleep(0)
