"""What a month takes of each service, and the lines of its bill."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Self

from fluvial.pricing import prices


@dataclass(frozen=True, slots=True)
class Usage:
    """What a month takes; usages add up, so that tiers apply to their sum."""

    write_units: float = 0.0
    read_units: float = 0.0
    table_gb: float = 0.0
    s3_puts: float = 0.0
    s3_gets: float = 0.0
    s3_gb: float = 0.0
    edge_requests: float = 0.0
    edge_gb_s: float = 0.0
    live_requests: float = 0.0
    live_gb_s: float = 0.0
    changes_requests: float = 0.0
    changes_gb_s: float = 0.0
    api_requests: float = 0.0
    socket_messages: float = 0.0
    socket_minutes: float = 0.0
    out_bytes: float = 0.0
    cdn_requests: float = 0.0
    cdn_bytes: float = 0.0
    vcpu_hours: float = 0.0
    memory_gb_hours: float = 0.0
    balancer_hours: float = 0.0
    balancer_unit_hours: float = 0.0
    ipv4_hours: float = 0.0
    log_bytes: float = 0.0
    metrics: float = 0.0
    alarms: float = 0.0
    dashboards: float = 0.0
    traces: float = 0.0
    secrets: float = 0.0

    def __add__(self, other: Self) -> Self:
        """Both together."""
        return type(self)(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a bill: how many of which unit, and what they cost a month."""

    name: str
    quantity: float
    unit: str
    dollars: float


def lines_of(usage: Usage) -> list[Line]:
    """The lines that are not nothing."""
    return [line for line in _lines(usage) if line.quantity > 0]


def _lines(u: Usage) -> Iterator[Line]:
    yield Line("DynamoDB writes", u.write_units, "write units", u.write_units * prices.WRITE_UNIT_DOLLARS)
    yield Line("DynamoDB reads", u.read_units, "read units", u.read_units * prices.READ_UNIT_DOLLARS)
    table = prices.TABLE_GB_MONTH_DOLLARS + prices.RECOVERY_GB_MONTH_DOLLARS
    yield Line("DynamoDB storage and recovery", u.table_gb, "GB", u.table_gb * table)
    s3_dollars = u.s3_puts * prices.S3_PUT_DOLLARS + u.s3_gets * prices.S3_GET_DOLLARS
    yield Line("S3 requests", u.s3_puts + u.s3_gets, "requests", s3_dollars)
    yield Line("S3 storage", u.s3_gb, "GB", u.s3_gb * prices.S3_GB_MONTH_DOLLARS)
    yield from _function_lines(u)
    api_dollars = prices.tiered_dollars(u.api_requests, prices.API_REQUEST_TIERS)
    yield Line("API Gateway requests", u.api_requests, "requests", api_dollars)
    messages = prices.tiered_dollars(u.socket_messages, prices.SOCKET_MESSAGE_TIERS)
    yield Line("WebSocket messages", u.socket_messages, "messages", messages)
    minutes = u.socket_minutes * prices.SOCKET_MINUTE_DOLLARS
    yield Line("WebSocket connections", u.socket_minutes, "minutes", minutes)
    yield from _relay_lines(u)
    yield Line("CloudFront requests", u.cdn_requests, "requests", u.cdn_requests * prices.CDN_REQUEST_DOLLARS)
    yield Line("CloudFront data out", u.cdn_bytes / prices.GB, "GB", u.cdn_bytes * prices.CDN_BYTE_DOLLARS)
    out_dollars = prices.tiered_dollars(u.out_bytes, prices.OUT_BYTE_TIERS)
    yield Line("Data out", u.out_bytes / prices.GB, "GB", out_dollars)
    yield from _watching_lines(u)


def _function_lines(u: Usage) -> Iterator[Line]:
    """Tiers of GB-seconds apply to all functions together, so each has its share of the sum."""
    functions = (
        ("edge", u.edge_requests, u.edge_gb_s),
        ("live", u.live_requests, u.live_gb_s),
        ("changes", u.changes_requests, u.changes_gb_s),
    )
    gb_s = sum(one[2] for one in functions)
    dollars = prices.tiered_dollars(gb_s, prices.LAMBDA_GB_S_TIERS)
    for name, request_count, own_gb_s in functions:
        requests_dollars = request_count * prices.LAMBDA_REQUEST_DOLLARS
        yield Line(f"Lambda {name} requests", request_count, "requests", requests_dollars)
        yield Line(f"Lambda {name} time", own_gb_s, "GB-s", dollars * own_gb_s / gb_s if gb_s else 0.0)


def _relay_lines(u: Usage) -> Iterator[Line]:
    containers = u.vcpu_hours * prices.VCPU_HOUR_DOLLARS + u.memory_gb_hours * prices.MEMORY_GB_HOUR_DOLLARS
    yield Line("Fargate", u.vcpu_hours, "vCPU-hours", containers)
    units = u.balancer_unit_hours * prices.BALANCER_UNIT_HOUR_DOLLARS
    balancer = u.balancer_hours * prices.BALANCER_HOUR_DOLLARS + units
    yield Line("Load balancer", u.balancer_hours, "hours", balancer)
    yield Line("IPv4 addresses", u.ipv4_hours, "hours", u.ipv4_hours * prices.IPV4_HOUR_DOLLARS)


def _watching_lines(u: Usage) -> Iterator[Line]:
    log_gb = u.log_bytes / prices.GB
    yield Line("CloudWatch logs", log_gb, "GB", log_gb * prices.LOG_GB_DOLLARS)
    yield Line("CloudWatch metrics", u.metrics, "metrics", u.metrics * prices.METRIC_MONTH_DOLLARS)
    yield Line("CloudWatch alarms", u.alarms, "alarms", u.alarms * prices.ALARM_MONTH_DOLLARS)
    yield Line("CloudWatch dashboards", u.dashboards, "dashboards", u.dashboards * prices.DASHBOARD_MONTH_DOLLARS)
    yield Line("X-Ray traces", u.traces, "traces", u.traces * prices.TRACE_DOLLARS)
    yield Line("Secrets", u.secrets, "secrets", u.secrets * prices.SECRET_MONTH_DOLLARS)
