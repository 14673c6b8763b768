"""Stores to test, each with a back door that looks behind the contract."""

import asyncio
import atexit
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final, Protocol

import boto3
import pytest
from moto import mock_aws

from fluvial.model.head import Incarnation
from fluvial.model.names import StreamName
from fluvial.storage.contract import Store
from fluvial.storage.dynamodb.store import DynamoDbConfig, DynamoDbStore
from fluvial.storage.dynamodb.table.aws_client import Endpoints
from fluvial.storage.limits import STORE_LIMITS, StoreLimits
from fluvial.storage.memory import MemoryStore
from fluvial.storage.sqlite.store import SqliteStore, open_sqlite_store
from tests.aws_local.dynamodb_local import NotInstallableError, dynamodb_local, is_required
from tests.aws_local.template import create_table
from tests.support.clocks import FixedClock
from tests.support.commands import delete_commit


class Rig(Protocol):
    """A store under test."""

    still: FixedClock

    @property
    def store(self) -> Store:
        """The store that is open now."""
        ...

    async def reopen(self) -> None:
        """Close the store and open it again, where that means anything."""
        ...

    async def let_pass(self) -> None:
        """Give the background a turn."""
        ...

    def raw_bytes(self, incarnation: Incarnation) -> bytes:
        """All stored bytes of a life, read behind the store's back; empty when nothing is kept of it."""
        ...


@dataclass
class MemoryRig:
    """The memory store; reopening it does nothing."""

    store: MemoryStore = field(default_factory=MemoryStore)
    still: FixedClock = field(default_factory=FixedClock)

    async def reopen(self) -> None:
        """Memory has no other side."""

    async def let_pass(self) -> None:
        """Let other tasks run."""
        await asyncio.sleep(0)

    def raw_bytes(self, incarnation: Incarnation) -> bytes:
        """The log's batches."""
        log = self.store._logs.get(incarnation)
        return b"".join(log.batches) if log else b""


@dataclass
class SqliteRig:
    """The SQLite store in a folder of its own."""

    folder: Path
    store: SqliteStore
    still: FixedClock
    limits: StoreLimits = STORE_LIMITS

    async def reopen(self) -> None:
        """What a restart does."""
        await self.store.close()
        self.store = await open_sqlite_store(self.folder, self.still.clock(), self.limits)

    async def let_pass(self) -> None:
        """Wait for a commit that changes nothing."""
        await self.store.apply(StreamName("nobody"), delete_commit())

    def query(self, statement: str, *parameters: object) -> list[tuple[object, ...]]:
        """Rows, as another process would see them."""
        connection = sqlite3.connect(self.folder / "fluvial.db")
        try:
            return connection.execute(statement, parameters).fetchall()
        finally:
            connection.close()

    def raw_bytes(self, incarnation: Incarnation) -> bytes:
        """The segment files' data, then the hot log's rows."""
        data = b""
        segments = "SELECT start_offset, end_offset FROM segment WHERE incarnation = ? ORDER BY end_offset"
        for start, end in self.query(segments, incarnation):
            [path] = self.folder.glob(f"segments/*/{incarnation:016x}-{start:016d}-{end:016d}.segment")
            data += path.read_bytes()[: int(str(end)) - int(str(start))]
        runs = "SELECT data FROM hot_run WHERE incarnation = ? ORDER BY end_offset"
        return data + b"".join(bytes(row[0]) for row in self.query(runs, incarnation))  # type: ignore[call-overload]


@asynccontextmanager
async def memory_rig(_folder: Path, _limits: StoreLimits = STORE_LIMITS) -> AsyncIterator[MemoryRig]:
    """A memory store."""
    yield MemoryRig()


@asynccontextmanager
async def sqlite_rig(folder: Path, limits: StoreLimits = STORE_LIMITS) -> AsyncIterator[SqliteRig]:
    """A SQLite store that is closed at the end."""
    still = FixedClock()
    rig = SqliteRig(folder, await open_sqlite_store(folder, still.clock(), limits), still, limits)
    try:
        yield rig
    finally:
        await rig.store.close()


@dataclass
class DynamoDbRig:
    """The store on DynamoDB and S3, in a table of its own."""

    config: DynamoDbConfig
    store: DynamoDbStore
    still: FixedClock
    client: Any

    async def reopen(self) -> None:
        """What a new process sees."""
        await self.store.close()
        self.store = DynamoDbStore(self.config, self.still.clock())

    async def let_pass(self) -> None:
        """Let the chores go on."""
        await asyncio.sleep(0.001)

    def items(self, partition: str) -> list[dict[str, Any]]:
        """A partition's items, as another process would see them."""
        found: list[dict[str, Any]] = self.client.query(
            TableName=self.config.table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": partition}},
            ConsistentRead=True,
        )["Items"]
        return found

    def raw_bytes(self, incarnation: Incarnation) -> bytes:
        """The segments' data, then the buffer of whatever head has the life."""
        data = b""
        for item in self.items(f"SEG#{incarnation:016x}"):
            data += item["d"]["B"] if "d" in item else b""
        scanned = self.client.scan(TableName=self.config.table, ConsistentRead=True)["Items"]
        for item in scanned:
            if item.get("i", {}).get("B") == incarnation.to_bytes(8, "big") and "q" in item:
                data += b"".join(batch["B"][9:] for batch in item["q"]["L"])
        return data


REGION: Final = "eu-central-1"
_NUMBERS = count(1)


@asynccontextmanager
async def dynamodb_rig(endpoint: str | None, limits: StoreLimits = STORE_LIMITS) -> AsyncIterator[DynamoDbRig]:
    """A table on an engine at the endpoint, or in moto when there is none; the bucket is always moto's."""
    with mock_aws():
        number, still = next(_NUMBERS), FixedClock()
        config = DynamoDbConfig(
            table=f"streams-{number}",
            bucket=f"segments-{number}",
            endpoints=Endpoints(dynamodb=endpoint, region=REGION),
            runs_background_tasks=True,
            threads_max=1 if endpoint is None else 16,  # moto loses updates of threads
            limits=limits,
        )
        client = boto3.client("dynamodb", region_name=REGION, endpoint_url=endpoint)
        create_table(client, config.table)
        boto3.client("s3", region_name=REGION).create_bucket(
            Bucket=config.bucket, CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        rig = DynamoDbRig(config, DynamoDbStore(config, still.clock()), still, client)
        try:
            yield rig
        finally:
            await rig.store.close()
            client.close()


@asynccontextmanager
async def moto_rig(_folder: Path, limits: StoreLimits = STORE_LIMITS) -> AsyncIterator[DynamoDbRig]:
    """The store on moto alone."""
    async with dynamodb_rig(None, limits) as rig:
        yield rig


@asynccontextmanager
async def dynamodb_local_rig(_folder: Path, limits: StoreLimits = STORE_LIMITS) -> AsyncIterator[DynamoDbRig]:
    """The store on AWS's own engine."""
    async with dynamodb_rig(dynamodb_local_url(), limits) as rig:
        yield rig


def dynamodb_local_url() -> str:
    """The engine that all tests of the session share; skips the test where it cannot be had, except in CI."""
    if not hasattr(dynamodb_local_url, "started"):
        stack = ExitStack()
        try:
            dynamodb_local_url.started = stack.enter_context(dynamodb_local())  # type: ignore[attr-defined]
        except NotInstallableError as exc:
            if is_required():
                raise
            pytest.skip(str(exc))
        atexit.register(stack.close)
    return str(dynamodb_local_url.started)  # type: ignore[attr-defined]


#: What a store has that tries again at once, for tests in which much has to be tried again.
IMPATIENT: Final = StoreLimits(busy_pause_s=0.001, fence_pause_s=0.001)

RIGS: dict[str, Callable[..., AbstractAsyncContextManager[Rig]]] = {
    "memory": memory_rig,
    "sqlite": sqlite_rig,
    "dynamodb-moto": moto_rig,
    "dynamodb-local": dynamodb_local_rig,
}

#: Each store for a fixture. The table is in AWS's own engine, which takes most of the time.
STORES: Final = ["memory", "sqlite", pytest.param("dynamodb-local", marks=pytest.mark.slow)]

#: A few tests run on moto's tables, too: they are all that a machine without Java has.
also_on_moto = pytest.mark.parametrize("rig", [*STORES, "dynamodb-moto"], indirect=True)


async def eventually(holds: Callable[[], bool], step: Callable[[], Awaitable[object]], tries: int = 2_000) -> None:
    """Take steps until something holds that the background brings about."""
    for _ in range(tries):
        if holds():
            return
        await step()
    raise AssertionError("it never came about")
