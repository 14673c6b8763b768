"""The simulated table answers and bills as AWS's own engine does, and simulated time is repeatable."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial, update_wrapper
from pathlib import Path
from typing import Any

import pytest
from bench.simulated import SimulatedLoop, SimulatedTable, simulate, simulated_store
from bench.writers import written_by
from botocore.exceptions import ClientError

from fluvial.model.command import Append, Create
from fluvial.model.head import ProducerStamp
from fluvial.model.names import StreamName
from fluvial.model.plan import plan_append, plan_create
from tests.support.rigs import DynamoDbRig, dynamodb_local_rig

NAME = StreamName("simulated/stream")
OPERATIONS = {"update_item", "put_item", "delete_item"}
CONTENT_TYPE = "application/octet-stream"


@dataclass
class RecordingTable(SimulatedTable):
    """Keeps each write's operation and request, what its writer saw, and its units."""

    writes: list[tuple[str, dict[str, Any], object, float]] = field(default_factory=list)

    def __getattribute__(self, attribute: str) -> Any:  # noqa: ANN401  of the attribute's own type
        """A write is recorded."""
        found = super().__getattribute__(attribute)
        if attribute not in OPERATIONS:
            return found
        return update_wrapper(partial(self._record, attribute, found), found)

    def _record(self, operation: str, send: Callable[..., Any], **request: Any) -> Any:  # noqa: ANN401  boto3's own
        before = self.units
        try:
            answer = send(**request)
        except ClientError as exc:
            self.writes.append((operation, request, error_of(exc), self.units - before))
            raise
        self.writes.append((operation, request, answer.get("Attributes", {}), self.units - before))
        return answer


def error_of(error: ClientError) -> tuple[object, object]:
    """What a writer sees of an error."""
    return error.response["Error"]["Code"], error.response.get("Item")


async def _workload(loop: SimulatedLoop) -> RecordingTable:
    """Two processes that append small and large batches, with more producers than a head holds, and without."""
    table, clock = RecordingTable(loop.time), loop.clock()
    stores = [simulated_store(loop, table) for _ in range(2)]
    create = Create(name=NAME, content_type=CONTENT_TYPE)
    await stores[0].apply(NAME, plan_create(create, clock.new_incarnation(), clock.now_ms()))
    for seq in (0, 1, 1, 2):
        for number in range(24):
            store, data = stores[number % 2], b"x" * loop.rng.choice((1, 100, 400, 1_500))
            producer = ProducerStamp(f"producer-{number}", 0, seq) if number % 3 else None
            append = Append(name=NAME, content_type=CONTENT_TYPE, data=data, producer=producer)
            await store.apply(NAME, plan_append(append, clock.now_ms()))
    for store in stores:
        await store.close()
    return table


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[DynamoDbRig]:
    """AWS's own engine."""
    async with dynamodb_local_rig(tmp_path) as opened:
        yield opened


@pytest.mark.medium
async def test_engine_answers_and_bills_the_same_requests_as_the_simulated_table(rig: DynamoDbRig) -> None:
    """Appends, spills, evictions and failed conditions, as the store sends them."""
    table = await asyncio.to_thread(simulate, _workload)
    kinds = {(operation, isinstance(answer, tuple)) for operation, _, answer, _ in table.writes}
    assert {("update_item", False), ("update_item", True), ("put_item", False)} <= kinds
    for operation, request, simulated, units in table.writes:
        seen, consumed = _sent(rig, operation, request)
        assert seen == simulated
        assert consumed in (units, None)


def _sent(rig: DynamoDbRig, operation: str, request: dict[str, Any]) -> tuple[object, float | None]:
    """What a writer sees when the request is sent to the engine, and the table's units; unknown of failures."""
    meant = {**request, "TableName": rig.config.table, "ReturnConsumedCapacity": "INDEXES"}
    try:
        answer = getattr(rig.client, operation)(**meant)
    except ClientError as exc:
        return error_of(exc), None
    return answer.get("Attributes", {}), answer["ConsumedCapacity"]["Table"]["CapacityUnits"]


async def test_simulation_is_the_same_each_time() -> None:
    """So what it measures can be compared."""
    assert await written_by(4) == await written_by(4)
