"""The group writer: one update of the head for a group of appends, and the answer of each.

1. The group is planned on the head that was seen last (see `group_plan`). Its large batches are stored as payloads, and
   its small ones, when the head has no room for them, together as one payload. Then one UpdateItem commits them all.
2. What the update returns is a head that is not older than any append of the group. So the appends that did not fit are
   refused by it, without a request of their own; those that fit now come again.
3. When the condition fails, the group is planned again on the head that was returned.
4. When the answer is lost, the fence is raised and the group's first batch is looked for: all of the group is there, or
   nothing. Then it is sent again under the new fence.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from fluvial.clock import Clock
from fluvial.concurrency import map_bounded
from fluvial.model.commit import Outcome, Unmet, UpdateCommit, first_unmet
from fluvial.model.errors import StoreUnavailable, StoreUncertain
from fluvial.model.head import ProducerState
from fluvial.model.names import StreamName
from fluvial.storage.dynamodb.backend import Backend
from fluvial.storage.dynamodb.table.head_cache import HeadCache
from fluvial.storage.dynamodb.table.items import HeadItem, StoredBatch
from fluvial.storage.dynamodb.table.write_outcome import ConditionFailed, InDoubt, Written
from fluvial.storage.dynamodb.writes.commit_writer import TRIES_MAX
from fluvial.storage.dynamodb.writes.group_plan import (
    GROUP_PRODUCERS_MAX,
    GroupPlan,
    group_update,
    head_with_producers,
    is_unknown,
    missing_producers,
    outcomes_of,
    plan_group,
)
from fluvial.storage.dynamodb.writes.in_doubt import InDoubtResolver
from fluvial.storage.dynamodb.writes.payloads import INLINE_BYTES_MAX
from fluvial.storage.dynamodb.writes.producers import evict_producers, find_producer
from fluvial.storage.dynamodb.writes.spill import Spiller
from fluvial.storage.dynamodb.writes.updates import BUFFER_BATCHES_MAX
from fluvial.storage.notifier import HeadNotifier
from fluvial.storage.observer import UNOBSERVED, StoreObserver

log = logging.getLogger(__name__)

#: The appends of a group that are too large to share a payload: each is an element of the buffer.
GROUP_LARGE_MAX: Final = 32

#: The small batches between two large ones that the head takes as they are. More of them share a payload.
INLINE_BATCHES_MAX: Final = 6

#: Payloads that a group stores, and evicted producers that it looks up, at the same time.
REQUESTS_AT_ONCE: Final = 8

_ELEMENTS_MAX: Final = GROUP_LARGE_MAX + (GROUP_LARGE_MAX + 1) * INLINE_BATCHES_MAX
assert _ELEMENTS_MAX < BUFFER_BATCHES_MAX, "a group must fit into an empty buffer"

_Evicted = Mapping[str, ProducerState | None]


@dataclass(slots=True, eq=False)
class QueuedAppend:
    """An append that waits for its answer, and its batch once a group has stored it."""

    commit: UpdateCommit
    byte_count: int
    since_s: float
    answer: asyncio.Future[Outcome]
    batch: StoredBatch | None = None

    @property
    def is_large(self) -> bool:
        """Whether the batch has a payload of its own."""
        return self.byte_count > INLINE_BYTES_MAX

    def succeed(self, outcome: Outcome) -> None:
        """Answer, unless the call was cancelled."""
        if not self.answer.done():
            self.answer.set_result(outcome)

    def fail(self, error: BaseException) -> None:
        """Raise an error from the call, unless it has an answer."""
        if not self.answer.done():
            self.answer.set_exception(error)


@dataclass(frozen=True, slots=True)
class _Landed:
    """A group is in the stream: the head item after it, and the position where the group ends."""

    stored: HeadItem
    end: int


@dataclass(slots=True)
class _Attempt:
    """A group with its present plan. `is_fresh`: `stored` was the head at a moment since the group was taken."""

    name: StreamName
    group: list[QueuedAppend]
    stored: HeadItem
    is_fresh: bool
    began_ms: int
    first_seen: HeadItem
    elements: tuple[StoredBatch, ...] = ()
    elements_of: tuple[int, ...] = ()


class GroupWriter:
    """Writes groups of appends."""

    def __init__(  # noqa: PLR0913  the parts of a write
        self,
        backend: Backend,
        heads: HeadCache,
        *,
        spiller: Spiller,
        resolver: InDoubtResolver,
        notifier: HeadNotifier,
        clock: Clock,
        observer: StoreObserver = UNOBSERVED,
    ) -> None:
        """`resolver` finds out about groups in doubt; `notifier` is told of each group once."""
        self._table, self._payloads, self._groups = backend.table, backend.payloads, backend.groups
        self._heads, self._spiller, self._resolver = heads, spiller, resolver
        self._notifier, self._clock, self._observer = notifier, clock, observer

    async def write(self, name: StreamName, group: list[QueuedAppend]) -> list[QueuedAppend]:
        """Write a group and answer its appends; those that must be judged again, in order.

        Raises StoreUnavailable: nothing of what is not answered was written. Raises StoreUncertain.
        """
        began_s, seen = time.perf_counter(), self._heads.get(name)
        stored = seen or await self._heads.load(name)
        attempt = _Attempt(name, group, stored, seen is None, self._clock.now_ms(), stored)
        for _ in range(TRIES_MAX):
            evicted = await self._prepare_producers(attempt)
            plan = plan_group(attempt.stored, [one.commit for one in group], evicted)
            if plan.admitted:
                landed = await self._send(attempt, plan)
                if landed is None:
                    continue
                self._answer(attempt, plan, landed)
                self._observer.on_group(len(plan.admitted), time.perf_counter() - began_s)
                left = await self._refuse(attempt, landed.stored, plan)
                await self._spiller.spill_if_due(name, landed.stored, len(attempt.elements))
                return left
            if attempt.is_fresh:
                return await self._refuse(attempt, attempt.stored, plan)
            attempt.stored, attempt.is_fresh = await self._heads.load(name), True
        log.warning("group_not_written", extra={"stream": name, "tries": TRIES_MAX})
        await self._discard(attempt)
        raise StoreUnavailable

    async def _prepare_producers(self, attempt: _Attempt) -> _Evicted:
        """The states of producers that the head lacks; first make room for them, if it has none."""
        commits = [one.commit for one in attempt.group]
        missing = list(missing_producers(attempt.stored, commits))[:GROUP_PRODUCERS_MAX]
        head = attempt.stored.head
        if head is None or not missing:
            return {}
        excess = min(len(head.producers) + len(missing) - GROUP_PRODUCERS_MAX, len(head.producers))
        if excess > 0:
            after = await evict_producers(self._table, self._heads, attempt.name, attempt.stored, excess)
            if after is not None and after.head is not None:
                attempt.stored, attempt.is_fresh = after, True
                head, missing = after.head, list(missing_producers(after, commits))[:GROUP_PRODUCERS_MAX]
        if not attempt.stored.evictions:
            return {}
        find = partial(find_producer, self._table, head.incarnation)
        return dict(zip(missing, await map_bounded(missing, find, REQUESTS_AT_ONCE), strict=True))

    async def _send(self, attempt: _Attempt, plan: GroupPlan) -> _Landed | None:
        """Send the group's update; None when it must be planned again, on `attempt.stored`."""
        await self._store_batches(attempt, plan)
        outcome = await self._table.update(group_update(attempt.name, plan, attempt.elements))
        attempt.is_fresh = True
        match outcome:
            case Written(item):
                attempt.stored = self._heads.store(attempt.name, item)
                assert attempt.stored.head is not None, "the update requires that the stream exists"
                return _Landed(attempt.stored, attempt.stored.head.tail)
            case ConditionFailed(item):
                attempt.stored = self._heads.store(attempt.name, item)
                if len(attempt.stored.buffer) + len(attempt.elements) > BUFFER_BATCHES_MAX:
                    attempt.stored = await self._spiller.spill(attempt.name, attempt.stored)
                return None
            case InDoubt():
                return await self._resolve(attempt, plan)

    async def _resolve(self, attempt: _Attempt, plan: GroupPlan) -> _Landed | None:
        """After a lost answer: where the group is, None when it has not landed and can land no longer.

        Raises StoreUncertain when the incarnation that the group was sent to has ended.
        """
        stored = attempt.stored = await self._resolver.raise_fence(attempt.name)
        if plan.stored.fence < stored.began:  # the group may have landed in an earlier incarnation
            raise StoreUncertain
        if stored.head is None:
            return None
        first = attempt.first_seen.head
        position_min = first.tail if first is not None and first.incarnation == stored.head.incarnation else None
        commit_id = attempt.elements[0].commit_id
        applied = await self._resolver.find_applied(stored, commit_id, position_min, attempt.began_ms)
        if applied is None or applied.head is None:
            return None
        return _Landed(stored, applied.head.tail + sum(element.byte_count for element in attempt.elements[1:]))

    async def _store_batches(self, attempt: _Attempt, plan: GroupPlan) -> None:
        """Store the batches of the admitted appends, unless they are as at the last try.

        A new plan's small batches have new commit ids, so a payload that they share has a new key. Under the old key, a
        late request of the last try would delete or replace what is committed now.
        """
        if attempt.elements_of == tuple(plan.admitted):
            return
        await self._discard_groups(attempt)
        admitted, now_ms = [attempt.group[place] for place in plan.admitted], self._clock.now_ms()
        for append in admitted:
            if not append.is_large:
                data = append.commit.data or b""
                append.batch = await self._payloads.store(attempt.name, self._clock.new_commit_id(), data, now_ms)
        runs = _runs(admitted)

        async def store(run: Sequence[QueuedAppend]) -> list[StoredBatch]:
            if run[0].is_large:
                return [await self._store_large(attempt.name, one, now_ms) for one in run]
            batches = [one.batch for one in run if one.batch is not None]
            byte_count = sum(batch.byte_count for batch in batches)
            if len(batches) == 1 or (byte_count <= INLINE_BYTES_MAX and len(batches) <= INLINE_BATCHES_MAX):
                return batches
            return [await self._groups.store(attempt.name, batches, now_ms)]

        stored = await map_bounded(runs, store, REQUESTS_AT_ONCE)
        attempt.elements = tuple(element for run in stored for element in run)
        attempt.elements_of = tuple(plan.admitted)

    async def _store_large(self, name: StreamName, append: QueuedAppend, now_ms: int) -> StoredBatch:
        if append.batch is None:
            data = append.commit.data or b""
            append.batch = await self._payloads.store(name, self._clock.new_commit_id(), data, now_ms)
        return append.batch

    def _answer(self, attempt: _Attempt, plan: GroupPlan, landed: _Landed) -> None:
        self._notifier.notify(attempt.name, landed.stored.head)
        outcomes = outcomes_of(plan, landed.stored, landed.end)
        for place, outcome in zip(plan.admitted, outcomes, strict=True):
            attempt.group[place].succeed(outcome)

    async def _refuse(self, attempt: _Attempt, stored: HeadItem, plan: GroupPlan) -> list[QueuedAppend]:
        """Answer the appends that do not fit on a fresh head; those to judge again, and a producer's later ones.

        A producer whose state outside the head may have changed since the plan is judged again, too.
        """
        left, waiting, refused = list[QueuedAppend](), set[str | None](), list[StoredBatch]()
        evicted = plan.evicted if stored.evictions == plan.stored.evictions else {}
        head = head_with_producers(stored, evicted)
        for place in plan.others:
            append = attempt.group[place]
            producer_id = append.commit.producer_id
            unmet = first_unmet(append.commit.requires, head)
            is_judged = producer_id is None or not is_unknown(producer_id, stored, evicted)
            if unmet is None or producer_id in waiting or not is_judged:
                left.append(append)
                if producer_id is not None:
                    waiting.add(producer_id)
                continue
            append.succeed(Unmet(unmet, head))
            refused += [] if append.batch is None else [append.batch]
        await self._payloads.discard(attempt.name, refused)
        return left

    async def _discard_groups(self, attempt: _Attempt) -> None:
        """Delete the groups that an earlier try has stored, and that nothing points to."""
        own = {append.batch for append in attempt.group}
        await self._payloads.discard(attempt.name, [one for one in attempt.elements if one not in own])

    async def _discard(self, attempt: _Attempt) -> None:
        await self._discard_groups(attempt)
        await self._payloads.discard(attempt.name, [one.batch for one in attempt.group if one.batch is not None])


def _runs(appends: Sequence[QueuedAppend]) -> list[list[QueuedAppend]]:
    """The appends in order: each large one alone, and the small ones between two large ones together."""
    runs = list[list[QueuedAppend]]()
    for append in appends:
        if runs and not append.is_large and not runs[-1][0].is_large:
            runs[-1].append(append)
        else:
            runs.append([append])
    return runs
