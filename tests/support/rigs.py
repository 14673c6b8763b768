"""Rigs: the stores under test, each with a back door that reads the stored data without the store."""

import asyncio
import atexit
import sqlite3
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

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

T = TypeVar("T")


class Rig(Protocol):
    """A store under test."""

    still: FixedClock

    @property
    def store(self) -> Store:
        """The store that is open now."""
        ...

    async def reopen(self) -> None:
        """Close the store and open it again, as a restart does; the memory store stays open."""
        ...

    async def let_pass(self) -> None:
        """Let background tasks run for a moment."""
        ...

    def raw_bytes(self, incarnation: Incarnation) -> bytes:
        """All stored bytes of an incarnation, read without the store; empty when none are stored."""
        ...


@dataclass
class MemoryRig:
    """The memory store; `reopen` does nothing."""

    store: MemoryStore = field(default_factory=MemoryStore)
    still: FixedClock = field(default_factory=FixedClock)

    async def reopen(self) -> None:
        """Do nothing: a restart would lose the streams."""

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
        """Close the store and open its folder again."""
        await self.store.close()
        self.store = await open_sqlite_store(self.folder, self.still.clock(), self.limits)

    async def let_pass(self) -> None:
        """Wait for a commit that changes nothing: the background jobs before it are done then."""
        await self.store.apply(StreamName("unknown"), delete_commit())

    def query(self, statement: str, *parameters: object) -> list[tuple[object, ...]]:
        """The rows that another process sees."""
        connection = sqlite3.connect(self.folder / "fluvial.db")
        try:
            return connection.execute(statement, parameters).fetchall()
        finally:
            connection.close()

    def wrap_connection(self, wrap: Callable[[sqlite3.Connection], T]) -> T:
        """Let the store's writer use a wrapper of its connection from now on; returns the wrapper."""
        writer = self.store._group_commit._writer
        wrapper = wrap(writer._connection)
        writer._connection = wrapper  # type: ignore[assignment]
        return wrapper

    def raw_bytes(self, incarnation: Incarnation) -> bytes:
        """The segment files' data, then the hot log's rows."""
        data = b""
        segments = "SELECT start_offset, end_offset FROM segment WHERE incarnation = ? ORDER BY end_offset"
        for start, end in self.query(segments, incarnation):
            [path] = self.folder.glob(f"segments/*/{incarnation:016x}-{start:016d}-{end:016d}.segment")
            data += path.read_bytes()[: int(str(end)) - int(str(start))]
        hot_log = "SELECT data FROM hot_run WHERE incarnation = ? ORDER BY end_offset"
        return data + b"".join(bytes(row[0]) for row in self.query(hot_log, incarnation))  # type: ignore[call-overload]


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
        """Close the store and open another one on the same table."""
        await self.store.close()
        self.store = DynamoDbStore(self.config, self.still.clock())

    async def let_pass(self) -> None:
        """Let background tasks run for a moment."""
        await asyncio.sleep(0.001)

    def items(self, partition: str) -> list[dict[str, Any]]:
        """The items of a partition that another process sees."""
        found: list[dict[str, Any]] = self.client.query(
            TableName=self.config.table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": partition}},
            ConsistentRead=True,
        )["Items"]
        return found

    def payloads(self) -> list[dict[str, Any]]:
        """The items of all streams' payloads, of either form of key."""
        scanned: list[dict[str, Any]] = self.client.scan(TableName=self.config.table, ConsistentRead=True)["Items"]
        return [item for item in scanned if item["pk"]["S"].partition("#")[0] in {"PL", "PAYLOAD"}]

    def raw_bytes(self, incarnation: Incarnation) -> bytes:
        """The segments' data, then the buffer of the incarnation's head; groups from their payloads."""
        data = b""
        scanned = self.client.scan(TableName=self.config.table, ConsistentRead=True)["Items"]
        for item in self.items(f"SEG#{incarnation:016x}"):
            data += _data_of_segment(item, scanned) if "d" in item else b""
        for item in scanned:
            if item.get("i", {}).get("B") == incarnation.to_bytes(8, "big") and "q" in item:
                for element in (batch["B"] for batch in item["q"]["L"]):
                    is_group = element[0] == GROUP
                    data += _data_of_group(element[1:9], scanned) if is_group else element[9:]
        return data


#: The placement of a group of batches, as it is stored.
GROUP: Final = 3


def _data_of_group(commit_id: bytes, scanned: list[dict[str, Any]]) -> bytes:
    [payload] = [item for item in scanned if commit_id.hex() in item["pk"]["S"] + item["sk"]["S"]]
    data: bytes = payload["d"]["B"]
    return data


def _data_of_segment(item: dict[str, Any], scanned: list[dict[str, Any]]) -> bytes:
    data, found = item["d"]["B"], b""
    for at, (packed,) in enumerate(struct.iter_unpack("<I", item["e"]["B"])):
        placement, length = packed >> 30, packed & (1 << 30) - 1
        if placement == GROUP:
            found += _data_of_group(item["i"]["B"][8 * at : 8 * at + 8], scanned)
            length = 4  # how many batches the group has
        elif placement == 0:
            found += data[:length]
        else:
            length = 0
        data = data[length:]
    return found


REGION: Final = "eu-central-1"
_NUMBERS = count(1)


@asynccontextmanager
async def dynamodb_rig(endpoint: str | None, limits: StoreLimits = STORE_LIMITS) -> AsyncIterator[DynamoDbRig]:
    """A table on the engine at the endpoint, or in moto without one; the bucket is always in moto."""
    with mock_aws():
        number, still = next(_NUMBERS), FixedClock()
        config = DynamoDbConfig(
            table=f"streams-{number}",
            bucket=f"segments-{number}",
            endpoints=Endpoints(dynamodb=endpoint, region=REGION),
            runs_background_tasks=True,
            threads_max=1 if endpoint is None else 16,  # moto loses updates by several threads
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
    """The store on moto's table and bucket."""
    async with dynamodb_rig(None, limits) as rig:
        yield rig


@asynccontextmanager
async def dynamodb_local_rig(_folder: Path, limits: StoreLimits = STORE_LIMITS) -> AsyncIterator[DynamoDbRig]:
    """The store on AWS's own engine."""
    async with dynamodb_rig(dynamodb_local_url(), limits) as rig:
        yield rig


def dynamodb_local_url() -> str:
    """The engine that all tests of the session share; skips the test where it cannot be installed, except in CI."""
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


#: A store that retries almost at once, for tests with many retries, and that keeps what waits on a slow machine.
IMPATIENT: Final = StoreLimits(busy_pause_s=0.001, fence_pause_s=0.001, group_wait_s=600.0)

RIGS: dict[str, Callable[..., AbstractAsyncContextManager[Rig]]] = {
    "memory": memory_rig,
    "sqlite": sqlite_rig,
    "dynamodb-moto": moto_rig,
    "dynamodb-local": dynamodb_local_rig,
}

#: The parameters of a fixture for each store. DynamoDB Local, AWS's own engine, takes most of the time.
STORES: Final = ["memory", "sqlite", pytest.param("dynamodb-local", marks=pytest.mark.medium)]

#: Runs a test on moto's table, too: without Java a machine has no other one.
also_on_moto = pytest.mark.parametrize("rig", [*STORES, "dynamodb-moto"], indirect=True)


async def eventually(holds: Callable[[], bool], step: Callable[[], Awaitable[object]], tries: int = 2_000) -> None:
    """Call `step` until `holds` is true, which a background task brings about. Fails after `tries` steps."""
    for _ in range(tries):
        if holds():
            return
        await step()
    raise AssertionError(f"still not true after {tries} steps")
