"""A store's limits that are chosen when it is opened: tests reach them with a few batches, and wait for nothing."""

from dataclasses import dataclass
from typing import Final

from fluvial.model.limits import SEGMENT_BATCHES, SEGMENT_BYTES


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """Each has the value that a server runs with; a limit that nobody chooses stands beside what it bounds."""

    #: A segment is written when the hot log holds this much, whichever comes first.
    segment_bytes: int = SEGMENT_BYTES
    segment_batches: int = SEGMENT_BATCHES

    #: SQLite: the bytes that one transaction takes, too few to make anybody wait for long.
    group_bytes_max: int = 16 * 1_048_576

    #: SQLite: what may wait for its transaction; past it the answer is a 503 at once.
    pending_bytes_max: int = 256 * 1_048_576
    pending_work_max: int = 4_096

    #: DynamoDB: the first pause before what it was too busy for is tried again, and before a fence is.
    busy_pause_s: float = 0.05
    fence_pause_s: float = 0.05


STORE_LIMITS: Final = StoreLimits()
