"""What one application counts: plain numbers, changed on its event loop alone, so that counting costs next to nothing.

1. Each application has its own numbers: two servers in one process do not add to each other's.
2. Labels have few values: routes are templates, methods and codes are of closed sets. No label names a project or a
   stream, of which there may be millions.
"""

from bisect import bisect_left
from collections import Counter
from typing import Final

from fluvial.metrics.histogram import COUNTS, SECONDS, Histogram
from fluvial.storage.observer import READS, AwsOutcome

#: The methods that have a label of their own; clients may send any other word.
METHODS: Final = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"})
OTHER_METHOD: Final = "other"

#: The route of all paths without a route.
UNMATCHED: Final = "unmatched"


class Metrics:
    """The numbers of one application; also a `StoreObserver` for its store."""

    def __init__(self) -> None:
        """Nothing has happened yet."""
        self.requests: dict[tuple[str, str, int], Histogram] = {}
        self.live_requests: Counter[tuple[str, str, int]] = Counter()
        self.live_reads: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.wakes: Counter[str] = Counter()
        self.append_count = 0
        self.append_bytes = 0
        self.commits, self.fsyncs, self.checkpoints = Histogram(), Histogram(), Histogram()
        self.incomplete_checkpoint_count = 0
        self.groups = Histogram(COUNTS)
        self.rotation_count = 0
        self.rotated_bytes = 0
        self.spill_count = 0
        self.aws_requests: Counter[tuple[str, str]] = Counter()
        self.read_units = 0.0
        self.write_units = 0.0

    def on_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        series = self.requests.get((route, method, status))
        if series is None:
            key = (route, method if method in METHODS else OTHER_METHOD, status)
            series = self.requests.setdefault(key, Histogram())
        series.counts[bisect_left(SECONDS, seconds)] += 1  # as `observe` does, without the call
        series.total += seconds

    def on_live_request(self, route: str, method: str, status: int) -> None:
        """Count a live read, whose duration says nothing of the server."""
        self.live_requests[route, method if method in METHODS else OTHER_METHOD, status] += 1

    def on_append(self, byte_count: int) -> None:
        """Count a client's append that was applied."""
        self.append_count += 1
        self.append_bytes += byte_count

    def on_wake(self, outcome: str) -> None:
        """Count an attempt to wake a subscription's worker, by what came of it."""
        self.wakes[outcome] += 1

    def on_group(self, commit_count: int, seconds: float) -> None:
        """See StoreObserver.on_group."""
        self.groups.observe(commit_count)
        self.commits.observe(seconds)

    def on_fsync(self, seconds: float) -> None:
        """See StoreObserver.on_fsync."""
        self.fsyncs.observe(seconds)

    def on_checkpoint(self, seconds: float, *, is_complete: bool) -> None:
        """See StoreObserver.on_checkpoint."""
        self.checkpoints.observe(seconds)
        self.incomplete_checkpoint_count += not is_complete

    def on_rotation(self, byte_count: int) -> None:
        """See StoreObserver.on_rotation."""
        self.rotation_count += 1
        self.rotated_bytes += byte_count

    def on_aws_request(self, operation: str, outcome: AwsOutcome) -> None:
        """See StoreObserver.on_aws_request."""
        self.aws_requests[operation, outcome.value] += 1

    def on_units(self, operation: str, units: float) -> None:
        """See StoreObserver.on_units."""
        if operation in READS:
            self.read_units += units
        else:
            self.write_units += units
