"""A world that stands still until a test moves it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count

from fluvial.core.commit import COMMIT_ID_BYTES, CommitId
from fluvial.core.head import Incarnation
from fluvial.world import World

START_MS = 1_800_000_000_000


@dataclass
class ManualClock:
    """Wall-clock milliseconds that only `advance` changes."""

    now_ms: int = START_MS

    def advance(self, milliseconds: int) -> None:
        """Let time pass."""
        self.now_ms += milliseconds


@dataclass
class StillWorld:
    """A manual clock, incarnations that count up from 1, and a die that always shows the same.

    No two commits have the same id, whichever process they are of.
    """

    clock: ManualClock = field(default_factory=ManualClock)
    jitter: float = 0.5
    commits: Iterator[int] = field(default_factory=lambda: count(1))

    def own_world(self) -> World:
        """A world for one of several processes: none of them makes an id that another one makes."""
        return replace(self.world(), new_incarnation=World().new_incarnation, new_commit_id=World().new_commit_id)

    def world(self) -> World:
        """The world to hand to what is tested."""
        numbers = count(1)
        return World(
            now_ms=lambda: self.clock.now_ms,
            new_incarnation=lambda: Incarnation(next(numbers)),
            new_commit_id=lambda: CommitId(next(self.commits).to_bytes(COMMIT_ID_BYTES, "big")),
            jitter=lambda: self.jitter,
        )
