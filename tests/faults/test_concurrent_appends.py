"""Many writers of one stream on AWS's own engine: none conflict, and readers see one order without a gap."""

import asyncio
import base64
import random
import struct
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fluvial.model.commit import Applied
from fluvial.storage.dynamodb.store import DynamoDbStore
from fluvial.storage.limits import StoreLimits
from tests.support.commands import NAME, append_commit, create_commit
from tests.support.network import Network
from tests.support.rigs import GROUP, DynamoDbRig, dynamodb_local_rig

PROCESSES, WRITERS, APPENDS = 4, 8, 24


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[DynamoDbRig]:
    """AWS's own engine, and rotation after forty batches."""
    async with dynamodb_local_rig(tmp_path, StoreLimits(segment_batches=40)) as opened:
        yield opened


async def read_all(store: DynamoDbStore) -> bytes:
    """All bytes of the stream as they are now."""
    head = await store.head(NAME)
    assert head is not None
    data = b""
    while len(data) < head.tail:
        page = await store.read(NAME, head, len(data), 2_000)
        assert page.start == len(data) < page.end == page.start + len(page.data)
        data += page.data
    return data


@pytest.mark.medium
async def test_writers_do_not_conflict_and_readers_see_one_order(rig: DynamoDbRig) -> None:
    """32 writers in four processes, a rotation, and two readers run at once."""
    network = Network(random.Random(1))
    stores = [DynamoDbStore(rig.config, rig.still.own_clock()) for _ in range(PROCESSES)]
    for store in stores:
        network.attach(store)
    await rig.store.apply(NAME, create_commit())
    appended: dict[int, bytes] = {}
    writing = True

    async def write(store: DynamoDbStore, writer: int) -> None:
        for number in range(APPENDS):
            data = b"%02d:%02d%s," % (writer, number, b"x" * (number % 3) * 40)
            outcome = await store.apply(NAME, append_commit(data))
            assert isinstance(outcome, Applied)
            assert outcome.head is not None
            appended[outcome.head.tail] = data

    async def read() -> int:
        reader, seen, count = DynamoDbStore(rig.config, rig.still.own_clock()), b"", 0
        while writing:
            now = await read_all(reader)
            assert now.startswith(seen)
            seen, count = now, count + 1
        await reader.close()
        return count

    readers = [asyncio.create_task(read()) for _ in range(2)]
    await asyncio.gather(*(write(stores[writer % PROCESSES], writer) for writer in range(PROCESSES * WRITERS)))
    writing = False
    assert all(count > 1 for count in await asyncio.gather(*readers))

    data = await read_all(rig.store)
    assert len(appended) == PROCESSES * WRITERS * APPENDS
    for end, batch in appended.items():
        assert data[end - len(batch) : end] == batch
    assert len(data) == sum(map(len, appended.values()))

    counts = Counter(kind_of(body) for name, body in network.operations if name == "UpdateItem")
    sent = sum(batches_in(body) for name, body in network.operations if name == "UpdateItem")
    assert sent == len(appended), "each append is in exactly one write request, and none failed its condition"
    assert counts["append"] < len(appended) / 2, "one request carries the appends that wait in a process"
    assert counts["cut"] > 0
    assert any("o" in item for item in rig.items(f"SEG#{1:016x}")), "the stream was rotated meanwhile"
    for store in stores:
        await store.close()


def batches_in(body: dict[str, Any]) -> int:
    """How many batches an UpdateItem adds: those of a group are stored apart."""
    count = 0
    for value in body["ExpressionAttributeValues"].values():
        for element in (base64.b64decode(one["B"]) for one in value.get("L", []) if "B" in one):
            count += struct.unpack_from("<I", element, 13)[0] if element[0] == GROUP else 1
    return count


def kind_of(body: dict[str, object]) -> str:
    """The purpose of an UpdateItem."""
    update = str(body["UpdateExpression"])
    if "list_append" in update:
        return "append"
    return "cut" if "REMOVE" in update else "other"
