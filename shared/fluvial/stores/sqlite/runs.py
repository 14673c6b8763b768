"""Runs: contiguous batches of one life as bytes and batch ends, in memory, in a row and in a segment file."""

import struct
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from fluvial.core.errors import OffsetNotIssued


@dataclass(frozen=True, slots=True)
class Run:
    """Bytes from `start` on; `ends` are the batches' end positions in the stream, ascending, the last is the run's."""

    start: int
    ends: tuple[int, ...]
    data: bytes

    @property
    def end(self) -> int:
        """The position after the run's last byte."""
        return self.ends[-1]

    def cut(self, position: int, end_max: int, byte_count_max: int) -> "Run":
        """The batches from `position` that end by `end_max` and fit; at least one, itself cut at `end_max`.

        Raises OffsetNotIssued when no batch begins at `position`.
        """
        if position == self.start and self.end <= end_max and self.end - self.start <= byte_count_max:
            return self
        first = bisect_right(self.ends, position)
        begins = self.ends[first - 1] if first else self.start
        if begins != position:
            raise OffsetNotIssued
        fitting = bisect_right(self.ends, min(position + byte_count_max, end_max))
        ends = self.ends[first : max(fitting, first + 1)]
        if ends[-1] > end_max:
            ends = (*ends[:-1], end_max)
        return Run(position, ends, self.data[position - self.start : ends[-1] - self.start])


def joined(runs: list[Run]) -> Run:
    """One run of several that follow one another."""
    if len(runs) == 1:
        return runs[0]
    ends = tuple(end for run in runs for end in run.ends)
    return Run(runs[0].start, ends, b"".join(run.data for run in runs))


def packed_ends(ends: Iterable[int]) -> bytes:
    """Batch ends as they are stored: 64-bit little-endian."""
    ends = tuple(ends)
    return struct.pack(f"<{len(ends)}q", *ends)


def unpacked_ends(packed: bytes) -> tuple[int, ...]:
    """Batch ends as they were before `packed_ends`."""
    return struct.unpack(f"<{len(packed) // 8}q", packed)
