"""Commit times: whether the disk is fast enough for an fsync on the event loop."""

from typing import Final

#: An fsync on the loop must be shorter than this, because every request of the process waits for it.
FAST_S_MAX: Final = 0.001

#: The part of a slow COMMIT's time that each COMMIT after it leaves: one of 5 ms keeps the next 160 off the loop.
_KEPT: Final = 0.99


class CommitTimes:
    """The time of the slowest recent COMMIT, which fades with each COMMIT. A mean would hide the one in a hundred."""

    def __init__(self) -> None:
        """The first COMMIT counts as slow, because the disk is unknown."""
        self._slowest_s = 2 * FAST_S_MAX

    @property
    def is_fast(self) -> bool:
        """Whether all recent COMMITs were fast."""
        return self._slowest_s <= FAST_S_MAX

    def add(self, seconds: float) -> None:
        """Count the time of one COMMIT."""
        self._slowest_s = max(seconds, self._slowest_s * _KEPT)
