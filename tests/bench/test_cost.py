"""The budgets of the store on DynamoDB, by the benchmark's own measure: what `make cost` prints keeps to these."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from bench.cost import appended, rotated, tail_read

from fluvial.storage.dynamodb.store import DynamoDbStore
from tests.support.estuaries import own_process
from tests.support.rigs import DynamoDbRig, dynamodb_local_rig

pytestmark = pytest.mark.slow

#: Enough for some spills.
APPENDS = 400

#: A transaction of head and item takes 4 units.
WRITE_UNITS_MAX = 1.5
WRITE_REQUESTS_MAX = 1.4


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[DynamoDbRig]:
    """AWS's own engine, which tells what a call takes."""
    async with dynamodb_local_rig(tmp_path) as opened:
        yield opened


@pytest.mark.parametrize("with_producer", [False, True])
async def test_append_of_100_bytes_stays_within_its_write_units(rig: DynamoDbRig, *, with_producer: bool) -> None:
    """Spills included."""
    async with own_process(rig) as process:
        assert isinstance(process.store, DynamoDbStore)
        meter = await appended(process.store, 100, with_producer=with_producer, count=APPENDS)
    assert meter.units / APPENDS <= WRITE_UNITS_MAX
    assert meter.requests / APPENDS <= WRITE_REQUESTS_MAX
    assert meter.refused == 0


async def test_stream_with_close_stays_within_its_units_and_tail_read_is_one(rig: DynamoDbRig) -> None:
    """Rotation into S3 and all."""
    async with own_process(rig) as process, own_process(rig) as reader, own_process(rig) as other:
        assert isinstance(process.store, DynamoDbStore)
        assert isinstance(reader.store, DynamoDbStore)
        assert isinstance(other.store, DynamoDbStore)
        whole = await appended(process.store, 100, count=APPENDS)
        tail = await tail_read(reader.store, 100)
        rotation = await rotated(other.store, 100)
    assert (tail.reads, tail.read_requests) == (1, 1)
    assert (whole.units + rotation.units) / APPENDS <= WRITE_UNITS_MAX + 0.01
