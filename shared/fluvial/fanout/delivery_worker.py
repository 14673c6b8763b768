"""Working: the deliveries that no publisher waits for, in a process that lasts.

What is to be done is in the heads themselves, so whatever a kill leaves undone is found again at the next start.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from cachetools import LRUCache, TTLCache

from fluvial.fanout.publisher import Publisher
from fluvial.fanout.replication import Source
from fluvial.model.errors import StoreError
from fluvial.model.names import StreamName
from fluvial.model.plan import plan_mark_delivered
from fluvial.storage.contract import Store

log = logging.getLogger(__name__)

#: How often streams are looked for whose followers lack something.
LOOK_INTERVAL_S: Final = 5.0

#: How often it is noted that all followers have everything; what is not noted is looked at again after a restart.
NOTE_INTERVAL_S: Final = 0.25

SOURCES_PER_LOOK: Final = 64
SOURCES_AT_ONCE: Final = 8

#: A source one of whose followers could not be filled rests for so long.
REST_S: Final = 15.0
RESTING_MAX: Final = 10_000

#: Sources that are due where the store does not tell.
IN_MIND_MAX: Final = 100_000

#: Sources that wait to be noted; more are noted at once.
NOTES_MAX: Final = 10_000


#: See UndeliveredIndex.undelivered.
Undelivered = Callable[[str, int], Awaitable[list[StreamName]]]


class DeliveryWorker:
    """The backlog of a server that lasts: two background tasks.

    Where the store remembers what is due, nothing is forgotten; elsewhere this process does as long as it lives, and
    a change feed makes good what it does not.
    """

    def __init__(self, store: Store, undelivered: Undelivered | None) -> None:
        """`undelivered` is the store's own, if it has one. Nothing happens until `start`."""
        self._store = store
        self._in_mind: LRUCache[StreamName, int] = LRUCache(IN_MIND_MAX)  # up to which tail
        self._undelivered = undelivered or self._undelivered_in_mind
        self._due = asyncio.Event()
        self._is_stopping = asyncio.Event()
        self._to_note: dict[StreamName, Source] = {}
        self._resting: TTLCache[StreamName, bool] = TTLCache(RESTING_MAX, REST_S)
        self._tasks = list[asyncio.Task[None]]()

    async def put(self, source: Source) -> None:
        """See Backlog.put."""
        self._in_mind[source.name] = max(source.head.tail, self._in_mind.get(source.name, 0))
        self._due.set()

    async def done(self, source: Source) -> None:
        """See Backlog.done: many of one source are noted by one commit."""
        if self._in_mind.get(source.name, 0) <= source.head.tail:
            self._in_mind.pop(source.name, None)
        self._to_note[source.name] = source
        if len(self._to_note) > NOTES_MAX:
            await self._note()

    def start(self, publisher: Publisher) -> None:
        """Begin with what the last process left undone."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._work(publisher), name="deliveries"),
            loop.create_task(self._note_for_ever(), name="delivery notes"),
        ]

    async def stop(self) -> None:
        """Finish the round at hand and note what is known; the rest is found again."""
        self._is_stopping.set()
        self._due.set()
        await asyncio.gather(*self._tasks)

    async def _work(self, publisher: Publisher) -> None:
        while not self._is_stopping.is_set():
            self._due.clear()
            try:
                await self._look(publisher)
            except Exception:  # whatever it is, the next look may do better
                log.exception("deliveries_failed")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._due.wait(), LOOK_INTERVAL_S)

    async def _look(self, publisher: Publisher) -> None:
        after, slots = "", asyncio.Semaphore(SOURCES_AT_ONCE)
        while not self._is_stopping.is_set():
            await self._note()
            names = await self._undelivered(after, SOURCES_PER_LOOK)
            due = [name for name in names if name not in self._resting]
            await asyncio.gather(*(self._caught_up(publisher, name, slots) for name in due))
            if len(names) < SOURCES_PER_LOOK:
                return
            after = names[-1]

    async def _undelivered_in_mind(self, after: str, count_max: int) -> list[StreamName]:
        return sorted(name for name in self._in_mind if name > after)[:count_max]

    async def _caught_up(self, publisher: Publisher, name: StreamName, slots: asyncio.Semaphore) -> None:
        async with slots:
            try:
                head = await self._store.head(name)
                if head is None or head.delivered is None:
                    self._in_mind.pop(name, None)
                    return
                is_complete = not await publisher.deliver_to_all(Source(name, head))
            except StoreError as exc:
                log.warning("deliveries_failed", extra={"stream": name, "reason": str(exc.__cause__ or exc)})
                is_complete = False
            except Exception:  # whatever is wrong with one source, the others have their turn
                log.exception("deliveries_failed", extra={"stream": name})
                is_complete = False
        if not is_complete:
            self._resting[name] = True

    async def _note_for_ever(self) -> None:
        while not self._is_stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_stopping.wait(), NOTE_INTERVAL_S)
            await self._note()

    async def _note(self) -> None:
        noted, self._to_note = self._to_note, {}
        applied = (self._store.apply(name, plan_mark_delivered(source.head)) for name, source in noted.items())
        for outcome in await asyncio.gather(*applied, return_exceptions=True):
            if isinstance(outcome, Exception):
                log.warning("delivery_not_noted", extra={"reason": str(outcome.__cause__ or outcome)})
