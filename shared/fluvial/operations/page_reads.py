"""Paging: the pages that reads get. Reads of the same page that are under way at the same time are one."""

import asyncio

from fluvial.model.head import Head, Incarnation
from fluvial.model.names import StreamName
from fluvial.model.page import Page
from fluvial.storage.contract import Store

#: A page is the same as long as the life, its beginning, its longest length and the tail that it ends at are.
_PageKey = tuple[Incarnation, int, int, int]

#: What a read came to: its page, its error, or neither, when whoever asked the store has gone before it answered.
_Answer = Page | Exception | None


class PageReads:
    """The pages of one store. There are no more reads under way than requests."""

    def __init__(self, store: Store) -> None:
        """Nothing is being read yet."""
        self._store = store
        self._asked: dict[_PageKey, asyncio.Future[_Answer]] = {}

    async def at(self, name: StreamName, head: Head, position: int, byte_count_max: int) -> Page:
        """The page from the batch that has `position` on, empty at the tail. Raises StreamVanished, StoreError."""
        if position == head.tail:
            return Page(position, position, b"")
        key = (head.incarnation, position, byte_count_max, head.tail)
        while (asked := self._asked.get(key)) is not None:
            answer = await asyncio.shield(asked)
            if isinstance(answer, Exception):
                raise answer
            if answer is not None:
                return answer
        return await self._read(key, name, head)

    async def _read(self, key: _PageKey, name: StreamName, head: Head) -> Page:
        _, position, byte_count_max, _ = key
        asked = self._asked[key] = asyncio.get_running_loop().create_future()
        answer: _Answer = None
        try:
            answer = page = await self._store.read(name, head, position, byte_count_max)
        except Exception as exc:
            answer = exc
            raise
        finally:
            del self._asked[key]
            asked.set_result(answer)
        return page
