"""Page reads: concurrent reads of one page share one read of the store."""

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
    """Answers reads when an event is set."""

    def __init__(self) -> None:
        """`reads` lists the reads of the store."""
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
    """The page reads of a store."""
    return PageReads(cast("Store", store))


async def test_concurrent_reads_of_one_page_share_one_read_of_the_store() -> None:
    """A later read of the same page reads the store again."""
    store = SlowStore()
    pages = pages_of(store)
    readers = [asyncio.ensure_future(pages.at(NAME, HEAD, 0, 100)) for _ in range(100)]
    await asyncio.sleep(0)
    store.answers.set()
    assert {page.data for page in await asyncio.gather(*readers)} == {b"x" * 10}
    assert len(store.reads) == 1
    await pages.at(NAME, HEAD, 0, 100)
    assert len(store.reads) == 2
    assert not pages._in_progress


async def test_reads_of_different_pages_are_not_shared() -> None:
    """Another offset, tail, incarnation or maximal length; a read at the tail does not read the store."""
    store = SlowStore()
    pages = pages_of(store)
    different = [(HEAD, 0, 100), (HEAD, 5, 100), (HEAD, 0, 50), (head(tail=11), 0, 100)]
    different.append((head(incarnation=Incarnation(2), tail=10), 0, 100))
    readers = [asyncio.ensure_future(pages.at(NAME, *one)) for one in different]
    assert (await pages.at(NAME, HEAD, 10, 100)).data == b""
    store.answers.set()
    await asyncio.gather(*readers)
    assert len(store.reads) == len(different)


@pytest.mark.parametrize(
    ("error", "raised"),
    [(StreamVanished(), StreamVanished), (StoreUnavailable(), StoreUnavailable)],
    ids=["vanished", "unavailable"],
)
async def test_shared_read_that_fails_raises_the_error_for_all_readers(
    error: Exception, raised: type[Exception]
) -> None:
    """The next read asks the store again."""
    store = SlowStore()
    store.error = error
    pages = pages_of(store)
    readers = [asyncio.ensure_future(pages.at(NAME, HEAD, 0, 100)) for _ in range(5)]
    await asyncio.sleep(0)
    store.answers.set()
    answers = await asyncio.gather(*readers, return_exceptions=True)
    assert all(isinstance(answer, raised) for answer in answers)
    store.error = None
    assert (await pages.at(NAME, HEAD, 0, 100)).end == 10


async def test_cancelled_first_reader_is_replaced_by_a_waiting_one() -> None:
    """Every reader that was not cancelled gets the page."""
    store = SlowStore()
    pages = pages_of(store)
    readers = [asyncio.ensure_future(pages.at(NAME, HEAD, 0, 100)) for _ in range(5)]
    await asyncio.sleep(0)
    for cancelled in readers[:2]:
        cancelled.cancel()
        await asyncio.sleep(0)
    store.answers.set()
    answers = await asyncio.gather(*readers, return_exceptions=True)
    assert [isinstance(answer, asyncio.CancelledError) for answer in answers] == [True, True, False, False, False]
    assert len(store.reads) < len(readers)
