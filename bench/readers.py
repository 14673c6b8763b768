"""What live readers cost a month on AWS, by transport: from units that are measured here, and AWS's prices.

The load is one stream with one write of 100 B a second, for 30 days, and readers who all get every write.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from bench.meter import READ_UNIT_DOLLARS, WRITE_UNIT_DOLLARS, Meter
from fluvial.aws.connections import Connection, Connections
from fluvial.aws.websocket_broadcast import Broadcaster
from fluvial.clock import Clock
from fluvial.model.command import Append, Create
from fluvial.model.names import StreamName
from fluvial.model.plan import plan_append, plan_create
from fluvial.storage.dynamodb.store import DynamoDbStore

MONTH_S: Final = 30 * 86_400
GB: Final = 1e9
NAME: Final = StreamName("cost/live")
CONTENT_TYPE: Final = "text/plain"

#: https://aws.amazon.com/api-gateway/pricing/ (us-east-1): REST requests, and WebSocket messages of up to 32 KB.
REST_TIERS: Final = ((333e6, 3.5e-6), (667e6, 2.8e-6), (19e9, 2.38e-6), (float("inf"), 1.51e-6))
SOCKET_TIERS: Final = ((1e9, 1e-6), (float("inf"), 0.8e-6))
SOCKET_MINUTE_DOLLARS: Final = 0.25e-6
#: https://aws.amazon.com/lambda/pricing/ (arm64).
LAMBDA_REQUEST_DOLLARS: Final = 0.2e-6
LAMBDA_GB_S_TIERS: Final = ((7.5e9, 13.3334e-6), (11.25e9, 12.0001e-6), (float("inf"), 10.6667e-6))
#: https://aws.amazon.com/ec2/pricing/on-demand/ (data out) and https://aws.amazon.com/cloudfront/pricing/
OUT_TIERS: Final = ((10e12, 0.09 / GB), (40e12, 0.085 / GB), (float("inf"), 0.07 / GB))
CDN_REQUEST_DOLLARS: Final = 1e-6
CDN_BYTE_DOLLARS: Final = 0.085 / GB
#: https://aws.amazon.com/fargate/pricing/ (Linux, ARM) and https://aws.amazon.com/elasticloadbalancing/pricing/
VCPU_HOUR_DOLLARS, GB_HOUR_DOLLARS = 0.03238, 0.00356
BALANCER_HOUR_DOLLARS: Final = 0.0225

FUNCTION_GB: Final = 0.5
FUNCTION_S: Final = 0.02  # what a warm request takes of it
SSE_S: Final = 50
POST_S: Final = 0.01  # a call to a connection, of which 32 are under way at once
RELAYS: Final = 2  # 1 vCPU and 2 GB each, for 10,000 readers; the second one is there for when the first is not
RELAY_READERS_MAX: Final = 10_000
#: What a reader is sent of a write, headers included.
LONG_POLL_BYTES, EVENT_BYTES, FRAME_BYTES = 900, 240, 230
#: Where a CDN asks for itself: CloudFront's regional caches.
CDN_CACHES: Final = 13

AUDIENCES: Final = (10, 100, 1_000, 10_000)


@dataclass(frozen=True)
class Measured:
    """What the table takes of a write, of one process's poller between two writes, and of one broadcast."""

    append_units: float
    poll_units: float
    polls: float
    broadcast_write_units: float
    broadcast_read_units: float


class _Connections:
    """API Gateway's connections, which take everything."""

    def post_to_connection(self, *, ConnectionId: str, Data: bytes) -> None:  # noqa: N803  boto3's own names
        """Take a message."""

    def delete_connection(self, *, ConnectionId: str) -> None:  # noqa: N803  boto3's own names
        """Close."""


async def measured(store: DynamoDbStore, append_units: float, seconds: int = 8) -> Measured:
    """Watch one waiting process, and one broadcast, over AWS's own engine."""
    clock, writer = Clock(), DynamoDbStore(store.config, Clock())
    await writer.apply(NAME, plan_create(Create(name=NAME, content_type=CONTENT_TYPE), clock.new_incarnation(), 0))

    async def write() -> None:
        append = Append(name=NAME, content_type=CONTENT_TYPE, data=b"x" * 100)
        await writer.apply(NAME, plan_append(append, clock.now_ms()))

    polling = Meter()
    seen = await store.head(NAME)
    assert seen is not None
    polling.watch(store._aws.reads)

    async def follow() -> None:
        nonlocal seen
        while seen is not None:
            seen = await store.wait(NAME, seen, 60)

    following = asyncio.create_task(follow())
    for _ in range(seconds):
        await write()
        await asyncio.sleep(1)
    following.cancel()
    broadcasting = await _broadcast(writer, clock, write)
    await writer.close()
    return Measured(
        append_units,
        polling.reads / seconds,
        polling.read_requests / seconds,
        broadcasting.units,
        broadcasting.reads,
    )


async def _broadcast(store: DynamoDbStore, clock: Clock, write: Any) -> Meter:  # noqa: ANN401  a coroutine function
    head = await store.head(NAME)
    assert head is not None
    for number in range(10):
        await Connections(store.table).add(NAME, Connection(f"c{number}", head.incarnation, head.tail, 2**31), 2**31)
    broadcaster, meter = Broadcaster(store, clock, _Connections()), Meter()
    await broadcaster.broadcast(NAME)
    await write()
    meter.watch(store._aws.writes, store._aws.reads)
    await broadcaster.broadcast(NAME)
    return meter


def tiered(count: float, tiers: tuple[tuple[float, float], ...]) -> float:
    """What a count costs when each tier has its own price."""
    dollars = 0.0
    for size, price in tiers:
        dollars += min(count, size) * price
        count = max(0.0, count - size)
    return dollars


def _functions(requests: float, seconds: float) -> float:
    return requests * LAMBDA_REQUEST_DOLLARS + tiered(requests * seconds * FUNCTION_GB, LAMBDA_GB_S_TIERS)


def writes(m: Measured) -> float:
    """The writes themselves: API Gateway, a function, one update."""
    per_write = MONTH_S * m.append_units * WRITE_UNIT_DOLLARS
    return tiered(MONTH_S, REST_TIERS) + _functions(MONTH_S, FUNCTION_S) + per_write


def long_poll(readers: int, m: Measured) -> float:
    """Each reader asks again after each write, and a function waits with it for the next one."""
    requests = float(readers) * MONTH_S
    units = readers * MONTH_S * m.poll_units * READ_UNIT_DOLLARS
    out = tiered(requests * LONG_POLL_BYTES, OUT_TIERS)
    return tiered(requests, REST_TIERS) + _functions(requests, 1) + units + out


def long_poll_cdn(readers: int, m: Measured) -> float:
    """A CDN asks once for all who have the same offset and cursor; it bills each of its answers."""
    at_the_edge = readers * MONTH_S * (CDN_REQUEST_DOLLARS + LONG_POLL_BYTES * CDN_BYTE_DOLLARS)
    return at_the_edge + long_poll(min(readers, CDN_CACHES), m)


def sse(readers: int, m: Measured) -> float:
    """Each reader holds a function, which reads the head for it alone."""
    requests = float(readers) * MONTH_S / SSE_S
    units = readers * MONTH_S * m.poll_units * READ_UNIT_DOLLARS
    out = tiered(float(readers) * MONTH_S * EVENT_BYTES, OUT_TIERS)
    return tiered(requests, REST_TIERS) + _functions(requests, SSE_S) + units + out


def socket(readers: int, m: Measured) -> float:
    """API Gateway holds the connections; the changes function posts each write, or several that came meanwhile."""
    broadcast_s = max(FUNCTION_S, readers * POST_S / 32)
    broadcasts = MONTH_S / max(1.0, broadcast_s)
    table = broadcasts * (m.broadcast_write_units * WRITE_UNIT_DOLLARS + m.broadcast_read_units * READ_UNIT_DOLLARS)
    minutes = readers * MONTH_S / 60 * SOCKET_MINUTE_DOLLARS
    return tiered(readers * broadcasts, SOCKET_TIERS) + minutes + _functions(broadcasts, broadcast_s) + table


def relay(readers: int, m: Measured) -> float:
    """Two containers behind a balancer, each with one poller; what leaves AWS is billed by the byte."""
    count = max(RELAYS, 1 + -(-readers // RELAY_READERS_MAX))
    hours = MONTH_S / 3_600
    containers = count * hours * (VCPU_HOUR_DOLLARS + 2 * GB_HOUR_DOLLARS) + hours * BALANCER_HOUR_DOLLARS
    units = count * MONTH_S * m.poll_units * READ_UNIT_DOLLARS
    return containers + units + tiered(float(readers) * MONTH_S * EVENT_BYTES, OUT_TIERS)


TRANSPORTS: Final = {
    "long-poll": long_poll,
    "long-poll behind CloudFront": long_poll_cdn,
    "SSE on Lambda": sse,
    "WebSocket on API Gateway": socket,
    "SSE from the relay": relay,
}


def reader_table(m: Measured) -> str:
    """The table, in dollars a month."""
    lines = [f"{'live readers, $ a month':<34}" + "".join(f"{count:>13,}" for count in AUDIENCES)]
    for name, dollars in TRANSPORTS.items():
        lines.append(f"{name:<34}" + "".join(f"{dollars(count, m):>13,.0f}" for count in AUDIENCES))
    lines.append(f"{'and the writes themselves':<34}" + f"{writes(m):>13,.0f}" * len(AUDIENCES))
    polls = f"{m.polls:.1f} reads of the head between two writes, {m.poll_units:.2f} units"
    broadcast = f"{m.broadcast_write_units:.0f} write and {m.broadcast_read_units:.1f} read units a broadcast"
    return "\n".join([*lines, f"(measured: {polls}; {broadcast})", ""])
