"""`make cost`: what appends and reads take of DynamoDB and S3, measured on AWS's own engine.

It writes the package's measured.json, from which `fluvial cost` and `make cost-page` compute all that they print.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, Final, TypeVar

import boto3
from tests.aws_local.__main__ import CREDENTIALS, local_aws
from tests.aws_local.dynamodb_local import dynamodb_local

from bench.cost_page import append_table, reader_table
from bench.measured_file import save
from bench.meter import Meter
from bench.readers import measure_broadcast, measure_polls
from bench.stack import count_stack
from bench.writers import PACE_S, writers_units
from fluvial.clock import Clock
from fluvial.model.command import Append, Close, Create
from fluvial.model.commit import Applied
from fluvial.model.head import ProducerStamp
from fluvial.model.limits import PAYLOAD_ITEM_BYTES_DEFAULT
from fluvial.model.names import StreamName
from fluvial.model.plan import plan_append, plan_close, plan_create
from fluvial.pricing.measured import AppendUnits, CrowdUnits, Measured, WriterUnits
from fluvial.storage.dynamodb.store import DynamoDbConfig, DynamoDbStore
from fluvial.storage.dynamodb.table.aws_client import Endpoints
from fluvial.storage.dynamodb.writes.payloads import INLINE_BYTES_MAX

T = TypeVar("T")

APPENDS: Final = 1_000
#: Sizes to measure, and how many appends of each. Up to INLINE_BYTES_MAX a batch is in the head, above it an item of
#: its own, and above PAYLOAD_ITEM_BYTES_DEFAULT an object in S3: units lie on a line only between these marks.
SIZES: Final = {
    100: APPENDS,
    300: 400,
    INLINE_BYTES_MAX: 400,
    INLINE_BYTES_MAX + 1: 400,
    1_000: APPENDS,
    4_000: 400,
    PAYLOAD_ITEM_BYTES_DEFAULT: 400,
    PAYLOAD_ITEM_BYTES_DEFAULT + 1: 400,
    10_000: 400,
    16_000: 400,
    100_000: 200,
}
WRITERS: Final = (1, 4, 16, 64)
#: Batches that the head has, and the smallest one that it points to. A larger one is a pointer of the same size.
CROWD_SIZES: Final = (100, 300, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1)
PAGE_BYTES: Final = 1_048_576
CONTENT_TYPE: Final = "application/octet-stream"


@contextmanager
def opened_store() -> Iterator[tuple[DynamoDbStore, Any, str]]:
    """A store on the engine, a client of its own, and the table's name."""
    os.environ.update(CREDENTIALS)
    with dynamodb_local() as url, local_aws(url) as environment:
        table, s3 = environment["FLUVIAL_TABLE"], environment["FLUVIAL_S3_ENDPOINT_URL"]
        store = DynamoDbStore(DynamoDbConfig(table, table, Endpoints(url, s3)), Clock())
        yield store, boto3.client("dynamodb", endpoint_url=url), table


async def appended(store: DynamoDbStore, size: int, *, with_producer: bool = False, count: int = APPENDS) -> Meter:
    """The cost of appends one after the other, spills and all."""
    clock, name = Clock(), StreamName(f"cost/{size}-{'producer' if with_producer else 'plain'}")
    await store.apply(name, plan_create(Create(name=name, content_type=CONTENT_TYPE), clock.new_incarnation(), 0))
    meter = Meter()
    meter.watch(store._aws.writes, store._aws.reads, store._aws.objects)
    for seq in range(count):
        producer = ProducerStamp("writer-000001", 0, seq) if with_producer else None
        append = Append(name=name, content_type=CONTENT_TYPE, data=b"x" * size, producer=producer)
        assert isinstance(await store.apply(name, plan_append(append, clock.now_ms())), Applied)
    return meter


async def tail_read(store: DynamoDbStore, size: int) -> Meter:
    """A read of the newest batch by somebody who knows nothing yet of the stream."""
    name, meter = StreamName(f"cost/{size}-plain"), Meter()
    meter.watch(store._aws.reads, store._aws.objects)
    head = await store.head(name)
    assert head is not None
    page = await store.read(name, head, head.tail - size, PAGE_BYTES)
    assert page.end == head.tail
    return meter


async def caught_up(store: DynamoDbStore, size: int) -> tuple[Meter, int]:
    """A read of the whole stream, page by page, and its bytes."""
    name, meter, position = StreamName(f"cost/{size}-plain"), Meter(), 0
    meter.watch(store._aws.reads, store._aws.objects)
    head = await store.head(name)
    assert head is not None
    while position < head.tail:
        position = (await store.read(name, head, position, PAGE_BYTES)).end
    return meter, head.tail


async def rotated(store: DynamoDbStore, size: int) -> Meter:
    """What moving a stream's hot segments into S3 takes: a pointer, a note, and the deletions."""
    name, meter = StreamName(f"cost/{size}-plain"), Meter()
    await store.apply(name, plan_close(Close(name=name), 0))
    meter.watch(store._aws.writes, store._aws.reads, store._aws.objects)
    await store.rotate(name)
    return meter


def obvious_design(client: Any, table: str, size: int, count: int) -> Meter:  # noqa: ANN401  boto3 makes its classes
    """The same appends as a transaction of the head and one item a batch.

    The engine on one machine does not count a transaction's items, so its two writes are measured one by one and
    doubled, as AWS bills them. https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis.html
    """
    head = {"pk": {"S": f"obvious/{size}"}, "sk": {"S": "H"}}
    client.put_item(TableName=table, Item={**head, "n": {"N": "0"}, "m": {"S": CONTENT_TYPE}})
    meter, position = Meter(), 0
    meter.watch(client)
    for _ in range(count):
        values = {":n": {"N": str(position)}, ":m": {"N": str(position + size)}}
        moved = {"UpdateExpression": "SET n = :m", "ConditionExpression": "n = :n"}
        client.update_item(TableName=table, Key=head, ExpressionAttributeValues=values, **moved)
        client.put_item(TableName=table, Item={**head, "sk": {"S": f"{position:016d}"}, "d": {"B": b"x" * size}})
        position += size
    meter.units, meter.requests = meter.units * 2, count
    return meter


async def measure_append(store: DynamoDbStore, client: Any, table: str, size: int) -> AppendUnits:  # noqa: ANN401
    """An append's whole life: written, read, moved into S3, and read from there."""
    count = SIZES[size]
    written, tail = await _fresh(store, appended, size, count), await _fresh(store, tail_read, size)
    hot, hot_bytes = await _fresh(store, caught_up, size)
    rotation = await _fresh(store, rotated, size)
    cold, cold_bytes = await _fresh(store, caught_up, size)
    hot_mb, cold_mb = hot_bytes / 1e6, cold_bytes / 1e6
    units = AppendUnits(
        bytes=size,
        write_units=written.units / count,
        write_requests=written.requests / count,
        partition_write_units=written.partition_units / count,
        transaction_write_units=obvious_design(client, table, size, count).units / count,
        append_s3_puts=written.s3_puts / count,
        rotation_write_units=rotation.units / count,
        rotation_read_units=rotation.reads / count,
        rotation_s3_puts=rotation.s3_puts / count,
        rotation_s3_gets=rotation.s3_gets / count,
        tail_read_units=tail.reads,
        tail_s3_gets=tail.s3_gets,
        hot_mb_read_units=hot.reads / hot_mb,
        hot_mb_s3_gets=hot.s3_gets / hot_mb,
        cold_mb_read_units=cold.reads / cold_mb,
        cold_mb_s3_gets=cold.s3_gets / cold_mb,
    )
    return AppendUnits(**{one.name: round(getattr(units, one.name), 4) for one in fields(units)})


async def _fresh(store: DynamoDbStore, measure: Callable[..., Awaitable[T]], size: int, count: int | None = None) -> T:
    """Measure with a process that knows nothing yet."""
    process = DynamoDbStore(store.config, Clock())
    try:
        return await (measure(process, size) if count is None else measure(process, size, count=count))
    finally:
        await process.close()


async def measure() -> Measured:
    """Everything, on an engine of its own; some minutes."""
    with opened_store() as (store, client, table):
        appends = [await measure_append(store, client, table, size) for size in SIZES]
        polls, broadcast = await measure_polls(store), await measure_broadcast(store)
        await store.close()
    crowds = [await measure_crowd(size) for size in CROWD_SIZES]
    return Measured(appends, polls, crowds, broadcast, count_stack())


async def measure_crowd(size: int) -> CrowdUnits:
    """Appends of one size by one and by many writers."""
    return CrowdUnits(
        size, [WriterUnits(count, count * PACE_S, round(await writers_units(count, size), 2)) for count in WRITERS]
    )


def last_line(measured: Measured) -> str:
    """What budgets are set for."""
    small, crowds = measured.append(100), {one.writers: one.write_units for one in measured.crowd(100).writers}
    return (
        f"append_100B write_units={small.write_units:.2f} write_requests={small.write_requests:.2f}"
        f" tail_read_units={small.tail_read_units:.2f} write_units_16_writers={crowds[16]:.2f}"
        f" write_units_64_writers={crowds[64]:.2f} life_units_10KB={measured.append(10_000).life_write_units:.2f}"
    )


async def main() -> None:
    """Measure, save, and print the tables."""
    measured = await measure()
    save(measured)
    sys.stdout.write(f"{append_table(measured)}\n\n{reader_table(measured)}\n\n{last_line(measured)}\n")


if __name__ == "__main__":
    asyncio.run(main())
