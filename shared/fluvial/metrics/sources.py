"""What metrics are read from at a scrape, besides the counted numbers."""

from collections.abc import Callable
from dataclasses import dataclass

from fluvial.metrics.sampler import Sampler


def none_yet() -> int:
    """Zero: there is nothing to count."""
    return 0


@dataclass(slots=True)
class Sources:
    """Asked at each scrape, so each must be quick."""

    store_kind: str
    sampler: Sampler
    live_reads_max: int = 0
    fan_out_backlog: Callable[[], int] = none_yet
    wakes_under_way: Callable[[], int] = none_yet
    rejected_origins: Callable[[], int] = none_yet
    dropped_log_lines: Callable[[], int] = none_yet
