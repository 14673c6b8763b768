"""Reads pages from the store. Concurrent reads of the same page share one read of the store.

Rules:
1. Only concurrent reads share: a page is not cached here.
2. The first reader reads in its own task, without a task for the store, because most reads are not shared.
3. So the first reader may be cancelled before the store has answered. Then one of the readers that wait for it reads in
   its place.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from fluvial.model.head import Head, Incarnation
from fluvial.model.names import StreamName
from fluvial.model.page import Page
from fluvial.storage.contract import Store

#: A page is determined by the incarnation, its start, its maximal length, and the tail that it ends at or before.
_PageKey = tuple[Incarnation, int, int, int]


@dataclass(frozen=True, slots=True)
class _Failed:
    """The store has raised an error."""

    error: Exception


@dataclass(frozen=True, slots=True)
class _Cancelled:
    """The reader was cancelled before the store had answered."""


_Result = Page | _Failed | _Cancelled

_CANCELLED: Final = _Cancelled()


class PageReads:
    """The reads of one store that are in progress; at most one for each request."""

    def __init__(self, store: Store) -> None:
        """`store` is read by the tasks that call `at`."""
        self._store = store
        self._in_progress: dict[_PageKey, asyncio.Future[_Result]] = {}

    async def at(self, name: StreamName, head: Head, position: int, byte_count_max: int) -> Page:
        """The page from the batch that contains `position`; empty at the tail. Raises StreamVanished, StoreError."""
        if position == head.tail:
            return Page(position, position, b"")
        key = (head.incarnation, position, byte_count_max, head.tail)
        while (first_read := self._in_progress.get(key)) is not None:
            match await asyncio.shield(first_read):
                case Page() as page:
                    return page
                case _Failed(error):
                    raise error
                case _Cancelled():
                    pass  # look again: the waiting reader that runs first reads in its place, the others wait for it
        return await self._read(key, name, head)

    async def _read(self, key: _PageKey, name: StreamName, head: Head) -> Page:
        _, position, byte_count_max, _ = key
        reading = self._in_progress[key] = asyncio.get_running_loop().create_future()
        result: _Result = _CANCELLED
        try:
            result = page = await self._store.read(name, head, position, byte_count_max)
        except Exception as exc:
            result = _Failed(exc)
            raise
        finally:
            del self._in_progress[key]
            reading.set_result(result)
        return page
