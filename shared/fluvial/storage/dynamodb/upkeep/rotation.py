"""Rotation: move a stream's older hot segments into one cold segment in S3.

The steps: write the object, put a pointer to it over the last of the hot segments, note the new end of the cold part in
the head, delete the other hot segments. Several processes may rotate one stream at the same time, and a request may be
carried out late. So a pointer is put only over a hot segment, and only hot segments are deleted.
"""

import logging
from dataclasses import dataclass
from typing import Final

from fluvial.clock import Clock
from fluvial.model.commit import CommitId
from fluvial.model.head import Head, Incarnation
from fluvial.model.names import StreamName
from fluvial.storage.dynamodb.backend import Backend
from fluvial.storage.dynamodb.reads.cold_segments import segment_object_key
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.expression import Expression
from fluvial.storage.dynamodb.table.head_cache import HeadCache
from fluvial.storage.dynamodb.table.items import (
    ColdSegment,
    HeadItem,
    HotSegment,
    StoredBatch,
    decode_segment,
    encode_cold_segment,
    encode_incarnation,
)
from fluvial.storage.dynamodb.table.keys import incarnation_partition, segment_key, segment_sort
from fluvial.storage.dynamodb.table.write_outcome import ConditionFailed, InDoubt, Written
from fluvial.storage.dynamodb.writes.spill import Spiller
from fluvial.storage.dynamodb.writes.updates import guarded_update
from fluvial.storage.limits import STORE_LIMITS, StoreLimits

log = logging.getLogger(__name__)

SEGMENTS_PER_QUERY: Final = 100


@dataclass(frozen=True, slots=True)
class _Piece:
    """The batches that a hot segment contributes to a cold one."""

    segment: HotSegment
    batches: tuple[StoredBatch, ...]


@dataclass(frozen=True, slots=True)
class _Chain:
    """Consecutive hot segments from `start` on.

    `unnoted` counts the batches of cold segments that the head does not know yet, because the process that wrote them
    died or is about to note them.
    """

    start: int
    unnoted: int
    pieces: list[_Piece]


def rotation_is_due(stored: HeadItem, limits: StoreLimits) -> bool:
    """Whether the hot segments are enough for a cold one, or no more will come."""
    head = stored.head
    if head is None:
        return False
    hot_bytes = stored.base - max(stored.cold_end, head.own_start)
    if hot_bytes >= limits.segment_bytes or stored.spilled >= limits.segment_batches:
        return True
    return head.closed and (hot_bytes > 0 or bool(stored.buffer))


class Rotator:
    """Moves the bytes of one stream at a time."""

    def __init__(
        self, backend: Backend, spiller: Spiller, heads: HeadCache, clock: Clock, limits: StoreLimits = STORE_LIMITS
    ) -> None:
        """`spiller` empties the buffer of a closed stream first."""
        self._limits = limits
        self._table, self._cold, self._owner = backend.table, backend.cold, backend.owner
        self._payloads, self._groups = backend.payloads, backend.groups
        self._spiller, self._heads, self._clock = spiller, heads, clock

    async def rotate(self, name: StreamName) -> bool:
        """Write one cold segment if one is due; whether another one may be due.

        Raises StoreUnavailable, StoreUncertain, StorageDamaged.
        """
        stored = await self._heads.load(name)
        head = stored.head
        if head is None or not rotation_is_due(stored, self._limits):
            return False
        if not await self._owner.is_own():
            return False  # another table may point to the payloads that the rotation would delete
        while head.closed and stored.buffer:
            base, stored = stored.base, await self._spiller.spill(name, stored)
            if stored.base == base:
                return False  # another process spills, or requests fail
        chain = await self._load_chain(head, stored)
        if not chain.pieces:
            if chain.unnoted:
                await self._note_cold_end(name, stored, chain.start, chain.unnoted)
            return False
        segment = await self._write_object(name, head.incarnation, chain)
        if not await self._put_pointer(head.incarnation, segment):
            return False
        await self._note_cold_end(name, stored, segment.end, chain.unnoted + len(segment.ends))
        await self._delete_replaced(head.incarnation, segment, chain.pieces)
        return True

    async def _load_chain(self, head: Head, stored: HeadItem) -> _Chain:
        """The hot segments from where the cold part ends, as far as one cold segment may go."""
        position = start = max(stored.cold_end, head.own_start)
        after, pieces, batch_count, unnoted = segment_sort(start), list[_Piece](), 0, 0
        while position < stored.base:
            items = await self._table.query(
                incarnation_partition(head.incarnation), after=after, limit=SEGMENTS_PER_QUERY
            )
            if not items:
                break
            for item in items:
                after = item[a.SK]["S"]
                segment = decode_segment(item)
                if segment.end > stored.base:
                    # It was put but not cut off yet: the head still points to its payloads.
                    return _Chain(start, unnoted, pieces)
                if not segment.start <= position < segment.end:
                    continue
                if isinstance(segment, ColdSegment):
                    if pieces:
                        return _Chain(start, unnoted, pieces)
                    start = segment.end
                    unnoted += sum(end > position for end in segment.ends)
                else:
                    batches = _batches_from(segment, position)
                    pieces.append(_Piece(segment, batches))
                    batch_count += sum(batch.batch_count for batch in batches)
                position = segment.end
                if batch_count >= self._limits.segment_batches or position - start >= self._limits.segment_bytes:
                    return _Chain(start, unnoted, pieces)
        return _Chain(start, unnoted, pieces)

    async def _write_object(self, name: StreamName, incarnation: Incarnation, chain: _Chain) -> ColdSegment:
        parts, ids, ends, position = list[bytes](), list[CommitId](), list[int](), chain.start
        for piece in chain.pieces:
            batches = await self._groups.expand(piece.segment.owner, piece.batches)
            parts += await self._payloads.load(piece.segment.owner, batches)
            for batch in batches:
                position += batch.byte_count
                ends.append(position)
                ids.append(batch.commit_id)
        key = segment_object_key(incarnation, chain.start, position, self._clock.new_commit_id())
        await self._cold.put(key, b"".join(parts), ids)
        return ColdSegment(chain.start, tuple(ends), key, name, self._clock.now_ms())

    async def _put_pointer(self, incarnation: Incarnation, segment: ColdSegment) -> bool:
        """Put the pointer; False when another rotation has put one, or when the put is in doubt."""
        condition = f"attribute_exists({a.PK}) AND attribute_not_exists({a.OBJECT_KEY})"
        match await self._table.put(encode_cold_segment(incarnation, segment), ConditionExpression=condition):
            case Written():
                return True
            case ConditionFailed():
                await self._cold.remove(segment.object_key)
                return False
            case InDoubt():
                return False  # the next rotation goes on; the sweep deletes an object without a pointer

    async def _note_cold_end(self, name: StreamName, seen: HeadItem, end: int, batch_count: int) -> None:
        """Note in the head where the cold part ends, unless another rotation has noted something since it was seen.

        It is a hint where the next rotation starts; what is not noted now, the next rotation notes.
        """
        assert seen.head is not None, "what rotates has a head"
        e = Expression()
        cold_end, spilled = e.name(a.COLD_END), e.name(a.SPILLED)
        is_as_seen = f"{cold_end} = {e.value(seen.cold_end)}" if seen.cold_end else f"attribute_not_exists({cold_end})"
        clauses = [f"{e.name(a.INCARNATION)} = {e.value(encode_incarnation(seen.head.incarnation))}", is_as_seen]
        update = f"SET {cold_end} = {e.value(end)}, {spilled} = {spilled} - {e.value(batch_count)}"
        match await self._table.update(guarded_update(name, e, clauses, update)):
            case Written(item):
                self._heads.store(name, item)
            case ConditionFailed() | InDoubt():
                log.info("cold_end_not_noted", extra={"stream": name})

    async def _delete_replaced(self, incarnation: Incarnation, segment: ColdSegment, pieces: list[_Piece]) -> None:
        """Delete the hot segments that a cold one replaces, and the payloads that only they pointed to."""
        for piece in pieces:
            if piece.segment.end != segment.end:
                outcome = await self._table.delete(
                    segment_key(incarnation, piece.segment.end),
                    ConditionExpression=f"attribute_not_exists({a.OBJECT_KEY})",
                )
                if not isinstance(outcome, Written):
                    continue  # the sweep deletes it
            await self._payloads.remove(piece.segment.owner, piece.batches)


def _batches_from(segment: HotSegment, position: int) -> tuple[StoredBatch, ...]:
    at = segment.start
    for index, batch in enumerate(segment.batches):
        if at == position:
            return segment.batches[index:]
        at += batch.byte_count
    raise AssertionError("segments that overlap share their batches' bounds")
