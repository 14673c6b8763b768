"""What live readers take of the table, measured: polls of a stream's head, and broadcasts to WebSockets.

`fluvial.pricing` has the prices.
"""

import asyncio
from typing import Final

from bench.meter import Meter
from fluvial.aws.connections import Connection, Connections
from fluvial.aws.websocket_broadcast import Broadcaster
from fluvial.clock import Clock
from fluvial.model.command import Append, Create
from fluvial.model.names import StreamName
from fluvial.model.plan import plan_append, plan_create
from fluvial.pricing.measured import BroadcastUnits, PollUnits
from fluvial.storage.dynamodb.store import DynamoDbStore

CONTENT_TYPE: Final = "text/plain"
APPEND_BYTES: Final = 100
CONNECTIONS: Final = 10

#: Writes a second of the streams whose polls are counted, and for how long.
RATES: Final = (0, 1, 5, 20)
SECONDS: Final = 8


class _Connections:
    """API Gateway's connections, which take everything."""

    def post_to_connection(self, *, ConnectionId: str, Data: bytes) -> None:  # noqa: N803  boto3's own names
        """Take a message."""

    def delete_connection(self, *, ConnectionId: str) -> None:  # noqa: N803  boto3's own names
        """Close."""


async def measure_polls(store: DynamoDbStore) -> list[PollUnits]:
    """Watch one waiting process at each rate of writes by another one, over AWS's own engine."""
    return [await _polls(store, rate) for rate in RATES]


async def _polls(store: DynamoDbStore, rate: int) -> PollUnits:
    name, writer, meter = StreamName(f"cost/polled-{rate}"), DynamoDbStore(store.config, Clock()), Meter()
    await _create(writer, name)
    seen = await store.head(name)
    assert seen is not None
    meter.watch(store._aws.reads)

    async def follow() -> None:
        nonlocal seen
        while seen is not None:
            seen = await store.wait(name, seen, 2 * SECONDS)

    following = asyncio.create_task(follow())
    if rate == 0:  # after the first seconds the polls are as rare as they get
        await asyncio.sleep(SECONDS / 2)
    before = meter.reads, meter.read_requests
    ends_at = asyncio.get_running_loop().time() + SECONDS
    while (left_s := ends_at - asyncio.get_running_loop().time()) > 0:
        if rate:
            await _write(writer, name)
        await asyncio.sleep(min(left_s, 1 / rate if rate else SECONDS))
    following.cancel()
    await writer.close()
    units, requests = meter.reads - before[0], meter.read_requests - before[1]
    meter.unwatch()
    return PollUnits(rate, round(units / SECONDS, 2), round(requests / SECONDS, 2))


async def measure_broadcast(store: DynamoDbStore) -> BroadcastUnits:
    """What one broadcast takes; the number of connections matters only by the thousand."""
    name, clock, meter = StreamName("cost/broadcast"), Clock(), Meter()
    await _create(store, name)
    head = await store.head(name)
    assert head is not None
    for number in range(CONNECTIONS):
        await Connections(store.table).add(name, Connection(f"c{number}", head.incarnation, head.tail, 2**31), 2**31)
    broadcaster = Broadcaster(store, clock, _Connections())
    await broadcaster.broadcast(name)
    await _write(store, name)
    meter.watch(store._aws.writes, store._aws.reads)
    await broadcaster.broadcast(name)
    meter.unwatch()
    return BroadcastUnits(meter.units, meter.reads)


async def _create(store: DynamoDbStore, name: StreamName) -> None:
    create = plan_create(Create(name=name, content_type=CONTENT_TYPE), Clock().new_incarnation(), 0)
    await store.apply(name, create)


async def _write(store: DynamoDbStore, name: StreamName) -> None:
    append = Append(name=name, content_type=CONTENT_TYPE, data=b"x" * APPEND_BYTES)
    await store.apply(name, plan_append(append, Clock().now_ms()))
