"""Pages: reads of the same bytes at the same time are one."""

import asyncio
from typing import cast

import pytest

from fluvial.model.errors import StoreUnavailable, StreamVanished
from fluvial.model.head import Head, Incarnation
from fluvial.model.names import StreamName
from fluvial.model.page import Page
from fluvial.operations.page_reads import PageReads
from fluvial.storage.contract import Store
from tests.support.commands import NAME, head

HEAD = head(tail=10)


class SlowStore:
    """Answers a read when it is told to."""

    def __init__(self) -> None:
        """Nothing was asked."""
        self.reads = list[tuple[Incarnation, int, int]]()
        self.answers = asyncio.Event()
        self.error: Exception | None = None

    async def read(self, _name: StreamName, of: Head, start: int, _byte_count_max: int) -> Page:
        """See Store.read."""
        self.reads.append((of.incarnation, start, of.tail))
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        return Page(start, of.tail, b"x" * (of.tail - start))


def pages_of(store: SlowStore) -> PageReads:
    """The store's pages."""
    return PageReads(cast("Store", store))


async def test_a_hundred_readers_of_one_page_are_one_read() -> None:
    """And those who come after it was read are another one."""
    store = SlowStore()
    pages = pages_of(store)
    readers = [asyncio.ensure_future(pages.at(NAME, HEAD, 0, 100)) for _ in range(100)]
    await asyncio.sleep(0)
    store.answers.set()
    assert {page.data for page in await asyncio.gather(*readers)} == {b"x" * 10}
    assert len(store.reads) == 1
    await pages.at(NAME, HEAD, 0, 100)
    assert len(store.reads) == 2
    assert not pages._asked


async def test_what_may_differ_is_read_by_itself() -> None:
    """Another offset, another tail, another life, another longest page; the tail is not read at all."""
    store = SlowStore()
    pages = pages_of(store)
    wanted = [(HEAD, 0, 100), (HEAD, 5, 100), (HEAD, 0, 50), (head(tail=11), 0, 100)]
    wanted.append((head(incarnation=Incarnation(2), tail=10), 0, 100))
    readers = [asyncio.ensure_future(pages.at(NAME, *one)) for one in wanted]
    assert (await pages.at(NAME, HEAD, 10, 100)).data == b""
    store.answers.set()
    await asyncio.gather(*readers)
    assert len(store.reads) == len(wanted)


@pytest.mark.parametrize(
    ("error", "told"),
    [(StreamVanished(), StreamVanished), (StoreUnavailable(), StoreUnavailable)],
    ids=["vanished", "unavailable"],
)
async def test_all_are_told_what_went_wrong(error: Exception, told: type[Exception]) -> None:
    """And the next one asks again."""
    store = SlowStore()
    store.error = error
    pages = pages_of(store)
    readers = [asyncio.ensure_future(pages.at(NAME, HEAD, 0, 100)) for _ in range(5)]
    await asyncio.sleep(0)
    store.answers.set()
    answers = await asyncio.gather(*readers, return_exceptions=True)
    assert all(isinstance(answer, told) for answer in answers)
    store.error = None
    assert (await pages.at(NAME, HEAD, 0, 100)).end == 10


async def test_when_the_one_who_asked_gives_up_another_asks() -> None:
    """Nobody who still waits goes without."""
    store = SlowStore()
    pages = pages_of(store)
    readers = [asyncio.ensure_future(pages.at(NAME, HEAD, 0, 100)) for _ in range(5)]
    await asyncio.sleep(0)
    for gone in readers[:2]:
        gone.cancel()
        await asyncio.sleep(0)
    store.answers.set()
    answers = await asyncio.gather(*readers, return_exceptions=True)
    assert [isinstance(answer, asyncio.CancelledError) for answer in answers] == [True, True, False, False, False]
    assert len(store.reads) < len(readers)
