"""`make changes`: how many records a second the changes function processes, without WebSockets and followers.

One shard of a table's stream carries up to 1,000 records a second, and is processed by one environment at a time. The
records are real ones, of DynamoDB Local's stream. Lambda gives a function with 1,769 MB one processor, and other
functions a share of one by their memory
(https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html), so processor time bounds the rate; the time of
waiting for the network is told by the number of requests, which is none.
"""

import asyncio
import json
import os
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any, Final

import boto3
from tests.aws_local.__main__ import local_aws
from tests.aws_local.change_feed import ChangeFeedReader
from tests.aws_local.dynamodb_local import dynamodb_local
from tests.aws_local.environments import Context, load
from tests.aws_local.template import load_properties

from bench.stack import count_stack
from fluvial.clock import Clock
from fluvial.model.command import Append, Create
from fluvial.model.names import StreamName
from fluvial.model.plan import plan_append, plan_create
from fluvial.storage.dynamodb.store import DynamoDbConfig, DynamoDbStore
from fluvial.storage.dynamodb.table.aws_client import Endpoints

#: Megabytes of memory for which Lambda gives one whole processor.
PROCESSOR_MB: Final = 1_769
ROUNDS: Final = 10
TYPE: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Processed:
    """What batches of records took: each of `record_count` records of `stream_count` streams."""

    record_count: int
    stream_count: int
    batch_ms: float
    requests: int

    def records_s(self, memory_mb: int) -> float:
        """Records a second of a function with so much memory, as far as its processor goes."""
        share = min(1.0, memory_mb / PROCESSOR_MB)
        return 1e3 * self.record_count * share / self.batch_ms


async def make_records(settings: dict[str, str], batch: int, stream_count: int) -> list[dict[str, Any]]:
    """A batch of records of appends of 100 bytes, evenly of so many streams."""
    clock = Clock()
    endpoints = Endpoints(settings["FLUVIAL_ENDPOINT_URL"], settings["FLUVIAL_S3_ENDPOINT_URL"])
    store = DynamoDbStore(DynamoDbConfig(settings["FLUVIAL_TABLE"], settings["FLUVIAL_BUCKET"], endpoints), clock)
    names = [StreamName(f"changes/{stream_count}/{number}") for number in range(stream_count)]
    feed = ChangeFeedReader(
        boto3.client("dynamodbstreams", endpoint_url=settings["FLUVIAL_ENDPOINT_URL"]), settings["FLUVIAL_TABLE"]
    )
    try:
        for name in names:
            await store.apply(name, plan_create(Create(name=name, content_type=TYPE), clock.new_incarnation(), 0))
        feed.records()
        for number in range(batch):
            append = Append(name=names[number % stream_count], content_type=TYPE, data=b"." * 100)
            await store.apply(append.name, plan_append(append, clock.now_ms()))
        return feed.records()[:batch]
    finally:
        await store.close()


def process(records: list[dict[str, Any]], stream_count: int) -> Processed:
    """Have the function process a batch again and again; the median of its processor time."""
    handler, context = load("changes"), Context("changes", "request")
    module = sys.modules["changes.handler"]
    requests = list[str]()

    def note(model: Any, **_: object) -> None:  # noqa: ANN401  botocore makes its models' classes at run time
        requests.append(model.name)

    for client in (module.store._aws.writes, module.store._aws.reads):
        client.meta.events.register("before-call", note)
    times_ms = list[float]()
    for _ in range(ROUNDS + 1):
        event = json.loads(json.dumps({"Records": records}))
        began_s = time.process_time()
        answer = handler(event, context)
        times_ms.append(1e3 * (time.process_time() - began_s))
        assert answer == {"batchItemFailures": []}, answer
    return Processed(len(records), stream_count, statistics.median(times_ms[1:]), len(requests))


def main() -> None:
    """Print the table."""
    memory_mb = count_stack().changes_memory_mb
    batch = load_properties("AWS::Lambda::EventSourceMapping")["ChangeSource"]["BatchSize"]
    with dynamodb_local() as url, local_aws(url) as settings:
        os.environ |= {
            **settings,
            "FLUVIAL_FANOUT_QUEUE_URL": f"{settings['FLUVIAL_S3_ENDPOINT_URL']}/queue",
            "FLUVIAL_CONNECTIONS_URL": settings["FLUVIAL_S3_ENDPOINT_URL"],
            "POWERTOOLS_METRICS_NAMESPACE": "Fluvial",
        }
        out = sys.stderr.write
        out(f"{'streams':>8}{'records':>9}{'ms of a processor':>20}{'requests':>10}{'records/s at 1 vCPU':>22}")
        out(f"{f'at {memory_mb} MB':>12}\n")
        for stream_count in (1, 10, batch):
            done = process(asyncio.run(make_records(settings, batch, stream_count)), stream_count)
            whole, own = done.records_s(PROCESSOR_MB), done.records_s(memory_mb)
            out(f"{done.stream_count:>8}{done.record_count:>9}{done.batch_ms:>20.1f}{done.requests:>10}")
            out(f"{whole:>22,.0f}{own:>12,.0f}\n")


if __name__ == "__main__":
    main()
