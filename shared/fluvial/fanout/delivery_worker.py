"""The delivery worker: background deliveries of a server process.

- It is the server's backlog: publishers put sources into it, and it delivers to all of their followers.
- Where the store has an index of undelivered sources, the worker works off the index: what a killed process has not
  delivered is found at the next start. Elsewhere it works from memory, and a change feed delivers what is lost with it.
- A source with an undelivered follower rests for REST_S, so that it does not take the time of the others.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from cachetools import LRUCache, TTLCache

from fluvial.concurrency import map_bounded
from fluvial.fanout.deliveries import Deliveries
from fluvial.fanout.replication import Source
from fluvial.model.errors import StoreError
from fluvial.model.names import StreamName
from fluvial.model.plan import plan_mark_delivered
from fluvial.storage.contract import Store

log = logging.getLogger(__name__)

#: How often the worker looks for undelivered sources.
LOOK_INTERVAL_S: Final = 5.0

#: How often complete sources are marked in the store; one that is not marked yet is looked at again after a restart.
MARK_INTERVAL_S: Final = 0.25

SOURCES_PER_LOOK: Final = 64
SOURCES_AT_ONCE: Final = 8

#: How long a source rests one of whose followers is undelivered.
REST_S: Final = 15.0
RESTING_MAX: Final = 10_000

#: Undelivered sources that are remembered where the store has no index of them.
REMEMBERED_MAX: Final = 100_000

#: Complete sources that wait to be marked; more are marked at once.
UNMARKED_MAX: Final = 10_000


#: See UndeliveredIndex.undelivered.
ListUndelivered = Callable[[str, int], Awaitable[list[StreamName]]]


class DeliveryWorker:
    """The backlog of a server process, worked off by two background tasks."""

    def __init__(self, store: Store, deliveries: Deliveries, list_undelivered: ListUndelivered | None) -> None:
        """`list_undelivered` is the store's own, if it has one. No task runs before `start`."""
        self._store, self._deliveries = store, deliveries
        self._remembered: LRUCache[StreamName, int] = LRUCache(REMEMBERED_MAX)  # the tail up to which to deliver
        self._list_undelivered = list_undelivered or self._list_remembered
        self._has_work = asyncio.Event()
        self._is_stopping = asyncio.Event()
        self._unmarked: dict[StreamName, Source] = {}
        self._resting: TTLCache[StreamName, bool] = TTLCache(RESTING_MAX, REST_S)
        self._tasks = list[asyncio.Task[None]]()
        self.behind_count = 0  # sources with an undelivered follower, at the last look

    async def put(self, source: Source) -> None:
        """See Backlog.put."""
        self._remembered[source.name] = max(source.head.tail, self._remembered.get(source.name, 0))
        self._has_work.set()

    async def mark_delivered(self, source: Source) -> None:
        """See Backlog.mark_delivered: many marks of one source become one commit."""
        if self._remembered.get(source.name, 0) <= source.head.tail:
            self._remembered.pop(source.name, None)
        self._unmarked[source.name] = source
        if len(self._unmarked) > UNMARKED_MAX:
            await self._write_marks()

    def start(self) -> None:
        """Start the tasks; they begin with what the last process left undelivered."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._work(), name="deliveries"),
            loop.create_task(self._keep_writing_marks(), name="delivery marks"),
        ]

    async def stop(self) -> None:
        """Finish the round at hand and write the marks; the next process finds the rest."""
        self._is_stopping.set()
        self._has_work.set()
        await asyncio.gather(*self._tasks)
        await self._write_marks()  # of the round that ended last

    async def _work(self) -> None:
        while not self._is_stopping.is_set():
            self._has_work.clear()
            try:
                await self._look()
            except Exception:  # an unforeseen error ends this look; the next one may do better
                log.exception("deliveries_failed")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._has_work.wait(), LOOK_INTERVAL_S)

    async def _look(self) -> None:
        """Look at all undelivered sources, page by page."""
        after, behind_count = "", 0
        while not self._is_stopping.is_set():
            await self._write_marks()
            names = await self._list_undelivered(after, SOURCES_PER_LOOK)
            due = [name for name in names if name not in self._resting]
            completed = await map_bounded(due, self._catch_up, SOURCES_AT_ONCE)
            behind_count += len(names) - sum(completed)
            if len(names) < SOURCES_PER_LOOK:
                self.behind_count = behind_count
                return
            after = names[-1]

    async def _list_remembered(self, after: str, count_max: int) -> list[StreamName]:
        return sorted(name for name in self._remembered if name > after)[:count_max]

    async def _catch_up(self, name: StreamName) -> bool:
        """Deliver to all followers of a source; one that is not complete then rests. Raises nothing."""
        try:
            is_complete = await self._deliver(name)
        except StoreError as exc:
            log.warning("deliveries_failed", extra={"stream": name, "reason": str(exc.__cause__ or exc)})
            is_complete = False
        except Exception:  # an unforeseen error of one source does not keep the others waiting
            log.exception("deliveries_failed", extra={"stream": name})
            is_complete = False
        if not is_complete:
            self._resting[name] = True
        return is_complete

    async def _deliver(self, name: StreamName) -> bool:
        """Deliver to all followers of a source; whether it is complete. Raises StoreError."""
        head = await self._store.head(name)
        if head is None or head.delivered is None:
            self._remembered.pop(name, None)
            return True
        source = Source(name, head)
        if await self._deliveries.deliver_to_all(source):
            return False
        await self.mark_delivered(source)
        return True

    async def _keep_writing_marks(self) -> None:
        while not self._is_stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_stopping.wait(), MARK_INTERVAL_S)
            await self._write_marks()

    async def _write_marks(self) -> None:
        marked, self._unmarked = self._unmarked, {}
        writes = (self._store.apply(name, plan_mark_delivered(source.head)) for name, source in marked.items())
        for outcome in await asyncio.gather(*writes, return_exceptions=True):
            if isinstance(outcome, Exception):
                log.warning("delivery_not_noted", extra={"reason": str(outcome.__cause__ or outcome)})
