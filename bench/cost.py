"""`make cost`: what appends and reads take of DynamoDB, measured on AWS's own engine, and what that costs."""

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from typing import Any, Final

import boto3
from tests.aws_local.__main__ import CREDENTIALS, local_aws
from tests.aws_local.dynamodb_local import dynamodb_local

from bench.meter import READ_UNIT_DOLLARS, S3_GET_DOLLARS, S3_PUT_DOLLARS, WRITE_UNIT_DOLLARS, Meter
from bench.readers import measured, reader_table
from fluvial.clock import Clock
from fluvial.model.command import Append, Close, Create
from fluvial.model.commit import Applied
from fluvial.model.head import ProducerStamp
from fluvial.model.names import StreamName
from fluvial.model.plan import plan_append, plan_close, plan_create
from fluvial.storage.dynamodb.store import DynamoDbConfig, DynamoDbStore
from fluvial.storage.dynamodb.table.aws_client import Endpoints

APPENDS: Final = 1_000
SIZES: Final = {"100 B": 100, "1 KB": 1_000, "10 KB": 10_000}
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


async def appended(store: DynamoDbStore, size: int, *, with_producer: bool) -> Meter:
    """The cost of appends one after the other, spills and all."""
    clock, name = Clock(), StreamName(f"cost/{size}-{'producer' if with_producer else 'plain'}")
    await store.apply(name, plan_create(Create(name=name, content_type=CONTENT_TYPE), clock.new_incarnation(), 0))
    meter = Meter()
    meter.watch(store._aws.writes, store._aws.reads, store._aws.objects)
    for seq in range(APPENDS):
        producer = ProducerStamp("writer-000001", 0, seq) if with_producer else None
        append = Append(name=name, content_type=CONTENT_TYPE, data=b"x" * size, producer=producer)
        assert isinstance(await store.apply(name, plan_append(append, clock.now_ms())), Applied)
    return meter


async def tail_read(store: DynamoDbStore, size: int) -> Meter:
    """A read of the newest batch by somebody who knows nothing yet of the stream."""
    name, meter = StreamName(f"cost/{size}-plain"), Meter()
    meter.watch(store._aws.reads)
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


def obvious_design(client: Any, table: str, size: int) -> Meter:  # noqa: ANN401  boto3 makes its clients' classes
    """The same appends as a transaction of the head and one item a batch.

    The engine on one machine does not count a transaction's items, so its two writes are measured one by one and
    doubled, as AWS bills them. https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis.html
    """
    head = {"pk": {"S": f"obvious/{size}"}, "sk": {"S": "H"}}
    client.put_item(TableName=table, Item={**head, "n": {"N": "0"}, "m": {"S": CONTENT_TYPE}})
    meter, position = Meter(), 0
    meter.watch(client)
    for _ in range(APPENDS):
        values = {":n": {"N": str(position)}, ":m": {"N": str(position + size)}}
        moved = {"UpdateExpression": "SET n = :m", "ConditionExpression": "n = :n"}
        client.update_item(TableName=table, Key=head, ExpressionAttributeValues=values, **moved)
        client.put_item(TableName=table, Item={**head, "sk": {"S": f"{position:016d}"}, "d": {"B": b"x" * size}})
        position += size
    meter.units, meter.requests = meter.units * 2, APPENDS
    return meter


def _row(label: str, meter: Meter, appends: int) -> str:
    units, requests = meter.units / appends, meter.requests / appends
    dollars = meter.units * WRITE_UNIT_DOLLARS / appends * 1e6
    return f"{label:<34}{units:>10.2f}{requests:>12.2f}{meter.refused:>10}{dollars:>16.2f}"


async def main() -> None:
    """Print the tables."""
    out = sys.stdout.write
    with opened_store() as (store, client, table):
        out(f"{'per append, of ' + str(APPENDS):<34}{'units':>10}{'requests':>12}{'refused':>10}{'$ a million':>16}\n")
        small: Meter | None = None
        for label, size in SIZES.items():
            for with_producer in (False, True):
                single = DynamoDbStore(store.config, Clock())
                meter = await appended(single, size, with_producer=with_producer)
                await single.close()
                small = small or meter
                out(_row(f"{label}{', producer' if with_producer else ''}", meter, APPENDS) + "\n")
            out(_row(f"{label}, transaction of head and item", obvious_design(client, table, size), APPENDS) + "\n")
        out(f"\n{'reads':<34}{'units':>10}{'requests':>12}{'$ a million':>26}\n")
        tail_units = 0.0
        for label, size in SIZES.items():
            fresh = DynamoDbStore(store.config, Clock())
            tail = await tail_read(fresh, size)
            await fresh.close()
            tail_units = tail_units or tail.reads
            dollars = tail.reads * READ_UNIT_DOLLARS * 1e6
            out(f"{'tail, ' + label:<34}{tail.reads:>10.2f}{tail.read_requests:>12}{dollars:>26.3f}\n")
        for label, size in SIZES.items():
            fresh = DynamoDbStore(store.config, Clock())
            whole, byte_count = await caught_up(fresh, size)
            await fresh.close()
            per_mb, requests = whole.reads / byte_count * 1e6, ceil(whole.read_requests / byte_count * 1e6)
            dollars = per_mb * READ_UNIT_DOLLARS * 1e6
            out(f"{'catch-up of 1 MB, hot, ' + label:<34}{per_mb:>10.1f}{requests:>12}{dollars:>26.2f}\n")
        assert small is not None
        cold = DynamoDbStore(store.config, Clock())
        rotation = await rotated(cold, SIZES["100 B"])
        await cold.close()
        units = rotation.units / APPENDS
        dollars = (units * WRITE_UNIT_DOLLARS + rotation.s3_puts * S3_PUT_DOLLARS / APPENDS) * 1e6
        out(f"\nRotation, later, of 100 B: {units:.2f} write units an append, ${dollars:.2f} a million with S3.\n")
        cold = DynamoDbStore(store.config, Clock())
        whole, byte_count = await caught_up(cold, SIZES["100 B"])
        await cold.close()
        gets, reads = whole.s3_gets / byte_count * 1e6, whole.reads / byte_count * 1e6
        dollars = (reads * READ_UNIT_DOLLARS + gets * S3_GET_DOLLARS) * 1e6
        out(f"Catch-up of 1 MB from S3: {reads:.1f} read units, {gets:.1f} gets, ${dollars:.2f} a million.\n\n")
        watcher = DynamoDbStore(store.config, Clock())
        out(reader_table(await measured(watcher, small.units / APPENDS)) + "\n")
        await watcher.close()
        per_append = f"write_units={small.units / APPENDS:.2f} write_requests={small.requests / APPENDS:.2f}"
        out(f"append_100B {per_append} tail_read_units={tail_units:.2f}\n")
        await store.close()


if __name__ == "__main__":
    asyncio.run(main())
