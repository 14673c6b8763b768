"""The page reader: a page's bytes from the head's buffer, hot segments, payloads and ranges of S3 objects.

Rules:

1. A late request may put back a hot segment that rotation has deleted. So a reader takes the first segment that ends
   after its position and starts at or before it, and slices it.
2. A rotation may move the bytes between two requests of one page. Then the page is read again, from the start.
3. Segments and payloads never change, so they are read with eventual consistency first, at half the price. What such a
   read shows is true; only what it lacks is read again, strongly. A stale answer may lack a segment that was put a
   moment ago, or show hot segments whose payloads rotation has deleted since.
"""

import logging
from collections.abc import Sequence
from typing import Final

from fluvial.model.errors import StorageDamaged, StreamVanished
from fluvial.model.head import Head, Incarnation, Span
from fluvial.model.names import StreamName
from fluvial.model.page import Page
from fluvial.storage.batch_range import BatchRange, concatenate, fitting_batches, read_ranges
from fluvial.storage.dynamodb.backend import Backend
from fluvial.storage.dynamodb.table.head_cache import HeadCache
from fluvial.storage.dynamodb.table.items import (
    ColdSegment,
    HeadItem,
    HotSegment,
    Placement,
    Segment,
    StoredBatch,
    decode_segment,
)
from fluvial.storage.dynamodb.table.keys import incarnation_partition, segment_sort

log = logging.getLogger(__name__)

#: A hot segment holds about a kilobyte of small batches: this estimates how many segments a page needs.
SEGMENT_BYTES_GUESS: Final = 1_024
SEGMENTS_PER_QUERY_MIN: Final = 2
SEGMENTS_PER_QUERY_MAX: Final = 256

#: Tries of a page whose bytes were moved by a rotation while they were read.
TRIES_MAX: Final = 3


class PageReader:
    """Reads committed bytes from the buffer, hot segments and cold segments."""

    def __init__(self, backend: Backend, heads: HeadCache) -> None:
        """`heads` tells where the buffer begins."""
        self._table, self._cold = backend.table, backend.cold
        self._payloads, self._groups = backend.payloads, backend.groups
        self._heads = heads

    async def read(self, name: StreamName, head: Head, start: int, byte_count_max: int) -> Page:
        """See Store.read."""

        async def read_range(span: Span, position: int, room: int) -> BatchRange:
            if span.incarnation != head.incarnation:
                return await self._read_segments(span.incarnation, position, min(room, span.end - position))
            stored = self._heads.get(name)
            if not _covers(stored, head, position):
                stored = await self._heads.load(name)
            if stored is None or stored.head is None or stored.head.incarnation != head.incarnation:
                raise StreamVanished
            if position < stored.base:
                return await self._read_segments(span.incarnation, position, min(room, stored.base - position))
            return await self._read_buffer(name, stored, position, room)

        for tried in range(1, TRIES_MAX + 1):
            try:
                found = concatenate(await read_ranges(head, start, byte_count_max, read_range))
            except StorageDamaged as exc:
                stored = await self._heads.load(name)
                if stored.head is None or stored.head.incarnation != head.incarnation:
                    raise StreamVanished from exc
                if tried < TRIES_MAX:  # rotation may have moved the bytes between two requests
                    continue
                log.exception("bytes_missing", extra={"stream": name, "position": start, "tail": head.tail})
                raise
            return Page(found.start, found.end, found.data, found.ends)
        raise AssertionError("the last try returns or raises")

    async def _read_buffer(self, name: StreamName, stored: HeadItem, position: int, room: int) -> BatchRange:
        """The buffer's batches from `position` on, as many as fit."""
        return await self._load_range(name, stored.base, stored.buffer, (position, room))

    async def _read_segments(self, incarnation: Incarnation, position: int, room: int) -> BatchRange:
        """Batches from segments: the one that has `position`, and what follows it in the queried segments and fits."""
        limit = max(SEGMENTS_PER_QUERY_MIN, min(SEGMENTS_PER_QUERY_MAX, room // SEGMENT_BYTES_GUESS))
        partition, after = incarnation_partition(incarnation), segment_sort(position)
        stale = await self._table.query(partition, after=after, limit=limit, consistent=False)
        ranges = await self._read_chain([decode_segment(item) for item in stale], position, room)
        while not ranges:
            items = await self._table.query(partition, after=after, limit=limit)
            if not items:
                raise StorageDamaged("no segment has the position")
            segments = [decode_segment(item) for item in items]
            after = segment_sort(segments[-1].end)
            ranges = await self._read_chain(segments, position, room)
        return concatenate(ranges)

    async def _read_chain(self, segments: list[Segment], position: int, room: int) -> list[BatchRange]:
        """Batches from the position on, of segments in the order of their ends; none if no segment leads to them."""
        ranges, at = list[BatchRange](), position
        for segment in segments:
            if not segment.start <= at < segment.end or at - position >= room:
                continue
            try:
                found = await self._read_segment(segment, at, room - (at - position))
            except StorageDamaged:
                continue  # a late put of a hot segment; a later segment has its bytes
            ranges.append(found)
            at = found.end
            if isinstance(segment, ColdSegment):
                break
        return ranges

    async def _read_segment(self, segment: Segment, position: int, room: int) -> BatchRange:
        if isinstance(segment, HotSegment):
            return await self._load_range(segment.owner, segment.start, segment.batches, (position, room))
        start, ends = fitting_batches(segment.start, segment.ends, position, position + room)
        return BatchRange(start, ends, await self._cold.read(segment, start, ends[-1]))

    async def _load_range(
        self, owner: StreamName, start: int, batches: Sequence[StoredBatch], wanted: tuple[int, int]
    ) -> BatchRange:
        """The batches from a position on that fit into some room, of batches that begin at `start`."""
        start, taken = _batches_from(start, batches, *wanted)
        if any(batch.placement is Placement.GROUP for batch in taken):
            start, taken = _batches_from(start, await self._groups.expand(owner, taken), *wanted)
        parts = await self._payloads.load(owner, taken)
        ends, position = list[int](), start
        for part in parts:
            position += len(part)
            ends.append(position)
        return BatchRange(start, tuple(ends), b"".join(parts))


def _covers(stored: HeadItem | None, head: Head, position: int) -> bool:
    if stored is None or stored.head is None or stored.head.incarnation != head.incarnation:
        return False
    return position < max(stored.base, stored.head.tail)


def _batches_from(
    start: int, batches: Sequence[StoredBatch], position: int, room: int
) -> tuple[int, list[StoredBatch]]:
    """The position where the batch with `position` starts, and the batches from it on that fit into `room`.

    Of a group that does not fit some batches may: it is taken, to be expanded.
    """
    taken, at, first = list[StoredBatch](), start, start
    for batch in batches:
        end = at + batch.byte_count
        if end > position:
            if not taken:
                first = at
            elif end - position > room and (batch.placement is not Placement.GROUP or at - position >= room):
                break
            taken.append(batch)
        at = end
    return first, taken
