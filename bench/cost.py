"""`make cost`: what appends and reads take of DynamoDB, measured on AWS's own engine, and what that costs."""

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Final

import boto3
from tests.aws_local.__main__ import CREDENTIALS, local_aws
from tests.aws_local.dynamodb_local import dynamodb_local

from fluvial.core.command import Append, Create
from fluvial.core.commit import Applied
from fluvial.core.head import ProducerStamp
from fluvial.core.names import StreamName
from fluvial.core.plan import plan_append, plan_create
from fluvial.stores.dynamodb.aws import Endpoints
from fluvial.stores.dynamodb.store import DynamoDbConfig, DynamoDbStore
from fluvial.world import World

#: us-east-1, on demand. https://aws.amazon.com/dynamodb/pricing/on-demand/ and https://aws.amazon.com/s3/pricing/
WRITE_UNIT_DOLLARS: Final = 0.625 / 1e6
READ_UNIT_DOLLARS: Final = 0.125 / 1e6
S3_PUT_DOLLARS: Final = 0.005 / 1e3

APPENDS: Final = 1_000
SIZES: Final = {"100 B": 100, "1 KB": 1_000, "10 KB": 10_000}
PAGE_BYTES: Final = 1_048_576
WRITES: Final = {"PutItem", "UpdateItem", "DeleteItem"}
CONTENT_TYPE: Final = "application/octet-stream"


@dataclass
class Meter:
    """What a client's calls took."""

    units: float = 0.0
    requests: int = 0
    refused: int = 0
    reads: float = 0.0
    read_requests: int = 0
    s3_puts: int = 0
    _registered: list[Any] = field(default_factory=list)

    def watch(self, *clients: Any) -> None:  # noqa: ANN401  boto3 makes its clients' classes at run time
        """Count what these ask for."""
        for client in clients:
            client.meta.events.register("provide-client-params.dynamodb.*", self._ask)
            client.meta.events.register("after-call.dynamodb.*", self._count)
            client.meta.events.register("after-call.s3.PutObject", self._count_put)

    def _ask(self, params: dict[str, Any], **_: object) -> None:
        params["ReturnConsumedCapacity"] = "TOTAL"

    def _count(self, model: Any, parsed: dict[str, Any], **_: object) -> None:  # noqa: ANN401  botocore's own
        consumed = parsed.get("ConsumedCapacity", [])
        units = sum(one["CapacityUnits"] for one in (consumed if isinstance(consumed, list) else [consumed]))
        if model.name not in WRITES:
            self.reads, self.read_requests = self.reads + units, self.read_requests + 1
            return
        self.requests += 1
        if "Error" in parsed:  # the engine on one machine does not say; AWS bills the item that refused
            self.refused += 1
            units = 1
        self.units += units

    def _count_put(self, **_: object) -> None:
        self.s3_puts += 1


@contextmanager
def opened_store() -> Iterator[tuple[DynamoDbStore, Any, str]]:
    """A store on the engine, a client of its own, and the table's name."""
    os.environ.update(CREDENTIALS)
    with dynamodb_local() as url, local_aws(url) as environment:
        table, s3 = environment["FLUVIAL_TABLE"], environment["FLUVIAL_S3_ENDPOINT_URL"]
        store = DynamoDbStore(DynamoDbConfig(table, table, Endpoints(url, s3)), World())
        yield store, boto3.client("dynamodb", endpoint_url=url), table


async def appended(store: DynamoDbStore, size: int, *, with_producer: bool) -> Meter:
    """The cost of appends one after the other, spills and all."""
    world, name = World(), StreamName(f"cost/{size}-{'producer' if with_producer else 'plain'}")
    await store.apply(name, plan_create(Create(name=name, content_type=CONTENT_TYPE), world.new_incarnation(), 0))
    meter = Meter()
    meter.watch(store._aws.writes, store._aws.reads, store._aws.objects)
    for seq in range(APPENDS):
        producer = ProducerStamp("writer-000001", 0, seq) if with_producer else None
        append = Append(name=name, content_type=CONTENT_TYPE, data=b"x" * size, producer=producer)
        assert isinstance(await store.apply(name, plan_append(append, world.now_ms())), Applied)
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
    meter.watch(store._aws.reads)
    head = await store.head(name)
    assert head is not None
    while position < head.tail:
        position = (await store.read(name, head, position, PAGE_BYTES)).end
    return meter, head.tail


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
                single = DynamoDbStore(store.config, World())
                meter = await appended(single, size, with_producer=with_producer)
                await single.close()
                small = small or meter
                out(_row(f"{label}{', producer' if with_producer else ''}", meter, APPENDS) + "\n")
            out(_row(f"{label}, transaction of head and item", obvious_design(client, table, size), APPENDS) + "\n")
        out(f"\n{'reads':<34}{'units':>10}{'requests':>12}{'$ a million':>26}\n")
        tail_units = 0.0
        for label, size in SIZES.items():
            fresh = DynamoDbStore(store.config, World())
            tail = await tail_read(fresh, size)
            await fresh.close()
            tail_units = tail_units or tail.reads
            dollars = tail.reads * READ_UNIT_DOLLARS * 1e6
            out(f"{'tail, ' + label:<34}{tail.reads:>10.2f}{tail.read_requests:>12}{dollars:>26.3f}\n")
        for label, size in SIZES.items():
            fresh = DynamoDbStore(store.config, World())
            whole, byte_count = await caught_up(fresh, size)
            await fresh.close()
            per_mb, requests = whole.reads / byte_count * 1e6, ceil(whole.read_requests / byte_count * 1e6)
            dollars = per_mb * READ_UNIT_DOLLARS * 1e6
            out(f"{'catch-up of 1 MB, hot, ' + label:<34}{per_mb:>10.1f}{requests:>12}{dollars:>26.2f}\n")
        out(f"\nRotation puts an S3 object for 1,000 batches or 4 MiB: ${S3_PUT_DOLLARS * 1e6:.0f} a million.\n")
        assert small is not None
        per_append = f"write_units={small.units / APPENDS:.2f} write_requests={small.requests / APPENDS:.2f}"
        out(f"append_100B {per_append} tail_read_units={tail_units:.2f}\n")
        await store.close()


if __name__ == "__main__":
    asyncio.run(main())
