"""Spilling: move batches from the head's buffer into a hot segment.

The segment is put before the batches leave the head, so a batch is in one of the two at any moment. Any process may
spill, and two may spill the same batches: both put the same bytes under the same key.
"""

import logging
from collections.abc import Iterable
from typing import Final

from fluvial.clock import Clock
from fluvial.model.errors import StoreError
from fluvial.model.names import StreamName
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.expression import Expression
from fluvial.storage.dynamodb.table.head_cache import HeadCache
from fluvial.storage.dynamodb.table.items import (
    HeadItem,
    HotSegment,
    StoredBatch,
    encode_batch,
    encode_hot_segment,
    encode_incarnation,
)
from fluvial.storage.dynamodb.table.table import Table
from fluvial.storage.dynamodb.table.write_outcome import ConditionFailed, InDoubt, Written
from fluvial.storage.dynamodb.writes.stream_load import StreamLoads
from fluvial.storage.dynamodb.writes.updates import BUFFER_BATCHES_MAX, guarded_update

log = logging.getLogger(__name__)

#: An update is billed by the kilobyte of the whole item, so the buffer is spilled before one more is begun.
#: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html
WRITE_UNIT_BYTES: Final = 1_024

#: A spill is two writes: for a single batch it would cost more than the next kilobyte.
SPILL_BATCHES_MIN: Final = 2

#: Spill at this many batches whatever the head costs already: long before an append must wait for a spill.
SPILL_BATCHES_MAX: Final = BUFFER_BATCHES_MAX // 4

#: Of the writers that find a buffer overdue, this part spills it: all at once would be in each other's way.
OVERDUE_SHARE: Final = 0.25

#: The cut makes the updates of all others cheaper. So it is tried again at once, and often.
CUT_TRIES_MAX: Final = 20
CUT_PAUSE_S: Final = 0.01

#: How far ahead of the next kilobyte a spill begins at most.
AHEAD_BYTES_MAX: Final = 640

#: One spill names each batch that it cuts off, and an expression may have 4 KB.
SPILL_AT_ONCE_MAX: Final = 100

#: The newest batches stay, so that live readers find them in the head: two of eight, none of three.
KEPT_MAX: Final = 2
KEPT_SHARE: Final = 4


class Spiller:
    """Spills buffers; at most one spill per stream runs in a process at a time."""

    def __init__(self, table: Table, heads: HeadCache, clock: Clock, loads: StreamLoads) -> None:
        """No spill is running. `loads` tells how much is added to a buffer during a spill."""
        self._table, self._heads, self._clock, self._loads = table, heads, clock, loads
        self._running: set[StreamName] = set()

    async def spill_if_due(self, name: StreamName, stored: HeadItem, added: int = 1) -> HeadItem:
        """Spill when the next batch would cost more. A failure is logged; another writer tries again.

        `stored` is the head right after this process has added the newest `added` elements of its buffer.
        """
        arriving = self._loads.note_head(name, stored, added)
        is_left = is_overdue(stored) and self._clock.jitter() < OVERDUE_SHARE
        if name in self._running or not (is_left or is_due(stored, added, arriving)):
            return stored
        self._running.add(name)
        keeping = 0 if arriving >= 1 else min(KEPT_MAX, len(stored.buffer) // KEPT_SHARE)
        try:
            return await self.spill(name, stored, keeping)
        except StoreError as exc:
            log.warning("spill_failed", extra={"stream": name, "reason": str(exc.__cause__)})
            return stored
        finally:
            self._running.discard(name)

    async def spill(self, name: StreamName, stored: HeadItem, keeping: int = 0) -> HeadItem:
        """Move the buffer's batches into a segment, except the newest `keeping` ones.

        The head item as it is then; unchanged when a request is in doubt. Raises StoreUnavailable.
        """
        head = stored.head
        if head is None or not stored.buffer:
            return stored
        leaving = stored.buffer[: min(SPILL_AT_ONCE_MAX, len(stored.buffer) - keeping)]
        segment = HotSegment(stored.base, leaving, name, self._clock.now_ms())
        put = await self._table.put(
            encode_hot_segment(head.incarnation, segment), ConditionExpression=f"attribute_not_exists({a.PK})"
        )
        if isinstance(put, InDoubt):
            return stored
        # When the condition fails, another process has put the same committed bytes there.
        e, count = Expression(), len(segment.batches)
        batch_count = sum(batch.batch_count for batch in segment.batches)
        clauses = [
            f"{e.name(a.INCARNATION)} = {e.value(encode_incarnation(head.incarnation))}",
            f"{e.name(a.BASE)} = {e.value(stored.base)}",
        ]
        spilled = f"{e.name(a.SPILLED)} = if_not_exists({e.name(a.SPILLED)}, {e.value(0)}) + {e.value(batch_count)}"
        removed = ", ".join(f"{e.name(a.BUFFER)}[{index}]" for index in range(count))
        update = f"SET {e.name(a.BASE)} = {e.value(segment.end)}, {spilled} REMOVE {removed}"
        request = guarded_update(name, e, clauses, update)
        match await self._table.update(request, self._loads.on_busy(name, CUT_TRIES_MAX, CUT_PAUSE_S)):
            case Written(item) | ConditionFailed(item):
                return self._heads.store(name, item)
            case InDoubt():
                return stored


def is_due(stored: HeadItem, added: int = 1, arriving: float = 0.0) -> bool:
    """Whether the writer that added the newest `added` elements should spill the buffer.

    It is the one writer with whose elements the buffer has come so far that the next one, and the `arriving` ones that
    come during the spill, would cost another kilobyte. The writers after it leave the spill to it.
    """
    count = len(stored.buffer)
    if count < SPILL_BATCHES_MIN:
        return False
    own_bytes = _elements_bytes(stored.buffer[-added:])
    next_bytes = own_bytes // added
    ahead_bytes = max(next_bytes, min(round((1 + arriving) * next_bytes), AHEAD_BYTES_MAX))
    units, units_before = (
        (size + ahead_bytes - 1) // WRITE_UNIT_BYTES for size in (stored.item_bytes, stored.item_bytes - own_bytes)
    )
    return units > units_before or count // SPILL_BATCHES_MAX > (count - added) // SPILL_BATCHES_MAX


def is_overdue(stored: HeadItem) -> bool:
    """Whether the buffer alone takes two kilobytes: the writer whose turn the spill was is slow, or has failed."""
    return len(stored.buffer) >= SPILL_BATCHES_MIN and _elements_bytes(stored.buffer) > 2 * WRITE_UNIT_BYTES


def _elements_bytes(batches: Iterable[StoredBatch]) -> int:
    """What batches take of the head, each with DynamoDB's own byte for an element of a list."""
    return sum(len(encode_batch(batch)) + 1 for batch in batches)
