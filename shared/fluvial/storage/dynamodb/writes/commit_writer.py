"""Commits on a stream that exists: append, close, renew. Each is exactly one UpdateItem when nothing is in its way."""

from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from fluvial.clock import Clock
from fluvial.model.commit import Applied, Commit, Outcome, Unmet, first_unmet
from fluvial.model.effect import AddBatch, RenewTtl
from fluvial.model.errors import StoreUnavailable, StoreUncertain
from fluvial.model.head import Head
from fluvial.model.names import StreamName
from fluvial.storage.dynamodb.table.aws_client import ConditionFailed, OutcomeUnknown
from fluvial.storage.dynamodb.table.head_cache import HeadCache
from fluvial.storage.dynamodb.table.items import HeadItem, StoredBatch
from fluvial.storage.dynamodb.table.table import Table
from fluvial.storage.dynamodb.writes.in_doubt import InDoubtResolver
from fluvial.storage.dynamodb.writes.payloads import Payloads
from fluvial.storage.dynamodb.writes.producers import evict_producers, find_producer
from fluvial.storage.dynamodb.writes.spilling import Spiller
from fluvial.storage.dynamodb.writes.updates import (
    BUFFER_BATCHES_MAX,
    HEAD_PRODUCERS_MAX,
    Guesses,
    LookedUp,
    commit_update,
)
from fluvial.storage.keyed_lock import KeyedLock

#: How often a commit is tried whose requirements hold: each try removes what was in the way of the one before, but
#: other writers may put something there again.
TRIES_MAX: Final = 24


@dataclass(slots=True)
class _Attempt:
    """One commit on its way: the guesses that its next request makes, and what is known of its past.

    `since` is what was known of the head when it began, `seen` what is known by now.
    """

    name: StreamName
    commit: Commit
    batch: StoredBatch | None
    fence: int
    since: HeadItem | None
    began_ms: int
    seen: HeadItem | None
    producer: LookedUp | None = None
    is_exclusive: bool = False  # nobody but this attempt may write the commit, as long as its fence stands


class CommitWriter:
    """Writes commits to heads that exist."""

    def __init__(
        self, table: Table, payloads: Payloads, spiller: Spiller, settler: InDoubtResolver, heads: HeadCache
    ) -> None:
        """Nothing is written yet."""
        self._table, self._payloads, self._spiller = table, payloads, spiller
        self._settler, self._heads = settler, heads
        self._turns = KeyedLock()

    async def write(self, name: StreamName, commit: Commit, clock: Clock) -> Outcome:
        """Apply a commit that neither begins nor ends a life. Raises StoreUnavailable, StoreUncertain."""
        data = next((effect.data for effect in commit.effects if isinstance(effect, AddBatch)), None)
        now_ms = clock.now_ms()
        batch = None
        if data is not None:
            batch = await self._payloads.laid_out(name, clock.new_commit_id(), data, now_ms)
        since = self._heads.get(name)
        attempt = _Attempt(name, commit, batch, 0 if since is None else since.fence, since, now_ms, since)
        return await self._written(attempt)

    async def write_exclusively(
        self, name: StreamName, commit: Commit, batch: StoredBatch, stored: HeadItem, clock: Clock
    ) -> Outcome:
        """Apply a commit under the fence of `stored` alone; a retry of the same commit raises it first.

        Raises StoreUncertain when somebody has raised it, besides what `write` raises.
        """
        attempt = _Attempt(name, commit, batch, stored.fence, stored, clock.now_ms(), stored, is_exclusive=True)
        return await self._written(attempt)

    async def _written(self, attempt: _Attempt) -> Outcome:
        outcome = await self._applied(attempt)
        if isinstance(outcome, Unmet) and attempt.batch is not None:
            await self._payloads.discard(attempt.name, [attempt.batch])
        return outcome

    async def _applied(self, attempt: _Attempt) -> Outcome:
        outcome = await self._tried(attempt)
        if outcome is not None:
            return outcome
        # Whatever was in the way is in the way of this process's other writers, too: one of them sees to it.
        async with self._turns.hold(attempt.name):
            for _ in range(TRIES_MAX):
                outcome = await self._tried(attempt)
                if outcome is not None:
                    return outcome
        raise StoreUnavailable

    async def _tried(self, attempt: _Attempt) -> Outcome | None:
        """The outcome of one request, or None when another one must follow, whose guesses are better."""
        seen = None if attempt.seen is None else attempt.seen.head
        guesses = Guesses(attempt.fence, seen, attempt.producer)
        request = commit_update(attempt.name, attempt.commit, attempt.batch, guesses)
        try:
            stored = self._heads.note(attempt.name, await self._table.update(request))
        except ConditionFailed as exc:
            return await self._refused(attempt, self._heads.note(attempt.name, exc.item))
        except OutcomeUnknown as exc:
            if all(isinstance(effect, RenewTtl) for effect in attempt.commit.effects):
                raise StoreUncertain from exc  # not worth a fence: the next read renews, too
            return await self._settled(attempt)
        if attempt.batch is not None:
            await self._spiller.spill_if_due(attempt.name, stored)
        return Applied(stored.head)

    async def _refused(self, attempt: _Attempt, stored: HeadItem) -> Unmet | None:
        head, looked_up = stored.head, None
        producer_id = attempt.commit.producer_id
        if head is not None and producer_id is not None and producer_id not in head.producers:
            state = None
            if stored.evictions:
                state = await find_producer(self._table, head.incarnation, producer_id)
            if state is not None:
                head = replace(head, producers={**head.producers, producer_id: state})
            looked_up = LookedUp(stored.evictions, state)
        unmet = first_unmet(attempt.commit.requires, head)
        if unmet is not None:
            return Unmet(unmet, head)
        if attempt.is_exclusive and stored.fence != attempt.fence:
            raise StoreUncertain  # whoever raised the fence may write the same commit
        attempt.fence, attempt.seen, attempt.producer = stored.fence, stored, looked_up
        await self._make_room(attempt, stored)
        return None

    async def _make_room(self, attempt: _Attempt, stored: HeadItem) -> None:
        if attempt.batch is not None and len(stored.buffer) >= BUFFER_BATCHES_MAX:
            await self._spiller.spill(attempt.name, stored)
        looked_up, head = attempt.producer, stored.head
        if looked_up is None or head is None or len(head.producers) < HEAD_PRODUCERS_MAX:
            return
        now = await evict_producers(self._table, self._heads, attempt.name, stored)
        if now is not None:  # nothing else has moved since the producer was looked up
            attempt.producer = LookedUp(now.evictions, looked_up.state)

    async def _settled(self, attempt: _Attempt) -> Outcome | None:
        """The outcome of a request whose answer was lost, or None when it was not and will not be carried out.

        Raises StoreUncertain when the life that it was meant for is over, or when others may write it, too.
        """
        stored = await self._settler.raise_fence(attempt.name)
        if attempt.fence < stored.began:  # it may have landed in a life before this one
            raise StoreUncertain
        attempt.fence, attempt.seen, head = stored.fence, stored, stored.head
        if head is None or attempt.batch is None:
            return None  # to apply the rest again changes nothing
        since = attempt.since.head if attempt.since is not None else None
        known = since.tail if since is not None and since.incarnation == head.incarnation else None
        end = await self._settler.find(stored, attempt.batch.commit_id, known, attempt.began_ms)
        if end is not None:
            return Applied(_as_of(head, end))
        if attempt.is_exclusive:
            raise StoreUncertain  # under the fence that is raised now, another one may be writing the same commit
        return None


def _as_of(head: Head, end: int) -> Head:
    """The head as it was right after a batch, as far as its writer is told."""
    return replace(head, tail=end)
