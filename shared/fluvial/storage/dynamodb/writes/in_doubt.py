"""Writes in doubt: find out whether a write whose answer was lost has landed (docs/decisions/0005).

The sequence that goes wrong without a fence: a writer sends a batch and hears no answer; it looks, finds no batch, and
sends the batch again; then the first request, which was still on its way, is carried out: the batch is there twice.
So the resolver first raises the head's fence. Every commit names the fence in its condition, so from then on the lost
request can never be carried out. Then the batch is looked for by its commit id.
"""

import asyncio
import logging
from typing import Final

from msgspec.structs import replace

from fluvial.clock import Clock
from fluvial.concurrency import backoff_s
from fluvial.model.commit import Applied, CommitId
from fluvial.model.errors import StoreError, StoreUnavailable, StoreUncertain
from fluvial.model.head import Head
from fluvial.model.names import StreamName
from fluvial.storage.dynamodb.reads.cold_segments import ColdSegments
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.expression import Expression
from fluvial.storage.dynamodb.table.head_cache import HeadCache
from fluvial.storage.dynamodb.table.items import ColdSegment, HeadItem, StoredBatch, decode_segment, number
from fluvial.storage.dynamodb.table.keys import Item, head_key, incarnation_partition, segment_sort
from fluvial.storage.dynamodb.table.table import Table
from fluvial.storage.dynamodb.table.write_outcome import ConditionFailed, Written
from fluvial.storage.dynamodb.writes.updates import guarded_update
from fluvial.storage.limits import STORE_LIMITS, StoreLimits

log = logging.getLogger(__name__)

#: A tombstone outlives every request to the ended incarnation: a request's signature is valid for minutes.
TOMBSTONE_S: Final = 86_400

FENCE_TRIES_MAX: Final = 6

#: Segments written this long before the attempt cannot hold its batch; allows for clocks that differ.
CLOCK_SKEW_MS: Final = 15 * 60_000

SEGMENTS_PER_QUERY: Final = 32


class InDoubtResolver:
    """Raises fences and finds batches."""

    def __init__(
        self, table: Table, cold: ColdSegments, heads: HeadCache, clock: Clock, limits: StoreLimits = STORE_LIMITS
    ) -> None:
        """`cold` are the segments in S3, which a batch may have been moved to."""
        self._limits = limits
        self._table, self._cold, self._heads, self._clock = table, cold, heads, clock

    async def raise_fence(self, name: StreamName) -> HeadItem:
        """Invalidate every earlier request to the name; the head item as it is then.

        Raises StoreUncertain when that is not possible now.
        """
        for tries in range(FENCE_TRIES_MAX):
            if tries:
                await asyncio.sleep(backoff_s(self._limits.fence_pause_s, tries, self._clock.jitter()))
            try:
                item = await self._try_raise_fence(name)
            except StoreUnavailable:
                continue
            if item is not None:
                return self._heads.store(name, item)
        log.error("write_in_doubt", extra={"stream": name})
        raise StoreUncertain

    async def _try_raise_fence(self, name: StreamName) -> Item | None:
        """The item with a raised fence; None when this try has failed or is itself in doubt."""
        e = Expression()
        fence = e.name(a.FENCE)
        update = f"SET {fence} = {fence} + {e.value(1)}"
        outcome = await self._table.update(guarded_update(name, e, [f"attribute_exists({fence})"], update))
        if isinstance(outcome, Written):
            return outcome.item
        if not isinstance(outcome, ConditionFailed):
            return None
        # No item has the name, but a stream may be created before the lost request arrives: put a tombstone.
        item = {**head_key(name), a.FENCE: number(1), a.TTL: number(tombstone_until(self._clock.now_ms()))}
        outcome = await self._table.put(item, ConditionExpression=f"attribute_not_exists({a.PK})")
        return item if isinstance(outcome, Written) else None

    async def find_applied(
        self, stored: HeadItem, commit_id: CommitId, position_min: int | None, began_ms: int
    ) -> Applied | None:
        """The outcome of a commit whose batch is in the present incarnation; None when the batch is not there.

        Its head is the present one with the tail as it was right after the batch, which is what the writer is told.
        `position_min` is a position that the stream had reached before the attempt, None when none is known.

        Raises StoreUncertain when the segments cannot be read now: the batch may be in one of them.
        """
        head = stored.head
        if head is None:
            return None
        end = _batch_end(stored.base, stored.buffer, commit_id)
        if end is None:
            since = (position_min or 0, began_ms - CLOCK_SKEW_MS)
            try:
                end = await self._find_in_segments(head, stored.base, commit_id, since)
            except StoreError as exc:
                raise StoreUncertain from exc
        return None if end is None else Applied(replace(head, tail=end))

    async def _find_in_segments(self, head: Head, upto: int, commit_id: CommitId, since: tuple[int, int]) -> int | None:
        position_min, written_at_min = since
        while upto > max(position_min, head.own_start):
            items = await self._table.query(
                incarnation_partition(head.incarnation),
                after=segment_sort(position_min),
                before=segment_sort(upto),
                limit=SEGMENTS_PER_QUERY,
                backwards=True,
            )
            for item in items:
                segment = decode_segment(item)
                if isinstance(segment, ColdSegment):
                    ids = await self._cold.commit_ids(segment)
                    end = segment.ends[ids.index(commit_id)] if commit_id in ids else None
                else:
                    end = _batch_end(segment.start, segment.batches, commit_id)
                if end is not None:
                    return end
                if segment.written_at_ms < written_at_min:
                    return None
                upto = segment.start
            if not items:
                return None
        return None


def _batch_end(start: int, batches: tuple[StoredBatch, ...], commit_id: CommitId) -> int | None:
    position = start
    for batch in batches:
        position += batch.byte_count
        if batch.commit_id == commit_id:
            return position
    return None


def tombstone_until(now_ms: int) -> int:
    """When a tombstone that is put now may be deleted, in epoch seconds."""
    return now_ms // 1_000 + TOMBSTONE_S
