"""A month's bill of a load."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from fluvial.model.limits import PAYLOAD_ITEM_BYTES_DEFAULT, SEGMENT_BATCHES, SEGMENT_BYTES
from fluvial.pricing import prices
from fluvial.pricing.live import ANSWER_BYTES, USAGES, live_notes, live_obstacles
from fluvial.pricing.measured import Measured
from fluvial.pricing.usage import Line, Usage, lines_of
from fluvial.pricing.workload import MONTH_DAYS, MONTH_S, Transport, Workload

#: What a warm request takes of the edge function, and a record of the change feed of its own. Estimates.
EDGE_S: Final = 0.02
CHANGES_S: Final = 0.02
#: Records come in batches, so the changes function runs no more often than this.
CHANGES_S_MAX: Final = 1 / CHANGES_S

#: A request's lines in the log: Lambda's own three, and metrics in the edge function's. Estimates.
EDGE_LOG_BYTES: Final = 1_350
CHANGES_LOG_BYTES: Final = 350

#: Metrics that functions write themselves while all is well: five of the edge and five of the changes function.
OWN_METRICS: Final = 10
#: With detailed metrics API Gateway writes these for each method of each resource that is in use.
#: https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-metrics-and-dimensions.html
METHODS_IN_USE: Final = 5
METRICS_PER_METHOD: Final = 5


@dataclass(frozen=True, slots=True)
class Bill:
    """A month's lines in dollars, or why the load cannot exist."""

    transport: Transport
    lines: tuple[Line, ...]
    obstacles: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def dollars(self) -> float:
        """The sum."""
        return sum(line.dollars for line in self.lines)

    @property
    def exists(self) -> bool:
        """Whether AWS can carry the load."""
        return not self.obstacles


def estimate(w: Workload, m: Measured, transport: Transport = Transport.SSE) -> Bill:
    """The bill of a load with one transport for its live readers."""
    live = USAGES[transport](w, m) if w.readers else Usage()
    usage = written(w, m) + live + standing(m)
    if w.traces:
        usage += traced(usage)
    if w.detailed_metrics:
        usage += Usage(metrics=METHODS_IN_USE * METRICS_PER_METHOD)
    obstacles = [*write_obstacles(w, m), *(live_obstacles(w, m, transport) if w.readers else ())]
    return Bill(transport, tuple(lines_of(usage)), tuple(obstacles), tuple(live_notes(w, transport)))


def estimates(w: Workload, m: Measured) -> list[Bill]:
    """The bills with each transport: those that exist come first, and the cheapest of them before the others."""
    return sorted((estimate(w, m, one) for one in Transport), key=lambda bill: (not bill.exists, bill.dollars))


def written(w: Workload, m: Measured) -> Usage:
    """Appends and other requests: API Gateway, the edge function, the table, rotation, the bucket, and the answers."""
    append, count = m.append(w.bytes_per_write), w.writes_s * MONTH_S
    others = w.requests_s * MONTH_S
    changes = min(w.writes_s, CHANGES_S_MAX) * MONTH_S
    return Usage(
        write_units=count * life_write_units(w, m),
        read_units=count * append.rotation_read_units + others * append.tail_read_units,
        table_gb=table_bytes(w) / prices.GB,
        s3_puts=count * append.life_s3_puts,
        s3_gets=count * append.rotation_s3_gets + others * append.tail_s3_gets,
        s3_gb=bucket_bytes(w, m) / prices.GB,
        edge_requests=count + others,
        edge_gb_s=(count + others) * EDGE_S * m.stack.edge_memory_mb / 1_024,
        changes_requests=changes,
        changes_gb_s=changes * CHANGES_S * m.stack.changes_memory_mb / 1_024,
        api_requests=count + others,
        out_bytes=(count + others) * ANSWER_BYTES + others * w.bytes_per_write,
        log_bytes=(count + others) * EDGE_LOG_BYTES + changes * CHANGES_LOG_BYTES,
    )


def table_bytes(w: Workload) -> float:
    """Bytes that are not in a segment yet, unless they are in the bucket from the start."""
    if w.bytes_per_write > PAYLOAD_ITEM_BYTES_DEFAULT:
        return 0.0
    hot_bytes = min(SEGMENT_BYTES, SEGMENT_BATCHES * w.bytes_per_write)
    return min(w.writes_s * MONTH_S * w.bytes_per_write, w.streams * hot_bytes)


def bucket_bytes(w: Workload, m: Measured) -> float:
    """Bytes that are billed all the time when each append is kept for a month and then deleted with its stream.

    The bucket has versions: what is deleted is billed until it expires. That is each segment after its month, and the
    object of each large batch after its rotation into a segment.
    """
    month_bytes = w.writes_s * MONTH_S * w.bytes_per_write
    copies = 2 if w.bytes_per_write > PAYLOAD_ITEM_BYTES_DEFAULT else 1
    return month_bytes * (1 + copies * m.stack.deleted_days / MONTH_DAYS)


def life_write_units(w: Workload, m: Measured) -> float:
    """Write units of an append from its arrival to its deletion from the table, with its rotation into S3."""
    return m.append(w.bytes_per_write).life_write_units + crowd_write_units(w, m)


def crowd_write_units(w: Workload, m: Measured) -> float:
    """Of these, what each append takes more than a lone writer's."""
    return m.crowd_write_units(w.bytes_per_write, w.writers, w.stream_writes_s)


def standing(m: Measured) -> Usage:
    """What costs without a request."""
    stack = m.stack
    return Usage(metrics=OWN_METRICS, alarms=stack.alarms, dashboards=stack.dashboards, secrets=stack.secrets)


def traced(usage: Usage) -> Usage:
    """Traces of API Gateway's requests and of the changes function's runs, by the default sampling rule."""
    return Usage(traces=sum(_recorded(one) for one in (usage.api_requests, usage.changes_requests)))


def write_obstacles(w: Workload, m: Measured) -> Iterator[str]:
    """Why these appends cannot exist, whatever is paid."""
    units = m.append(w.bytes_per_write).partition_write_units + crowd_write_units(w, m)
    if w.stream_writes_s * units > prices.PARTITION_WRITE_UNITS_S:
        most = prices.PARTITION_WRITE_UNITS_S / units
        yield (
            f"a partition takes {prices.PARTITION_WRITE_UNITS_S:,} write units a second,"
            f" which is {most:,.0f} such appends to one stream"
        )


def _recorded(requests: float) -> float:
    requests_s = requests / MONTH_S
    first_s = min(requests_s, prices.TRACE_RESERVOIR_S)
    return (first_s + (requests_s - first_s) * prices.TRACE_RATE) * MONTH_S
