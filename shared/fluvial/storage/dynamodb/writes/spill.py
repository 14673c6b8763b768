"""Spilling: move batches from the head's buffer into a hot segment.

The segment is put before the batches leave the head, so a batch is in one of the two at any moment. Any process may
spill, and two may spill the same batches: both put the same bytes under the same key.
"""

import logging
from typing import Final

from fluvial.clock import Clock
from fluvial.model.errors import StoreError
from fluvial.model.names import StreamName
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.expression import Expression
from fluvial.storage.dynamodb.table.head_cache import HeadCache
from fluvial.storage.dynamodb.table.items import HeadItem, HotSegment, encode_hot_segment, encode_incarnation
from fluvial.storage.dynamodb.table.table import Table
from fluvial.storage.dynamodb.table.write_outcome import ConditionFailed, InDoubt, Written
from fluvial.storage.dynamodb.writes.updates import BUFFER_BATCHES_MAX, guarded_update

log = logging.getLogger(__name__)

#: An update is billed by the kilobyte of the whole item, so the buffer is spilled before one more is begun.
#: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html
WRITE_UNIT_BYTES: Final = 1_024

#: A spill is two writes: for a single batch it would cost more than the next kilobyte.
SPILL_BATCHES_MIN: Final = 2

#: Spill at this many batches whatever the head costs already: long before an append must wait for a spill.
SPILL_BATCHES_MAX: Final = BUFFER_BATCHES_MAX // 4

#: One spill names each batch that it cuts off, and an expression may have 4 KB.
SPILL_AT_ONCE_MAX: Final = 100

#: The newest batches stay, so that live readers find them in the head: two of eight, none of three.
KEPT_MAX: Final = 2
KEPT_SHARE: Final = 4

#: What an element of the buffer takes besides its data: placement, commit id, and DynamoDB's own byte.
_BATCH_OVERHEAD_BYTES: Final = 10


class Spiller:
    """Spills buffers; at most one spill per stream runs in a process at a time."""

    def __init__(self, table: Table, heads: HeadCache, clock: Clock) -> None:
        """No spill is running."""
        self._table, self._heads, self._clock = table, heads, clock
        self._running: set[StreamName] = set()

    async def spill_if_due(self, name: StreamName, stored: HeadItem) -> HeadItem:
        """Spill when the next batch of this size would cost more. A failure is logged; the next writer tries again."""
        if not is_due(stored) or name in self._running:
            return stored
        self._running.add(name)
        try:
            return await self.spill(name, stored, keeping=min(KEPT_MAX, len(stored.buffer) // KEPT_SHARE))
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
        match await self._table.update(guarded_update(name, e, clauses, update)):
            case Written(item) | ConditionFailed(item):
                return self._heads.store(name, item)
            case InDoubt():
                return stored


def is_due(stored: HeadItem) -> bool:
    """Whether the next batch, if it is as large as the last one, should find an empty buffer."""
    count = len(stored.buffer)
    if count < SPILL_BATCHES_MIN:
        return False
    next_bytes = stored.item_bytes + len(stored.buffer[-1].data) + _BATCH_OVERHEAD_BYTES
    is_dearer = (next_bytes - 1) // WRITE_UNIT_BYTES > (stored.item_bytes - 1) // WRITE_UNIT_BYTES
    return is_dearer or count >= SPILL_BATCHES_MAX
