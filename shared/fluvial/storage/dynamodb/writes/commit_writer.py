"""The commit writer: append, close and renew a stream that exists.

A commit is one conditional UpdateItem on the head item. The condition has the commit's requirements and guesses of the
head's fence, deadline and producers from the cached head. What can happen:

1. The update is written: the commit is applied.
2. The condition fails, and a requirement is unmet on the returned head: the commit is rejected.
3. The condition fails, and every requirement holds: a guess was wrong, or the buffer or the producers' room is full.
   Correct the guess, make room, and send the commit again.
4. The answer is lost. Raise the fence, so that the lost update can never be carried out later, and look for the batch:
   the commit is applied when the batch is found, and sent again otherwise. Sent again without raising the fence, the
   batch could be appended twice (docs/decisions/0005).
"""

from dataclasses import dataclass
from dataclasses import replace as replace_fields
from typing import Final

from msgspec.structs import replace

from fluvial.clock import Clock
from fluvial.model.commit import Applied, Outcome, Unmet, UpdateCommit, first_unmet
from fluvial.model.effect import RenewTtl
from fluvial.model.errors import StoreUnavailable, StoreUncertain
from fluvial.model.names import StreamName
from fluvial.storage.dynamodb.backend import Backend
from fluvial.storage.dynamodb.table.head_cache import HeadCache
from fluvial.storage.dynamodb.table.items import HeadItem, StoredBatch
from fluvial.storage.dynamodb.table.write_outcome import ConditionFailed, InDoubt, Written
from fluvial.storage.dynamodb.writes.in_doubt import InDoubtResolver
from fluvial.storage.dynamodb.writes.producers import EVICTED_AT_ONCE, evict_producers, find_producer
from fluvial.storage.dynamodb.writes.spill import Spiller
from fluvial.storage.dynamodb.writes.stream_load import APPEND_TRIES_MAX, StreamLoads
from fluvial.storage.dynamodb.writes.updates import (
    BUFFER_BATCHES_MAX,
    HEAD_PRODUCERS_MAX,
    EvictedProducer,
    Guesses,
    commit_update,
)
from fluvial.storage.keyed_lock import KeyedLock

#: Tries of a commit whose requirements hold. Each try removes what made the one before fail, but other writers may
#: make the next one fail again.
TRIES_MAX: Final = 24


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One commit with the guesses that its next request makes.

    `first_seen` is the head item as cached when the commit began, `seen` the last one. With `is_exclusive` no other
    process may write the same commit as long as this attempt's fence stands.
    """

    name: StreamName
    commit: UpdateCommit
    batch: StoredBatch | None
    fence: int
    first_seen: HeadItem | None
    began_ms: int
    seen: HeadItem | None
    producer: EvictedProducer | None = None
    is_exclusive: bool = False


class CommitWriter:
    """Writes update commits."""

    def __init__(
        self, backend: Backend, heads: HeadCache, spiller: Spiller, resolver: InDoubtResolver, loads: StreamLoads
    ) -> None:
        """`resolver` finds out about writes in doubt; `loads` tells which streams are pressed."""
        self._table, self._payloads, self._heads = backend.table, backend.payloads, heads
        self._spiller, self._resolver, self._loads = spiller, resolver, loads
        self._retry_locks = KeyedLock()

    async def write(self, name: StreamName, commit: UpdateCommit, clock: Clock) -> Outcome:
        """Apply a commit. Raises StoreUnavailable, StoreUncertain."""
        data, now_ms = commit.data, clock.now_ms()
        batch = None
        if data is not None:
            inline_bytes_max = self._loads.inline_bytes_max(name)
            batch = await self._payloads.store(name, clock.new_commit_id(), data, now_ms, inline_bytes_max)
        seen = self._heads.get(name)
        attempt = _Attempt(name, commit, batch, 0 if seen is None else seen.fence, seen, now_ms, seen)
        return await self._write(attempt)

    async def write_exclusively(
        self, name: StreamName, commit: UpdateCommit, batch: StoredBatch, stored: HeadItem, clock: Clock
    ) -> Outcome:
        """Apply a commit under the fence of `stored` and no other; a retry of the same commit raises the fence first.

        Raises StoreUncertain when the fence was raised meanwhile, besides what `write` raises.
        """
        attempt = _Attempt(name, commit, batch, stored.fence, stored, clock.now_ms(), stored, is_exclusive=True)
        return await self._write(attempt)

    async def _write(self, attempt: _Attempt) -> Outcome:
        # The payload of a commit that was cancelled or is uncertain stays: its update may have landed, or land yet.
        try:
            outcome = await self._send_until_known(attempt)
        except StoreUnavailable:
            await self._discard_payload(attempt)
            raise
        if isinstance(outcome, Unmet):
            await self._discard_payload(attempt)
        return outcome

    async def _discard_payload(self, attempt: _Attempt) -> None:
        """Delete the payload of a commit that was not written, and cannot be any more."""
        if attempt.batch is not None:
            await self._payloads.discard(attempt.name, [attempt.batch])

    async def _send_until_known(self, attempt: _Attempt) -> Outcome:
        result = await self._send(attempt)
        if not isinstance(result, _Attempt):
            return result
        # The same obstacle is in the way of this process's other writers. With the lock, one of them removes it while
        # the others wait; without it, all of them would spill and evict at the same time.
        async with self._retry_locks.hold(attempt.name):
            for _ in range(TRIES_MAX):
                result = await self._send(result)
                if not isinstance(result, _Attempt):
                    return result
        raise StoreUnavailable

    async def _send(self, attempt: _Attempt) -> Outcome | _Attempt:
        """Send one request: the commit's outcome, or the attempt to make next."""
        seen = None if attempt.seen is None else attempt.seen.head
        guesses = Guesses(attempt.fence, seen, attempt.producer)
        request = commit_update(attempt.name, attempt.commit, attempt.batch, guesses)
        outcome = await self._table.update(request, self._loads.on_busy(attempt.name, APPEND_TRIES_MAX))
        if not isinstance(outcome, InDoubt):
            self._loads.note_accepted(attempt.name)
        match outcome:
            case Written(item):
                stored = self._heads.store(attempt.name, item)
                if attempt.batch is not None:
                    await self._spiller.spill_if_due(attempt.name, stored)
                return Applied(stored.head)
            case ConditionFailed(item):
                return await self._judge(attempt, self._heads.store(attempt.name, item))
            case InDoubt(cause):
                if all(isinstance(effect, RenewTtl) for effect in attempt.commit.effects):
                    raise StoreUncertain from cause  # not worth raising the fence: the next read renews, too
                return await self._resolve(attempt)

    async def _judge(self, attempt: _Attempt, stored: HeadItem) -> Unmet | _Attempt:
        """After a failed condition: the unmet requirement, or the next attempt with corrected guesses."""
        head, evicted = stored.head, None
        producer_id = attempt.commit.producer_id
        if head is not None and producer_id is not None and producer_id not in head.producers:
            state = None
            if stored.evictions:
                state = await find_producer(self._table, head.incarnation, producer_id)
            if state is not None:
                head = replace(head, producers={**head.producers, producer_id: state})
            evicted = EvictedProducer(stored.evictions, state)
        unmet = first_unmet(attempt.commit.requires, head)
        if unmet is not None:
            return Unmet(unmet, head)
        if attempt.is_exclusive and stored.fence != attempt.fence:
            raise StoreUncertain  # the process that raised the fence may be writing the same commit
        attempt = replace_fields(attempt, fence=stored.fence, seen=stored, producer=evicted)
        return await self._make_room(attempt, stored)

    async def _make_room(self, attempt: _Attempt, stored: HeadItem) -> _Attempt:
        """Spill a full buffer, evict producers from a full head."""
        if attempt.batch is not None and len(stored.buffer) >= BUFFER_BATCHES_MAX:
            await self._spiller.spill(attempt.name, stored)
        evicted, head = attempt.producer, stored.head
        if evicted is None or head is None or len(head.producers) < HEAD_PRODUCERS_MAX:
            return attempt
        count = len(head.producers) - HEAD_PRODUCERS_MAX + EVICTED_AT_ONCE  # groups leave more than that in a head
        after = await evict_producers(self._table, self._heads, attempt.name, stored, count)
        if after is None:
            return attempt
        # No other eviction has happened since the producer was looked up, so its state is still the one found.
        return replace_fields(attempt, producer=EvictedProducer(after.evictions, evicted.state))

    async def _resolve(self, attempt: _Attempt) -> Outcome | _Attempt:
        """After a lost answer: the outcome if the batch is found, else the next attempt under the raised fence.

        Raises StoreUncertain when the incarnation that the commit was sent to has ended, or when another process may
        write the same commit.
        """
        stored = await self._resolver.raise_fence(attempt.name)
        if attempt.fence < stored.began:  # the batch may have landed in an earlier incarnation
            raise StoreUncertain
        head, first = stored.head, None if attempt.first_seen is None else attempt.first_seen.head
        attempt = replace_fields(attempt, fence=stored.fence, seen=stored)
        if head is None or attempt.batch is None:
            return attempt  # applying the other effects twice changes nothing
        position_min = first.tail if first is not None and first.incarnation == head.incarnation else None
        applied = await self._resolver.find_applied(stored, attempt.batch.commit_id, position_min, attempt.began_ms)
        if applied is not None:
            return applied
        if attempt.is_exclusive:
            raise StoreUncertain  # under the raised fence another process may be writing the same commit
        return attempt
