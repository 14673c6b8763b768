"""A world that stands still until a test moves it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count

from fluvial.clock import Clock
from fluvial.model.commit import COMMIT_ID_BYTES, CommitId
from fluvial.model.head import Incarnation

START_MS = 1_800_000_000_000


@dataclass
class ManualTime:
    """Wall-clock milliseconds that only `advance` changes."""

    now_ms: int = START_MS

    def advance(self, milliseconds: int) -> None:
        """Let time pass."""
        self.now_ms += milliseconds


@dataclass
class FixedClock:
    """A manual clock, incarnations that count up from 1, and a die that always shows the same.

    No two commits have the same id, whichever process they are of.
    """

    time: ManualTime = field(default_factory=ManualTime)
    jitter: float = 0.5
    commits: Iterator[int] = field(default_factory=lambda: count(1))

    def own_clock(self) -> Clock:
        """A world for one of several processes: none of them makes an id that another one makes."""
        return replace(self.clock(), new_incarnation=Clock().new_incarnation, new_commit_id=Clock().new_commit_id)

    def clock(self) -> Clock:
        """The world to hand to what is tested."""
        numbers = count(1)
        return Clock(
            now_ms=lambda: self.time.now_ms,
            new_incarnation=lambda: Incarnation(next(numbers)),
            new_commit_id=lambda: CommitId(next(self.commits).to_bytes(COMMIT_ID_BYTES, "big")),
            jitter=lambda: self.jitter,
        )
