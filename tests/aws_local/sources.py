"""Lambda's event source mappings on one machine: they read the change feed and SQS queues for a function."""

import asyncio
import json
import random
from binascii import crc32
from collections.abc import Callable
from typing import Any

from tests.aws_local.change_feed import ChangeFeedReader
from tests.aws_local.environments import Environments, FunctionFailedError

PAUSE_S = 0.05
#: A queue that stays empty is asked less and less often, down to this: moto's answers take the tests' own cores.
EMPTY_PAUSE_S_MAX = 0.4
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


class _Queue:
    """Receives a queue's messages, and calls `deliver`, until cancelled."""

    def __init__(self, client: Any, url: str, repeats: float) -> None:  # noqa: ANN401  made at run time
        """`repeats` is the share of processed messages that are not deleted, and so are delivered again."""
        self._client, self._url, self._repeats = client, url, repeats

    async def run(self) -> None:
        """Run until cancelled."""
        await asyncio.gather(*(self._work() for _ in range(2)))

    async def deliver(self, messages: list[dict[str, Any]]) -> set[str]:
        """Invoke a function with messages; the ids of those that are done. Raises what `Environments.invoke` does."""
        raise NotImplementedError

    async def _work(self) -> None:
        pause_s = PAUSE_S
        while True:
            answer = await asyncio.to_thread(
                self._client.receive_message, QueueUrl=self._url, MaxNumberOfMessages=5, AttributeNames=["All"]
            )
            messages = answer.get("Messages", [])
            if not messages:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, EMPTY_PAUSE_S_MAX)
                continue
            pause_s = PAUSE_S
            try:
                done = await self.deliver(messages)
            except (FunctionFailedError, TimeoutError):
                continue
            for one in messages:
                is_kept = random.random() < self._repeats
                if one["MessageId"] in done and not is_kept:
                    await asyncio.to_thread(
                        self._client.delete_message, QueueUrl=self._url, ReceiptHandle=one["ReceiptHandle"]
                    )


class QueueSource(_Queue):
    """Sends a queue's messages to a function; SQS delivers messages again that are not deleted."""

    def __init__(self, client: Any, url: str, function: Environments, repeats: float = 0.0) -> None:  # noqa: ANN401
        """`repeats` is the share of processed messages that are not deleted, and so are delivered again."""
        super().__init__(client, url, repeats)
        self._function = function

    async def deliver(self, messages: list[dict[str, Any]]) -> set[str]:
        """One invocation with all messages, whose result has the ids of the failed ones."""
        records = [
            {
                "messageId": one["MessageId"],
                "body": one["Body"],
                "attributes": one.get("Attributes", {}),
                "eventSource": "aws:sqs",
            }
            for one in messages
        ]
        result = json.loads(await self._function.invoke(json.dumps({"Records": records}).encode()))
        return {one["MessageId"] for one in messages} - {one["itemIdentifier"] for one in result["batchItemFailures"]}


class EventSource(_Queue):
    """Invokes a function asynchronously with each event that SNS or EventBridge has put into a queue for it."""

    def __init__(
        self,
        client: Any,  # noqa: ANN401  made at run time
        url: str,
        function: Environments,
        make_event: Callable[[str], dict[str, Any]],
        repeats: float = 0.0,
    ) -> None:
        """`make_event` turns a message's body into the function's event."""
        super().__init__(client, url, repeats)
        self._function, self._make_event = function, make_event

    async def deliver(self, messages: list[dict[str, Any]]) -> set[str]:
        """One invocation for each message; its result is not read."""
        for one in messages:
            await self._function.invoke(json.dumps(self._make_event(one["Body"])).encode())
        return {one["MessageId"] for one in messages}


def sns_event(body: str) -> dict[str, Any]:
    """The event of a notification, which SNS puts into a queue as JSON."""
    return {"Records": [{"EventSource": "aws:sns", "EventVersion": "1.0", "Sns": json.loads(body)}]}


def bus_event(body: str) -> dict[str, Any]:
    """The event of EventBridge, which it sends as it is."""
    event: dict[str, Any] = json.loads(body)
    return event
