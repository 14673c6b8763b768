"""Reads that meet replicas which are behind, while the stream is written and moved: every byte that is read is true."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from fluvial.storage.dynamodb.store import DynamoDbStore
from tests.faults.test_concurrent_appends import read_all
from tests.support.budget import luck, seeds
from tests.support.commands import NAME, append_commit, create_commit
from tests.support.network import Network
from tests.support.rigs import IMPATIENT, DynamoDbRig, dynamodb_local_rig

pytestmark = pytest.mark.medium


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[DynamoDbRig]:
    """AWS's own engine, and rotation after a few batches."""
    async with dynamodb_local_rig(tmp_path, replace(IMPATIENT, segment_batches=12)) as opened:
        yield opened


def reader(rig: DynamoDbRig, rng: random.Random, stale: float) -> tuple[DynamoDbStore, Network]:
    """A process that reads through replicas that are behind."""
    store, network = DynamoDbStore(rig.config, rig.still.own_clock()), Network(rng, stale=stale)
    network.attach(store)
    return store, network


def batches(count: int) -> list[bytes]:
    """Batches in the head, in segments, in payloads in the table, and some in the bucket."""
    return [b"<%d:%s>" % (one, b"y" * {3: 700, 7: 9_000}.get(one % 10, 90)) for one in range(count)]


async def test_replica_that_has_nothing_yet_costs_a_second_read(rig: DynamoDbRig) -> None:
    """Segments and payloads are read strongly then; nothing is missing."""
    rig.config = replace(rig.config, runs_background_tasks=False)
    await rig.reopen()
    await rig.store.apply(NAME, create_commit())
    for batch in batches(40):
        await rig.store.apply(NAME, append_commit(batch))
    store, network = reader(rig, random.Random(0), 1.0)
    assert await read_all(store) == b"".join(batches(40))
    assert network.seen["read stale"] > 1
    await store.close()


async def test_replica_that_still_shows_rotated_segments_is_not_believed_about_their_payloads(
    rig: DynamoDbRig,
) -> None:
    """The segment in the bucket has the bytes."""
    rig.config = replace(rig.config, runs_background_tasks=False)
    await rig.reopen()
    await rig.store.apply(NAME, create_commit())
    for batch in batches(40):
        await rig.store.apply(NAME, append_commit(batch))
    store, network = reader(rig, random.Random(0), 1e-9)
    data = b"".join(batches(40))
    assert await read_all(store) == data
    await rig.store.rotate(NAME)
    network.stale = 1.0
    assert await read_all(store) == data
    assert network.seen["read stale"] > 1
    await store.close()


@pytest.mark.slow
@luck
@seeds(3)
async def test_readers_of_replicas_that_are_behind_read_a_beginning_of_the_stream(rig: DynamoDbRig, seed: int) -> None:
    """In every history: two readers, while one process writes and rotates."""
    await rig.store.apply(NAME, create_commit())
    readers, is_writing, seen = [reader(rig, random.Random(2 * seed + one), 0.4) for one in (0, 1)], True, list[bytes]()

    async def write() -> None:
        nonlocal is_writing
        for batch in batches(90):
            await rig.store.apply(NAME, append_commit(batch))
        is_writing = False

    async def read(store: DynamoDbStore) -> None:
        while is_writing:
            seen.append(await read_all(store))

    await asyncio.gather(write(), *(read(store) for store, _ in readers))
    for store, network in readers:
        seen.append(await read_all(store))
        assert network.seen["read stale"] > 0
        await store.close()
    data = b"".join(batches(90))
    assert all(data.startswith(one) for one in seen)
    assert seen[-1] == data
