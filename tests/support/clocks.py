"""Clocks for tests: time moves only when a test advances it, and random values are predictable."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count

from fluvial.clock import Clock
from fluvial.model.commit import COMMIT_ID_BYTES, CommitId
from fluvial.model.head import Incarnation

START_MS = 1_800_000_000_000


@dataclass
class ManualTime:
    """Wall-clock time in milliseconds that only `advance` changes."""

    now_ms: int = START_MS

    def advance(self, milliseconds: int) -> None:
        """Move the time forward."""
        self.now_ms += milliseconds


@dataclass
class FixedClock:
    """Makes clocks with a manual time, incarnations that count up from 1, and a constant jitter.

    All clocks of one FixedClock share its time and its commit ids, so no two of their commits have the same id.
    """

    time: ManualTime = field(default_factory=ManualTime)
    jitter: float = 0.5
    commits: Iterator[int] = field(default_factory=lambda: count(1))

    def own_clock(self) -> Clock:
        """A clock for one of several processes: the time is shared, but incarnations and commit ids are random."""
        return replace(self.clock(), new_incarnation=Clock().new_incarnation, new_commit_id=Clock().new_commit_id)

    def clock(self) -> Clock:
        """A clock for the code under test."""
        numbers, wakes = count(1), count(1)
        return Clock(
            now_ms=lambda: self.time.now_ms,
            new_incarnation=lambda: Incarnation(next(numbers)),
            new_commit_id=lambda: CommitId(next(self.commits).to_bytes(COMMIT_ID_BYTES, "big")),
            new_wake_id=lambda: f"w_{next(wakes)}",
            jitter=lambda: self.jitter,
        )
