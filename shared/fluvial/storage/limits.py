"""StoreLimits: the limits of a store that the opener of the store may choose."""

from dataclasses import dataclass
from typing import Final

from fluvial.model.limits import SEGMENT_BATCHES, SEGMENT_BYTES


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """The defaults are what a server runs with. Tests choose small limits, which a few batches reach, and short pauses.

    Limits that have one value everywhere are constants beside the code that they bound.
    """

    #: A segment is written when the hot log holds this many bytes or this many batches.
    segment_bytes: int = SEGMENT_BYTES
    segment_batches: int = SEGMENT_BATCHES

    #: SQLite: the bytes of one group of commits, so few that no other commit waits long for its transaction.
    group_bytes_max: int = 16 * 1_048_576

    #: The bytes of commits that wait for a group, and with SQLite the number of background jobs. Past that, a commit is
    #: answered with a 503 at once, and a job is tried again later.
    pending_bytes_max: int = 256 * 1_048_576
    pending_work_max: int = 4_096

    #: SQLite: a disk with less than this free is full for `probe_write`: the log would fit into the database no more,
    #: and many an append not into the log. (A small one may still be stored.)
    free_disk_bytes_min: int = 16 * 1_048_576

    #: DynamoDB: the first pause before the retry of a request that the table was too busy for, and before a fence.
    busy_pause_s: float = 0.05
    fence_pause_s: float = 0.05

    #: DynamoDB: an append that has waited so long for its group is answered with a 503, and not written: its client may
    #: have gone.
    group_wait_s: float = 10.0


STORE_LIMITS: Final = StoreLimits()
