"""A process of one release on a table: it carries out a command a line from stdin, and answers each with a line.

The code is that of the release in PYTHONPATH. So nothing else of this repository is imported, and of the package only
what the releases have in common.
"""

import asyncio
import base64
import json
import os
import sys
from dataclasses import replace
from typing import Any

from fluvial.aws.sweep_job import sweep_all
from fluvial.clock import Clock
from fluvial.model.command import Append, Close, Create
from fluvial.model.commit import Applied, Commit
from fluvial.model.errors import StoreError
from fluvial.model.head import ProducerStamp
from fluvial.model.names import StreamName
from fluvial.model.plan import plan_append, plan_close, plan_create, plan_delete
from fluvial.storage.dynamodb.store import DynamoDbConfig, DynamoDbStore
from fluvial.storage.dynamodb.table.aws_client import Endpoints

CONTENT_TYPE = "application/octet-stream"


class Worker:
    """A store of this release, and its clock."""

    def __init__(self) -> None:
        """The environment says where the table and the bucket are, and what time it is."""
        self.now_ms = int(os.environ["NOW_MS"])
        self.clock = replace(Clock(), now_ms=lambda: self.now_ms)
        table = os.environ["FLUVIAL_TABLE"]
        endpoints = Endpoints(
            os.environ["FLUVIAL_ENDPOINT_URL"], os.environ["FLUVIAL_S3_ENDPOINT_URL"], os.environ["AWS_REGION"]
        )
        bucket = os.environ["FLUVIAL_BUCKET"]
        self.store = DynamoDbStore(DynamoDbConfig(table, bucket, endpoints, runs_background_tasks=True), self.clock)

    async def do(self, command: dict[str, Any]) -> object:
        """Carry out one command; its answer."""
        name, now_ms = StreamName(command.get("name", "")), self.now_ms
        match command["do"]:
            case "create":
                create = Create(name=name, content_type=CONTENT_TYPE)
                return await self._apply(name, plan_create(create, self.clock.new_incarnation(), now_ms))
            case "append":
                data = base64.b64decode(command["data"])
                stamp = ProducerStamp(command["producer"], 0, 0) if "producer" in command else None
                append = Append(name=name, content_type=CONTENT_TYPE, data=data, producer=stamp)
                return await self._apply(name, plan_append(append, now_ms))
            case "close":
                return await self._apply(name, plan_close(Close(name=name), now_ms))
            case "delete":
                return await self._apply(name, plan_delete(now_ms))
            case "rotate":
                await self.store.rotate(name)
                return True
            case "read":
                return base64.b64encode(await self._read(name)).decode()
            case "sweep":
                return await sweep_all(self.store, lambda _items, _objects: None, dry_run=False)
            case "advance":
                self.now_ms += command["ms"]
                return self.now_ms
            case unknown:
                raise ValueError(unknown)

    async def _apply(self, name: StreamName, commit: Commit) -> bool:
        outcome = await self.store.apply(name, commit)
        if (tasks := self.store._background_tasks) is not None and tasks._task is not None:
            await tasks._task
        return isinstance(outcome, Applied)

    async def _read(self, name: StreamName) -> bytes:
        head, data = await self.store.head(name), b""
        assert head is not None, "the stream exists"
        while len(data) < head.tail:
            data += (await self.store.read(name, head, len(data), 1_048_576)).data
        return data


async def main() -> None:
    """Answer commands until stdin ends."""
    worker = Worker()
    while line := await asyncio.to_thread(sys.stdin.readline):
        try:
            answer = {"answer": await worker.do(json.loads(line))}
        except StoreError as exc:
            answer = {"error": type(exc).__name__}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    await worker.store.close()


if __name__ == "__main__":
    asyncio.run(main())
