"""Latencies as counts, so that a long load needs no more memory than a short one."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Self

#: How much longer the longest latency of a step is than the shortest: the error of a percentile.
STEP: Final = 1.005
_LOG_STEP: Final = math.log(STEP)
_SHORTEST_S: Final = 1e-6


@dataclass
class Latencies:
    """Latencies in steps of half a percent. The longest one is exact."""

    count: int = 0
    longest_s: float = 0.0
    steps: Counter[int] = field(default_factory=Counter)

    def add(self, seconds: float) -> None:
        """Count one."""
        self.count += 1
        self.longest_s = max(self.longest_s, seconds)
        self.steps[int(math.log(max(seconds, _SHORTEST_S) / _SHORTEST_S) / _LOG_STEP)] += 1

    def percentile_ms(self, percent: float) -> float:
        """A percentile in milliseconds; 0 of none."""
        place, before = self.count * percent / 100, 0
        for step in sorted(self.steps):
            before += self.steps[step]
            if before > place:
                return 1_000 * min(self.longest_s, _SHORTEST_S * STEP ** (step + 1))
        return self.longest_ms

    @property
    def longest_ms(self) -> float:
        """The longest one in milliseconds."""
        return 1_000 * self.longest_s

    @classmethod
    def of_all(cls, parts: Iterable[Self]) -> Self:
        """All latencies of several loads."""
        total = cls()
        for part in parts:
            total.count += part.count
            total.longest_s = max(total.longest_s, part.longest_s)
            total.steps.update(part.steps)
        return total
