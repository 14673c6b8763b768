"""Polling: one reader of the head for all who wait for a stream in this process."""

import asyncio
import logging
from typing import Final

from fluvial.core.errors import StoreError
from fluvial.core.head import Head
from fluvial.core.names import StreamName
from fluvial.stores.dynamodb.keys import head_key
from fluvial.stores.dynamodb.recent import Recent
from fluvial.stores.dynamodb.table import Table
from fluvial.stores.waiters import Waiters, has_news

log = logging.getLogger(__name__)

#: A stream that has just had news is looked at this often, one that has long had none this often; an eventually
#: consistent read of a small head is half a read unit.
INTERVAL_S_MIN: Final = 0.05
INTERVAL_S_MAX: Final = 0.5
INTERVAL_GROWTH: Final = 1.3


class Poller:
    """Watches every stream that somebody waits for."""

    def __init__(self, table: Table, recent: Recent, waiters: Waiters) -> None:
        """Nothing is watched."""
        self._table, self._recent, self._waiters = table, recent, waiters
        self._tasks: dict[StreamName, asyncio.Task[None]] = {}

    async def head(self, name: StreamName) -> Head | None:
        """The head as it is now. Raises StoreUnavailable."""
        return self._recent.note(name, await self._table.get(head_key(name))).head

    async def wait(self, name: StreamName, seen: Head, timeout_s: float) -> Head | None:
        """See Store.wait."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + timeout_s
        head = await self.head(name)
        while not has_news(head, seen) and (rest_s := ends_at - loop.time()) > 0:
            self._watch(name, seen)
            try:
                head = await self._waiters.wait(name, rest_s)
            except TimeoutError:
                return await self.head(name)
        return head

    async def close(self) -> None:
        """Watch nothing any more."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _watch(self, name: StreamName, seen: Head) -> None:
        if name not in self._tasks:
            task = asyncio.get_running_loop().create_task(self._poll(name, seen), name=f"poll {name}")
            self._tasks[name] = task
            task.add_done_callback(lambda _: self._tasks.pop(name, None))

    async def _poll(self, name: StreamName, last: Head) -> None:
        interval_s = INTERVAL_S_MIN
        await asyncio.sleep(interval_s)
        while self._waiters.waits_for(name):
            try:
                head = await self._news(name, last)
            except StoreError as exc:
                log.warning("poll_failed", extra={"stream": name, "reason": str(exc.__cause__)})
                interval_s = INTERVAL_S_MAX
                head = last
            if has_news(head, last):
                self._waiters.wake(name, head)
                interval_s = INTERVAL_S_MIN
                if head is None:
                    return
                last = head
            else:
                interval_s = min(INTERVAL_S_MAX, interval_s * INTERVAL_GROWTH)
            await asyncio.sleep(interval_s)

    async def _news(self, name: StreamName, last: Head) -> Head | None:
        """The head, at most a little old, never older than `last`."""
        head = self._recent.note(name, await self._table.get(head_key(name), consistent=False)).head
        if head is None or head.incarnation != last.incarnation or head.soft_deleted:
            return await self.head(name)  # the end of a life must not be told by a replica that is behind
        return last if head.tail < last.tail else head
