"""Batch ranges: contiguous batches of one incarnation, as bytes and batch ends; in memory, in rows and in files."""

import struct
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from fluvial.model.head import Head, Span, spans_of


@dataclass(frozen=True, slots=True)
class BatchRange:
    """The bytes from `start` to the last of `ends`, which are the batches' end positions in the stream, ascending."""

    start: int
    ends: tuple[int, ...]
    data: bytes

    @property
    def end(self) -> int:
        """The position after the last byte."""
        return self.ends[-1]

    def cut(self, position: int, end_max: int, byte_count_max: int) -> "BatchRange":
        """The batches from the one that contains `position`, as many as end by `end_max` and fit in `byte_count_max`.

        At least one batch. It may end after `end_max`; then it is cut there.
        """
        if position == self.start and self.end <= end_max and self.end - self.start <= byte_count_max:
            return self
        start, ends = fitting_batches(self.start, self.ends, position, min(position + byte_count_max, end_max))
        if ends[-1] > end_max:
            ends = (*ends[:-1], end_max)
        return BatchRange(start, ends, self.data[start - self.start : ends[-1] - self.start])


def fitting_batches(start: int, ends: tuple[int, ...], position: int, end_max: int) -> tuple[int, tuple[int, ...]]:
    """The start of the batch that contains `position`, and the ends of the batches from it on that end by `end_max`.

    At least one end. `start` is where the first batch begins, at or before `position`.
    """
    first = bisect_right(ends, position)
    begins = ends[first - 1] if first else start
    return begins, ends[first : max(bisect_right(ends, end_max), first + 1)]


#: `load_range(span, position, room)` returns a range of the span's incarnation that contains `position`, in which about
#: `room` bytes from there on are wanted. It may return fewer or more, also batches before `position`.
LoadRange = Callable[[Span, int, int], Awaitable[BatchRange]]


async def read_ranges(head: Head, start: int, byte_count_max: int, load_range: LoadRange) -> list[BatchRange]:
    """The ranges from the batch that contains `start`, in order, of a stream's ancestors and of the stream itself.

    As many whole batches as fit in `byte_count_max`, and at least one.
    """
    position, ranges, byte_count = start, list[BatchRange](), 0
    for span in spans_of(head):
        while span.start <= position < span.end and byte_count < byte_count_max:
            room = byte_count_max - byte_count
            loaded = (await load_range(span, position, room)).cut(position, span.end, room)
            if ranges and loaded.end - position > room:
                return ranges
            ranges.append(loaded)
            byte_count += loaded.end - position
            position = loaded.end
    return ranges


def concatenate(ranges: list[BatchRange]) -> BatchRange:
    """One range of several that follow one another; at least one must be given."""
    assert ranges, "a batch contains every position before the tail"
    if len(ranges) == 1:
        return ranges[0]
    ends = tuple(end for one in ranges for end in one.ends)
    return BatchRange(ranges[0].start, ends, b"".join(one.data for one in ranges))


def pack_ends(ends: Iterable[int]) -> bytes:
    """Encode batch ends as they are stored: 64-bit little-endian."""
    ends = tuple(ends)
    return struct.pack(f"<{len(ends)}q", *ends)


def unpack_ends(packed: bytes) -> tuple[int, ...]:
    """Decode the result of `pack_ends`."""
    return struct.unpack(f"<{len(packed) // 8}q", packed)
