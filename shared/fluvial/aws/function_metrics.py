"""A function's metrics for CloudWatch: the counters of its process, in lines of the embedded metric format.

- The counters are those of every server (fluvial.metrics). After each event the function logs by how much they have
  grown, with Powertools' Metrics: https://docs.aws.amazon.com/powertools/python/latest/core/metrics/
- A metric has two dimensions, the stack and the function (`service`). What is zero is not logged: CloudWatch bills a
  metric for the hours in which it came, and logs by the byte.
"""

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, Final

from aws_lambda_powertools.metrics import EphemeralMetrics

from fluvial.metrics.log_events import LOG_EVENTS, LogEvents
from fluvial.metrics.metrics import Metrics
from fluvial.storage.observer import AwsOutcome

NAMESPACE: Final = "Fluvial"

#: Warnings whose cause is a client: they say nothing of the stack.
CLIENTS_WARNINGS: Final = frozenset({"origin_refused", "message_not_published"})

#: Metrics that are no counts; CloudWatch shows others without a unit.
_UNITS: Final = {
    "AppendedBytes": "Bytes",
    "RotatedBytes": "Bytes",
    "FollowersLagBytes": "Bytes",
    "BroadcastSeconds": "Seconds",
}

_SERVER_ERROR: Final = 500

#: A function's handler; its context is an object of Lambda's own, for which each library has a type.
Handler = Callable[[Any, Any], Any]


class FunctionMetrics:
    """Logs the growth of one function's counters."""

    def __init__(self, service: str, counters: Metrics | None = None, log_events: LogEvents = LOG_EVENTS) -> None:
        """`service` is the function's name in the stack; `counters` may count requests already."""
        self.counters, self._log_events = counters or Metrics(), log_events
        self._fault_count = 0
        self._socket_counts = {"SocketsOpened": 0, "SocketsClosed": 0}
        self._seen: dict[str, float] = self._totals()
        self._metrics = EphemeralMetrics(namespace=NAMESPACE, service=service)
        self._metrics.set_default_dimensions(stack=os.environ.get("FLUVIAL_STACK", "local"))

    def measure(self, handler: Handler) -> Handler:
        """Decorate a handler: its metrics are logged when it has returned or raised, which is a fault."""

        @wraps(handler)
        def measured(event: object, context: object) -> Any:  # noqa: ANN401  the handler's own
            try:
                return handler(event, context)
            except Exception:
                self._fault_count += 1
                raise
            finally:
                self.log()

        return measured

    def log(self) -> None:
        """Log what was counted and observed since the last call, if anything was."""
        self._add_growth()
        if self._metrics.metric_set:  # Powertools would warn of an event without any
            self._metrics.flush_metrics()
            sys.stdout.flush()  # which is a pipe where the function is a server

    def observe(self, name: str, value: float) -> None:
        """Add a value that is no counter, such as a duration; CloudWatch has its average and its maximum."""
        self._metrics.add_metric(name=name, unit=_UNITS.get(name, "Count"), value=value)

    def on_broadcast(self, connection_count: int, seconds: float) -> None:
        """See FeedObserver.on_broadcast."""
        self.observe("BroadcastConnections", connection_count)
        self.observe("BroadcastSeconds", seconds)

    def on_sockets(self, opened_count: int, closed_count: int) -> None:
        """See FeedObserver.on_sockets."""
        self._socket_counts["SocketsOpened"] += opened_count
        self._socket_counts["SocketsClosed"] += closed_count

    def on_lag(self, byte_count: int) -> None:
        """See FeedObserver.on_lag."""
        self.observe("FollowersLagBytes", byte_count)

    def on_spill(self) -> None:
        """See FeedObserver.on_spill."""
        self.counters.spill_count += 1

    def on_rotation(self, byte_count: int) -> None:
        """See FeedObserver.on_rotation."""
        self.counters.on_rotation(byte_count)

    def _add_growth(self) -> None:
        totals = self._totals()
        for name, total in totals.items():
            if growth := total - self._seen.get(name, 0):
                self.observe(name, growth)
        self._seen = totals

    def _totals(self) -> dict[str, float]:
        counters = self.counters
        statuses = dict[int, int]()
        for (_, _, status), durations in counters.requests.items():
            statuses[status] = statuses.get(status, 0) + durations.count
        for (_, _, status), count in counters.live_requests.items():
            statuses[status] = statuses.get(status, 0) + count
        by_class = dict[str, float]()
        for status, count in statuses.items():
            name = f"Http{status // 100}xx"
            by_class[name] = by_class.get(name, 0) + count
        outcomes = dict[str, int]()
        for (_, outcome), count in counters.aws_requests.items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
        levels = {"error": 0, "warning": 0}
        for (event, level), count in list(self._log_events.counts.items()):
            if level != "warning" or event not in CLIENTS_WARNINGS:  # an error of the same name is the stack's own
                levels["error" if level == "critical" else level] = levels.get(level, 0) + count
        return {
            **by_class,
            "Faults": statuses.get(_SERVER_ERROR, 0) + self._fault_count,
            "Appends": counters.append_count,
            "AppendedBytes": counters.append_bytes,
            "ReadUnits": counters.read_units,
            "WriteUnits": counters.write_units,
            "BusyTries": outcomes.get(AwsOutcome.BUSY, 0),
            "WritesInDoubt": outcomes.get(AwsOutcome.IN_DOUBT, 0),
            "Spills": counters.spill_count,
            "Rotations": counters.rotation_count,
            "RotatedBytes": counters.rotated_bytes,
            **self._socket_counts,
            "LoggedErrors": levels["error"],
            "LoggedWarnings": levels["warning"],
        }
