"""Measures a store's size for scrapes, seldom enough to cost next to nothing.

Counting takes time in proportion to what is stored, about a second for some million streams. So a measurement that
took t seconds is not repeated for WORK_RATIO times t: however large the store is, counting takes at most a hundredth of
a core. A scrape waits for a measurement only briefly, and otherwise has the numbers of the last one.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from fluvial.model.errors import StoreError
from fluvial.storage.observer import MeasuredStore, StoreSize

#: How long a measurement is good for, at least.
FRESH_S: Final = 5.0

WORK_RATIO: Final = 100

#: How long a scrape waits for a measurement.
PATIENCE_S: Final = 0.5


@dataclass(slots=True)
class Sampler:
    """The size of a store as it was measured last; None for a store that does not measure itself."""

    store: object
    monotonic_s: Callable[[], float] = time.monotonic
    latest: StoreSize | None = None
    _due_at: float = float("-inf")
    _measuring: asyncio.Task[None] | None = field(default=None)

    async def refresh(self, patience_s: float = PATIENCE_S) -> None:
        """Measure if it is due. A measurement that takes longer goes on, for a later call. Raises nothing."""
        if not isinstance(self.store, MeasuredStore):
            return
        if self._measuring is None and self.monotonic_s() >= self._due_at:
            self._measuring = asyncio.create_task(self._measure(self.store), name="store size")
        if self._measuring is not None:
            await asyncio.wait({self._measuring}, timeout=patience_s)

    async def _measure(self, store: MeasuredStore) -> None:
        began = self.monotonic_s()
        try:
            self.latest = await store.measure()
        except StoreError:
            self.latest = None  # a scrape without sizes is better than one with false ones
        finally:
            ended = self.monotonic_s()
            self._due_at = ended + max(FRESH_S, WORK_RATIO * (ended - began))
            self._measuring = None
