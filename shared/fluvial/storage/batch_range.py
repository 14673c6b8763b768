"""Runs: contiguous batches of one life as bytes and batch ends, in memory, in a row and in a segment file."""

import struct
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from fluvial.model.head import Head, Span, spans_of


@dataclass(frozen=True, slots=True)
class BatchRange:
    """Bytes from `start` on; `ends` are the batches' end positions in the stream, ascending, the last is the run's."""

    start: int
    ends: tuple[int, ...]
    data: bytes

    @property
    def end(self) -> int:
        """The position after the run's last byte."""
        return self.ends[-1]

    def cut(self, position: int, end_max: int, byte_count_max: int) -> "BatchRange":
        """The batches from the one that has `position` on that end by `end_max` and fit.

        At least one, itself cut at `end_max`.
        """
        if position == self.start and self.end <= end_max and self.end - self.start <= byte_count_max:
            return self
        start, ends = fitting_batches(self.start, self.ends, position, min(position + byte_count_max, end_max))
        if ends[-1] > end_max:
            ends = (*ends[:-1], end_max)
        return BatchRange(start, ends, self.data[start - self.start : ends[-1] - self.start])


def fitting_batches(start: int, ends: tuple[int, ...], position: int, end_max: int) -> tuple[int, tuple[int, ...]]:
    """Where the batch begins that has `position`, and the ends of the batches from it up to `end_max`.

    Of one batch at least. `start` is where the first batch begins, and not after `position`.
    """
    first = bisect_right(ends, position)
    begins = ends[first - 1] if first else start
    return begins, ends[first : max(bisect_right(ends, end_max), first + 1)]


ReadRange = Callable[[Span, int, int], Awaitable[BatchRange]]


async def read_ranges(head: Head, start: int, byte_count_max: int, run_at: ReadRange) -> list[BatchRange]:
    """The runs from the batch that has `start` on, over a stream's ancestors and itself.

    As many whole batches as fit, and at least one.
    `run_at(span, position, room)` tells a run of the span's life that has `position`, and what is at hand after it.
    """
    position, runs, byte_count = start, list[BatchRange](), 0
    for span in spans_of(head):
        while span.start <= position < span.end and byte_count < byte_count_max:
            room = byte_count_max - byte_count
            run = (await run_at(span, position, room)).cut(position, span.end, room)
            if runs and run.end - position > room:
                return runs
            runs.append(run)
            byte_count += run.end - position
            position = run.end
    return runs


def concatenate(runs: list[BatchRange]) -> BatchRange:
    """One run of several that follow one another; of one at least."""
    assert runs, "where there is a position before the tail, there is a run that has it"
    if len(runs) == 1:
        return runs[0]
    ends = tuple(end for run in runs for end in run.ends)
    return BatchRange(runs[0].start, ends, b"".join(run.data for run in runs))


def packed_ends(ends: Iterable[int]) -> bytes:
    """Batch ends as they are stored: 64-bit little-endian."""
    ends = tuple(ends)
    return struct.pack(f"<{len(ends)}q", *ends)


def unpacked_ends(packed: bytes) -> tuple[int, ...]:
    """Batch ends as they were before `packed_ends`."""
    return struct.unpack(f"<{len(packed) // 8}q", packed)
