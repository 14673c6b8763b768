"""Settling: what became of a write whose answer was lost (docs/decisions/0005).

The fence is raised first: from its answer on, the lost request can never be carried out, wherever it still is. Then
the batch is looked for by its commit id; only if it is not there may it be written again.
"""

import asyncio
import logging
from typing import Final

from fluvial.clock import Clock
from fluvial.model.commit import CommitId
from fluvial.model.errors import StoreUnavailable, StoreUncertain
from fluvial.model.head import Head
from fluvial.model.names import StreamName
from fluvial.storage.dynamodb.reads.cold_segments import ColdSegments
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.aws_client import ConditionFailed, OutcomeUnknown
from fluvial.storage.dynamodb.table.expression import Expression
from fluvial.storage.dynamodb.table.head_cache import HeadCache
from fluvial.storage.dynamodb.table.items import ColdSegment, HeadItem, StoredBatch, number, segment_of_item
from fluvial.storage.dynamodb.table.keys import head_key, life_partition, segment_sort
from fluvial.storage.dynamodb.table.table import Table
from fluvial.storage.dynamodb.writes.updates import guarded
from fluvial.storage.limits import STORE_LIMITS, StoreLimits

log = logging.getLogger(__name__)

#: A tombstone outlives every request that was sent to the life before: a signature is good for minutes.
TOMBSTONE_S: Final = 86_400

FENCE_TRIES_MAX: Final = 6

#: Segments that were written this long before the attempt cannot hold its batch; allows for clocks that differ.
CLOCK_SKEW_MS: Final = 15 * 60_000

SEGMENTS_PER_QUERY: Final = 32


class InDoubtResolver:
    """Finds out about writes in doubt."""

    def __init__(
        self, table: Table, cold: ColdSegments, heads: HeadCache, clock: Clock, limits: StoreLimits = STORE_LIMITS
    ) -> None:
        """Nothing is in doubt."""
        self._limits = limits
        self._table, self._cold, self._heads, self._clock = table, cold, heads, clock

    async def raise_fence(self, name: StreamName) -> HeadItem:
        """Shut out every request that was sent to the name before; what is stored there then.

        Raises StoreUncertain when that cannot be done now.
        """
        for tried in range(FENCE_TRIES_MAX):
            if tried:
                await asyncio.sleep(self._limits.fence_pause_s * 2**tried * (0.5 + self._clock.jitter() / 2))
            try:
                return await self._raised(name)
            except (ConditionFailed, OutcomeUnknown, StoreUnavailable):
                continue
        log.error("write_in_doubt", extra={"stream": name})
        raise StoreUncertain

    async def _raised(self, name: StreamName) -> HeadItem:
        e = Expression()
        fence = e.name(a.FENCE)
        update = f"SET {fence} = {fence} + {e.value(1)}"
        try:
            item = await self._table.update(guarded(name, e, [f"attribute_exists({fence})"], update))
        except ConditionFailed:
            # Nothing is at the name, but something may begin there before the lost request comes in.
            item = {**head_key(name), a.FENCE: number(1), a.TTL: number(tombstone_until(self._clock.now_ms()))}
            await self._table.put(item, ConditionExpression=f"attribute_not_exists({a.PK})")
        return self._heads.note(name, item)

    async def find(self, stored: HeadItem, commit_id: CommitId, since: int | None, began_ms: int) -> int | None:
        """Where the batch of a commit ends in the life at hand; None when it is not there.

        `since` is a position that the life had reached before the attempt, None when nothing is known of it.
        """
        head = stored.head
        if head is None:
            return None
        end = _end_in(stored.base, stored.buffer, commit_id)
        if end is not None:
            return end
        return await self._find_in_segments(head, stored.base, commit_id, (since or 0, began_ms - CLOCK_SKEW_MS))

    async def _find_in_segments(self, head: Head, upto: int, commit_id: CommitId, since: tuple[int, int]) -> int | None:
        position_min, written_at_min = since
        while upto > max(position_min, head.own_start):
            items = await self._table.query(
                life_partition(head.incarnation),
                after=segment_sort(position_min),
                before=segment_sort(upto),
                limit=SEGMENTS_PER_QUERY,
                backwards=True,
            )
            for item in items:
                segment = segment_of_item(item)
                if isinstance(segment, ColdSegment):
                    ids = await self._cold.commit_ids(segment)
                    end = segment.ends[ids.index(commit_id)] if commit_id in ids else None
                else:
                    end = _end_in(segment.start, segment.batches, commit_id)
                if end is not None:
                    return end
                if segment.written_at_ms < written_at_min:
                    return None
                upto = segment.start
            if not items:
                return None
        return None


def _end_in(start: int, batches: tuple[StoredBatch, ...], commit_id: CommitId) -> int | None:
    position = start
    for batch in batches:
        position += batch.byte_count
        if batch.commit_id == commit_id:
            return position
    return None


def tombstone_until(now_ms: int) -> int:
    """When a tombstone that is made now may go, in epoch seconds."""
    return now_ms // 1_000 + TOMBSTONE_S
