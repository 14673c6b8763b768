"""The metrics in Prometheus's text format. docs/operations/monitoring.md has every one of them.

Names follow Prometheus's conventions: base units, `_total` for counters, the unit at the end. A family is there even
before its first sample, so that what is not measured by a store can be told from what is misspelt.
"""

import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    GCCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from fluvial import __version__
from fluvial.metrics.histogram import Histogram
from fluvial.metrics.log_events import LOG_EVENTS
from fluvial.metrics.metrics import Metrics
from fluvial.metrics.sources import Sources

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

#: How clients follow a stream.
TRANSPORTS: Final = ("long-poll", "sse", "websocket")


@dataclass(frozen=True, eq=False)
class FluvialCollector(Collector):
    """Reads an application's numbers at a scrape."""

    metrics: Metrics
    sources: Sources

    def collect(self) -> Iterator[Metric]:
        """All families, in the order of the documentation."""
        yield from self._http()
        yield from self._live_reads()
        yield from self._appends()
        yield from self._sqlite()
        yield from self._dynamodb()
        yield from self._size()
        yield from self._process()

    def _http(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "fluvial_http_requests", "Requests that were answered.", labels=["route", "method", "status"]
        )
        durations: dict[tuple[str, str], Histogram] = {}
        for (route, method, status), series in self.metrics.requests.items():
            requests.add_metric([route, method, str(status)], series.count)
            merged = durations.get((route, method))
            durations[route, method] = series if merged is None else merged.merged(series)
        for (route, method, status), count in self.metrics.live_requests.items():
            requests.add_metric([route, method, str(status)], count)
        yield requests
        yield _histogram(
            "fluvial_http_request_duration_seconds",
            "Time from a request's head to the end of its answer; without live reads, which wait.",
            (([route, method], series) for (route, method), series in durations.items()),
            ["route", "method"],
        )
        help_text = "Requests that were refused, by the code of the error."
        yield _counter(
            "fluvial_refused", help_text, (([code], n) for code, n in self.metrics.refused.items()), ["code"]
        )
        help_text = "Requests of pages whose origin is not allowed."
        yield _counter("fluvial_rejected_origins", help_text, [([], self.sources.rejected_origins())])

    def _live_reads(self) -> Iterator[Metric]:
        help_text = "Long-polls, SSE connections and WebSockets that are open."
        counts = (([transport], self.metrics.live_reads[transport]) for transport in TRANSPORTS)
        yield _gauge("fluvial_live_reads", help_text, counts, ["transport"])
        yield _gauge("fluvial_live_reads_limit", "--max-live-reads.", [([], self.sources.live_reads_max)])

    def _appends(self) -> Iterator[Metric]:
        yield _counter("fluvial_appends", "Appends that were applied.", [([], self.metrics.append_count)])
        yield _counter("fluvial_append_bytes", "Bytes that these have added.", [([], self.metrics.append_bytes)])
        help_text = "Streams with followers that do not have all of the stream yet, at the last look."
        yield _gauge("fluvial_fanout_backlog", help_text, [([], self.sources.fan_out_backlog())])
        help_text = "Attempts to wake a subscription's worker, by what came of them."
        wakes = (([outcome], count) for outcome, count in self.metrics.wakes.items())
        yield _counter("fluvial_wakes", help_text, wakes, ["outcome"])
        help_text = "Subscriptions whose workers are being woken, or wait for that."
        yield _gauge("fluvial_wakes_under_way", help_text, [([], self.sources.wakes_under_way())])

    def _sqlite(self) -> Iterator[Metric]:
        metrics = self.metrics
        help_text = "Time in which a group of commits becomes durable."
        yield _histogram("fluvial_commit_duration_seconds", help_text, [([], metrics.commits)])
        yield _histogram("fluvial_commit_group_size", "Commits that share a transaction.", [([], metrics.groups)])
        help_text = "Time of a COMMIT, which waits for the disk."
        yield _histogram("fluvial_fsync_duration_seconds", help_text, [([], metrics.fsyncs)])
        help_text = "Time in which the write-ahead log is copied into the database."
        yield _histogram("fluvial_checkpoint_duration_seconds", help_text, [([], metrics.checkpoints)])
        help_text = "Checkpoints that could not copy the whole log."
        yield _counter("fluvial_checkpoints_incomplete", help_text, [([], metrics.incomplete_checkpoint_count)])
        yield _counter("fluvial_rotations", "Segments that were written.", [([], metrics.rotation_count)])
        yield _counter("fluvial_rotated_bytes", "Bytes that were moved into them.", [([], metrics.rotated_bytes)])

    def _dynamodb(self) -> Iterator[Metric]:
        help_text = "Requests to DynamoDB and S3, by how they ended."
        counts = ((list(key), count) for key, count in self.metrics.aws_requests.items())
        yield _counter("fluvial_aws_requests", help_text, counts, ["operation", "outcome"])
        help_text = "Capacity units that DynamoDB has billed for requests that it carried out."
        units = [(["read"], self.metrics.read_units), (["write"], self.metrics.write_units)]
        yield _counter("fluvial_aws_units", help_text, units, ["kind"])

    def _size(self) -> Iterator[Metric]:
        size = self.sources.sampler.latest
        streams: list[_Sample] = [] if size is None else [([], size.stream_count)]
        yield _gauge("fluvial_streams", "Streams that are stored, when they were last counted.", streams)
        parts = [] if size is None else [([part], count) for part, count in size.part_bytes.items()]
        yield _gauge("fluvial_store_bytes", "Bytes that are stored, by part.", parts, ["part"])
        free: list[_Sample] = [] if size is None or size.free_bytes is None else [([], size.free_bytes)]
        yield _gauge("fluvial_store_free_bytes", "Bytes that are free on the data folder's disk.", free)

    def _process(self) -> Iterator[Metric]:
        help_text = "How often each event was logged, in the whole process."
        events = ((list(key), count) for key, count in list(LOG_EVENTS.counts.items()))  # other threads log, too
        yield _counter("fluvial_log_events", help_text, events, ["event", "level"])
        help_text = "Lines of the access log that were dropped, because standard error did not take them."
        yield _counter("fluvial_access_log_dropped_lines", help_text, [([], self.sources.dropped_log_lines())])
        build = [([__version__, platform.python_version(), self.sources.store_kind], 1)]
        yield _gauge("fluvial_build_info", "Always 1.", build, ["version", "python", "store"])


_Sample = tuple[list[str], float]
_Samples = Iterable[_Sample]


def _counter(name: str, help_text: str, samples: _Samples, labels: Iterable[str] = ()) -> Metric:
    """A counter; its name gets `_total`."""
    family = CounterMetricFamily(name, help_text, labels=list(labels))
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _gauge(name: str, help_text: str, samples: _Samples, labels: Iterable[str] = ()) -> Metric:
    family = GaugeMetricFamily(name, help_text, labels=list(labels))
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _histogram(
    name: str, help_text: str, samples: Iterable[tuple[list[str], Histogram]], labels: Iterable[str] = ()
) -> Metric:
    family = HistogramMetricFamily(name, help_text, labels=list(labels))
    for values, histogram in samples:
        family.add_metric(values, histogram.cumulative(), histogram.total)
    return family


@dataclass(slots=True)
class Exposition:
    """Renders an application's metrics, and those of its process."""

    metrics: Metrics
    sources: Sources
    _registry: CollectorRegistry = field(init=False)

    def __post_init__(self) -> None:
        """A registry of its own, so that applications of one process do not collide."""
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(FluvialCollector(self.metrics, self.sources))
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    async def render(self) -> bytes:
        """Everything as text, after the sizes were measured if they are due."""
        await self.sources.sampler.refresh()
        return generate_latest(self._registry)
