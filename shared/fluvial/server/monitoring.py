"""What the routes for monitoring show: the metrics, and whether the server can write."""

from dataclasses import dataclass

from fluvial.metrics.metrics import Metrics
from fluvial.metrics.sources import Sources
from fluvial.server.readiness import Readiness


@dataclass(frozen=True, slots=True)
class Monitoring:
    """The sources of `/metrics` and `/ready`."""

    metrics: Metrics
    sources: Sources
    readiness: Readiness
