"""The budget of large batches over their whole life, by the benchmark's own measure."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from bench.cost import appended, caught_up, rotated, tail_read
from bench.meter import Meter

from fluvial.clock import Clock
from fluvial.storage.dynamodb.store import DynamoDbStore
from tests.support.rigs import DynamoDbRig, dynamodb_local_rig

pytestmark = pytest.mark.slow

APPENDS = 250

#: Of the append and of the rotation with its deletions, in write units a batch.
LIFE_UNITS_MAX = 1.5


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[DynamoDbRig]:
    """AWS's own engine, which tells what a call takes."""
    async with dynamodb_local_rig(tmp_path) as opened:
        yield opened


async def measure_life(rig: DynamoDbRig, size: int, payload_item_bytes_max: int) -> tuple[float, Meter]:
    """The write units of a batch from its append to its rotation, and the meter of the rotation."""
    config = replace(rig.config, payload_item_bytes_max=payload_item_bytes_max, runs_background_tasks=False)
    writer, mover = DynamoDbStore(config, Clock()), DynamoDbStore(config, Clock())
    added = await appended(writer, size, count=APPENDS)
    moved = await rotated(mover, size)
    await writer.close()
    await mover.close()
    return (added.units + moved.units) / APPENDS, moved


async def test_batch_of_10_kb_takes_a_few_write_units_in_its_life(rig: DynamoDbRig) -> None:
    """Its bytes are in the bucket from the start; rotation reads each once, and puts a segment for each 4 MB."""
    units, moved = await measure_life(rig, 10_000, rig.config.payload_item_bytes_max)
    assert units <= LIFE_UNITS_MAX
    assert moved.s3_gets <= APPENDS + 8  # the bucket's owner is asked for, too
    assert moved.s3_puts <= 2
    assert rig.payloads() == []


async def test_read_of_the_newest_batch_of_10_kb_is_a_unit_and_a_get(rig: DynamoDbRig) -> None:
    """Of its head, and of its object."""
    store = DynamoDbStore(replace(rig.config, runs_background_tasks=False), Clock())
    await appended(store, 10_000, count=2)
    reader = DynamoDbStore(rig.config, Clock())
    meter = await tail_read(reader, 10_000)
    await store.close()
    await reader.close()
    assert (meter.reads, meter.read_requests, meter.s3_gets) == (1, 1, 1)


async def test_batch_of_10_kb_in_the_table_is_written_and_deleted_by_the_kilobyte(rig: DynamoDbRig) -> None:
    """What the setting is for: latency that is paid for."""
    units, _ = await measure_life(rig, 10_000, 300_000)
    assert 20 <= units <= 22.5
    assert rig.payloads() == []


@pytest.mark.parametrize(("size", "units_max"), [(100, 6), (1_000, 140)])
async def test_catch_up_reads_at_half_the_price(rig: DynamoDbRig, size: int, units_max: int) -> None:
    """The segments take half a unit for each 4 KB, and each payload half a unit; strongly read they take twice that."""
    store = DynamoDbStore(replace(rig.config, runs_background_tasks=False), Clock())
    await appended(store, size, count=APPENDS)
    meter, byte_count = await caught_up(store, size)
    await store.close()
    assert byte_count == APPENDS * size
    assert meter.reads <= units_max
