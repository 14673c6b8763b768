"""Polling: one task reads a stream's head for all live reads of the stream in this process."""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Final

from fluvial.model.errors import StoreError
from fluvial.model.head import Head
from fluvial.model.names import StreamName
from fluvial.storage.dynamodb.table.head_cache import HeadCache
from fluvial.storage.dynamodb.table.table import Table
from fluvial.storage.notifier import HeadNotifier, has_changed

log = logging.getLogger(__name__)

#: The interval of a stream that has just changed, and of one that has not changed for long. An eventually consistent
#: read of a small head costs half a read unit.
INTERVAL_S_MIN: Final = 0.05
INTERVAL_S_MAX: Final = 0.5
INTERVAL_GROWTH: Final = 1.3


@dataclass(slots=True)
class _Watch:
    """A stream that is polled. Every waiter has seen `last`, or has been notified since."""

    last: Head
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class Poller:
    """Polls every stream that has waiters."""

    def __init__(self, table: Table, heads: HeadCache, notifier: HeadNotifier) -> None:
        """No stream is polled yet; `notifier` has the waiters."""
        self._table, self._heads, self._notifier = table, heads, notifier
        self._watches: dict[StreamName, _Watch] = {}

    async def head(self, name: StreamName) -> Head | None:
        """The present head, by a strongly consistent read. Raises StoreUnavailable."""
        return (await self._heads.load(name)).head

    async def wait(self, name: StreamName, seen: Head, timeout_s: float) -> Head | None:
        """See Store.wait."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + timeout_s
        head = await self.head(name)
        while not has_changed(head, seen) and (remaining_s := ends_at - loop.time()) > 0:
            watch, known = self._watch(name, head or seen), self._heads.get(name)
            if has_changed(watch.last, seen) or (known is not None and has_changed(known.head, seen)):
                head = await self.head(name)  # several changes may have come since; this read has the latest
                self._notify(name, watch, head)
                continue
            try:
                notified = await self._notifier.wait(name, remaining_s)
            except TimeoutError:
                return await self.head(name)
            if notified is None or notified.incarnation != seen.incarnation:
                head = await self.head(name)  # a later incarnation may have begun since that answer was sent
            elif has_changed(notified, seen):
                head = notified
        return head

    async def close(self) -> None:
        """Stop polling."""
        tasks = [watch.task for watch in self._watches.values() if watch.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _watch(self, name: StreamName, seen: Head) -> _Watch:
        watch = self._watches.get(name)
        if watch is None or watch.task is None or watch.task.done():
            watch = self._watches[name] = _Watch(seen)
            watch.task = asyncio.get_running_loop().create_task(self._poll(name, watch), name=f"poll {name}")
            watch.task.add_done_callback(lambda _: self._forget(name, watch))
        return watch

    def _forget(self, name: StreamName, watch: _Watch) -> None:
        if self._watches.get(name) is watch:
            del self._watches[name]

    def _notify(self, name: StreamName, watch: _Watch, head: Head | None) -> bool:
        """Notify the waiters when the head has changed since `watch.last`; whether it has."""
        if not has_changed(head, watch.last):
            return False
        self._notifier.notify(name, head)
        if head is not None:
            watch.last = head
        return True

    async def _poll(self, name: StreamName, watch: _Watch) -> None:
        interval_s = INTERVAL_S_MIN
        await asyncio.sleep(interval_s)
        while self._notifier.has_waiters(name):
            try:
                head = await self._load_newer(name, watch.last)
            except StoreError as exc:
                log.warning("poll_failed", extra={"stream": name, "reason": str(exc.__cause__ or exc)})
                interval_s, head = INTERVAL_S_MAX, watch.last
            except Exception:  # the next poll may succeed
                log.exception("poll_failed", extra={"stream": name})
                interval_s, head = INTERVAL_S_MAX, watch.last
            if self._notify(name, watch, head):
                interval_s = INTERVAL_S_MIN
                if head is None:
                    return
            else:
                interval_s = min(INTERVAL_S_MAX, interval_s * INTERVAL_GROWTH)
            await asyncio.sleep(interval_s)

    async def _load_newer(self, name: StreamName, last: Head) -> Head | None:
        """The head by an eventually consistent read, but never an older one than `last`."""
        head = (await self._heads.load(name, consistent=False)).head
        if head is None or head.incarnation != last.incarnation or head.soft_deleted:
            return await self.head(name)  # a replica that is behind must not end a live read
        return last if head.tail < last.tail else head
