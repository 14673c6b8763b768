"""Commit times: whether the disk is fast enough for an fsync on the event loop."""

from typing import Final

#: An fsync on the loop must be shorter than this: everybody waits for it.
FAST_S_MAX: Final = 0.001

#: What is left of a slow COMMIT's time with each COMMIT after it: one of 5 ms keeps the next 160 off the loop.
_KEPT: Final = 0.99


class CommitTimes:
    """The slowest COMMIT of late, forgotten little by little; a mean would hide the one in a hundred that is slow."""

    def __init__(self) -> None:
        """Nothing is known of the disk, so it counts as slow at first."""
        self._slowest_s = 2 * FAST_S_MAX

    @property
    def is_fast(self) -> bool:
        """Whether none has been slow lately."""
        return self._slowest_s <= FAST_S_MAX

    def add(self, seconds: float) -> None:
        """A COMMIT has taken so long."""
        self._slowest_s = max(seconds, self._slowest_s * _KEPT)
