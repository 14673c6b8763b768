"""A simulated table: DynamoDB's writes of one process's streams in simulated time, with its billing and its limit.

Time is the event loop's, and jumps to the next timer when nothing is left to do, so a minute of 64 writers takes
seconds. Each request takes some milliseconds, and the table serves it half-way. A partition takes so many units a
second and has what was not used for up to `burst_s`; past that it throttles, as DynamoDB does:

- a write is billed by the larger of the item before and after, in whole kilobytes; a failed condition by the item
- a throttled request costs nothing

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/burst-adaptive-capacity.html
"""

import asyncio
import random
import selectors
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from typing import Any, Final, TypeVar

from botocore.exceptions import ClientError

from bench.simulated_expressions import Scope, condition_of, update_of
from fluvial.clock import Clock
from fluvial.model.commit import COMMIT_ID_BYTES, CommitId
from fluvial.model.head import Incarnation
from fluvial.storage.dynamodb.store import DynamoDbConfig, DynamoDbStore
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.aws_client import Endpoints
from fluvial.storage.dynamodb.table.item_size import item_bytes
from fluvial.storage.dynamodb.table.keys import Item

T = TypeVar("T")

#: What one partition takes, however many partitions the table has.
#: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html
PARTITION_UNITS_S: Final = 1_000.0
WRITE_UNIT_BYTES: Final = 1_024

#: A request within a region, there and back: DynamoDB's own time is single-digit milliseconds.
LATENCY_S: Final = (0.004, 0.006)

#: When the simulation begins, in seconds since 1970.
BEGINNING_S: Final = 1_800_000_000


class _JumpingSelector(selectors.DefaultSelector):
    """Waits for nothing: the time that the loop would wait for is added to its clock."""

    elapsed_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready now."""
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("the simulation waits for something that is outside of it")
            self.elapsed_s += max(0.0, timeout)
        return ready


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop in simulated time, in which every call on a thread is a request that takes its latency."""

    def __init__(self, seed: int = 1, latency_s: tuple[float, float] = LATENCY_S) -> None:
        """It is BEGINNING_S, and nothing waits."""
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        self.rng, self._latency_s = random.Random(seed), latency_s

    def time(self) -> float:
        """Simulated seconds since the beginning."""
        return self._jumping.elapsed_s

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]  # noqa: ANN401, ARG002
        """Carry out a request when half its latency has passed."""
        return self.create_task(self._request(partial(func, *args)))

    async def _request(self, func: Callable[[], T]) -> T:
        await asyncio.sleep(self.rng.uniform(*self._latency_s) / 2)
        try:
            return func()
        finally:
            await asyncio.sleep(self.rng.uniform(*self._latency_s) / 2)

    def clock(self) -> Clock:
        """A clock of this loop's time, with ids of its own random numbers."""
        return Clock(
            now_ms=lambda: int((BEGINNING_S + self.time()) * 1_000),
            new_incarnation=lambda: Incarnation(self.rng.getrandbits(60)),
            new_commit_id=lambda: CommitId(self.rng.randbytes(COMMIT_ID_BYTES)),
            jitter=self.rng.random,
        )


def simulate(main: Callable[[SimulatedLoop], Coroutine[Any, Any, T]], seed: int = 1) -> T:
    """Run a coroutine in simulated time, whatever loop the caller runs in: the result is the same for each seed."""
    loop = SimulatedLoop(seed)
    try:
        return loop.run_until_complete(main(loop))
    finally:
        loop.close()


class Bucket:
    """What a partition has left: so many units a second, and what was not used for `burst_s`."""

    def __init__(self, units_s: float, burst_s: float, now_s: float) -> None:
        """It is full."""
        self._units_s, self._full, self._at_s = units_s, units_s * burst_s, now_s
        self.units = self._full

    def has_units(self, now_s: float) -> bool:
        """Whether the partition takes another request at a moment."""
        self.units = min(self._full, self.units + (now_s - self._at_s) * self._units_s)
        self._at_s = now_s
        return self.units > 0


@dataclass
class SimulatedTable:
    """The table that all simulated processes share, and the client that each sends its requests by."""

    now_s: Callable[[], float]
    units_s: float | None = None
    burst_s: float = 1.0
    items: dict[tuple[str, str], Item] = field(default_factory=dict)
    units: float = 0.0
    requests: int = 0
    refused: int = 0
    throttled: int = 0
    _buckets: dict[str, Bucket] = field(default_factory=dict)

    def update_item(self, *, Key: Item, UpdateExpression: str, **request: Any) -> dict[str, Any]:  # noqa: ANN401, N803
        """UpdateItem."""
        key, old = self._checked("UpdateItem", Key, request)
        scope = _scope(Key if old is None else old, request)
        new = update_of(UpdateExpression)(scope)
        self._write(key, old, new)
        return {"Attributes": new if request.get("ReturnValues") == "ALL_NEW" else {}}

    def put_item(self, *, Item: Item, **request: Any) -> dict[str, Any]:  # noqa: ANN401, N803
        """PutItem."""
        key, old = self._checked("PutItem", Item, request)
        self._write(key, old, Item)
        return {}

    def delete_item(self, *, Key: Item, **request: Any) -> dict[str, Any]:  # noqa: ANN401, N803
        """DeleteItem."""
        key, old = self._checked("DeleteItem", Key, request)
        self._write(key, old, None)
        return {}

    def get_item(self, *, Key: Item, **_: Any) -> dict[str, Any]:  # noqa: ANN401, N803
        """GetItem, which is not billed here."""
        item = self.items.get((Key[a.PK]["S"], Key[a.SK]["S"]))
        return {} if item is None else {"Item": item}

    def close(self) -> None:
        """Nothing is open."""

    def _checked(self, operation: str, key_of: Item, request: dict[str, Any]) -> tuple[tuple[str, str], Item | None]:
        """The item's key, and the item. Raises the service's errors."""
        key = key_of[a.PK]["S"], key_of[a.SK]["S"]
        if not self._has_units(key[0]):
            self.throttled += 1
            raise _error(operation, "ThrottlingException", {})
        old = self.items.get(key)
        condition = request.get("ConditionExpression")
        if condition is not None and not condition_of(condition)(_scope(old or {}, request)):
            self.refused += 1
            self._bill(key[0], old)
            returned = request.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD" and old is not None
            raise _error(operation, "ConditionalCheckFailedException", {"Item": old} if returned else {})
        return key, old

    def _write(self, key: tuple[str, str], old: Item | None, new: Item | None) -> None:
        self._bill(key[0], old, new)
        if new is None:
            self.items.pop(key, None)
        else:
            self.items[key] = new

    def _bill(self, partition: str, *items: Item | None) -> None:
        size = max((item_bytes(item) for item in items if item is not None), default=1)
        units = ceil(size / WRITE_UNIT_BYTES)
        self.units += units
        self.requests += 1
        if self.units_s is not None:
            self._buckets[partition].units -= units

    def _has_units(self, partition: str) -> bool:
        if self.units_s is None:
            return True
        now_s = self.now_s()
        if partition not in self._buckets:
            self._buckets[partition] = Bucket(self.units_s, self.burst_s, now_s)
        return self._buckets[partition].has_units(now_s)


def _scope(item: Item, request: dict[str, Any]) -> Scope:
    return Scope(item, request.get("ExpressionAttributeNames", {}), request.get("ExpressionAttributeValues", {}))


def _error(operation: str, code: str, more: dict[str, Any]) -> ClientError:
    answer = {"Error": {"Code": code, "Message": code}, "ResponseMetadata": {"HTTPStatusCode": 400}, **more}
    return ClientError(answer, operation)  # type: ignore[arg-type]


def simulated_store(loop: SimulatedLoop, table: SimulatedTable) -> DynamoDbStore:
    """A store of its own on the simulated table: one Lambda environment, or one server."""
    endpoints = Endpoints("http://127.0.0.1:1", "http://127.0.0.1:1", "us-east-1")
    store = DynamoDbStore(DynamoDbConfig("simulated", "simulated", endpoints), loop.clock())
    store._aws.writes.close()
    store._aws.writes = table
    store._aws.__dict__["reads"] = table
    return store
