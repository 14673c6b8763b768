"""Lambda's event source mappings on one machine: they read the change feed and SQS queues for a function."""

import asyncio
import json
import random
from binascii import crc32
from typing import Any

from tests.aws_local.change_feed import ChangeFeedReader
from tests.aws_local.environments import Environments, FunctionFailedError

PAUSE_S = 0.05
LANES = 4


class FeedSource:
    """Sends a table's changes to a function, in order within a partition key, and again after a failure."""

    def __init__(self, reader: ChangeFeedReader, function: Environments, repeats: float = 0.0) -> None:
        """`repeats` is the share of batches that are sent twice."""
        self._reader, self._function, self._repeats = reader, function, repeats
        self._lanes: list[list[dict[str, Any]]] = [[] for _ in range(LANES)]

    async def run(self) -> None:
        """Run until cancelled."""
        workers = [asyncio.create_task(self._work(lane)) for lane in self._lanes]
        try:
            while True:
                for record in await asyncio.to_thread(self._reader.records):
                    key = record["dynamodb"]["Keys"]["pk"]["S"]
                    self._lanes[crc32(key.encode()) % LANES].append(record)
                await asyncio.sleep(PAUSE_S)
        finally:
            for worker in workers:
                worker.cancel()

    async def _work(self, lane: list[dict[str, Any]]) -> None:
        while True:
            batch = lane[:100]
            if not batch:
                await asyncio.sleep(PAUSE_S)
                continue
            try:
                answer = json.loads(await self._function.invoke(json.dumps({"Records": batch}).encode()))
            except (FunctionFailedError, TimeoutError):
                continue
            failed = {one["itemIdentifier"] for one in answer["batchItemFailures"]}
            numbers = [record["dynamodb"]["SequenceNumber"] for record in batch]
            done = next((at for at, number in enumerate(numbers) if number in failed), len(batch))
            if not failed and random.random() < self._repeats:
                continue
            del lane[:done]


class QueueSource:
    """Sends a queue's messages to a function; SQS delivers messages again that are not deleted."""

    def __init__(self, client: Any, url: str, function: Environments, repeats: float = 0.0) -> None:  # noqa: ANN401
        """`repeats` is the share of processed messages that are not deleted, and so are delivered again."""
        self._client, self._url, self._function, self._repeats = client, url, function, repeats

    async def run(self) -> None:
        """Run until cancelled."""
        await asyncio.gather(*(self._work() for _ in range(2)))

    async def _work(self) -> None:
        while True:
            answer = await asyncio.to_thread(
                self._client.receive_message, QueueUrl=self._url, MaxNumberOfMessages=5, AttributeNames=["All"]
            )
            messages = answer.get("Messages", [])
            if not messages:
                await asyncio.sleep(PAUSE_S)
                continue
            records = [
                {
                    "messageId": one["MessageId"],
                    "body": one["Body"],
                    "attributes": one.get("Attributes", {}),
                    "eventSource": "aws:sqs",
                }
                for one in messages
            ]
            try:
                result = json.loads(await self._function.invoke(json.dumps({"Records": records}).encode()))
            except (FunctionFailedError, TimeoutError):
                continue
            failed = {one["itemIdentifier"] for one in result["batchItemFailures"]}
            for one in messages:
                is_kept = random.random() < self._repeats
                if one["MessageId"] not in failed and not is_kept:
                    await asyncio.to_thread(
                        self._client.delete_message, QueueUrl=self._url, ReceiptHandle=one["ReceiptHandle"]
                    )
