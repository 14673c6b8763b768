"""Sweeps delete what expired streams and killed processes leave behind, and nothing else."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest

from fluvial.aws.change_feed import ChangeFeed
from fluvial.aws.connections import Connection, Connections
from fluvial.aws.fanout_queue import FanOutQueue
from fluvial.aws.sweep_job import PAGE_MS_MAX, Report, sweep, sweep_all
from fluvial.aws.websocket_broadcast import Broadcaster
from fluvial.model.command import ForkPoint
from fluvial.model.head import Incarnation, ProducerStamp
from fluvial.model.lifetime import SlidingTtl
from fluvial.model.limits import PAYLOAD_ITEM_BYTES_DEFAULT
from fluvial.model.names import StreamName
from fluvial.model.plan import ForkPosition, plan_delete, plan_fork
from fluvial.storage.dynamodb.bucket_owner import OWNER_KEY
from fluvial.storage.dynamodb.store import DynamoDbStore
from fluvial.storage.limits import StoreLimits
from tests.aws_local.change_feed import ChangeFeedReader
from tests.faults.test_concurrent_appends import read_all
from tests.support.change_batches import process_records
from tests.support.clocks import START_MS
from tests.support.commands import NAME, OTHER, append_commit, create_command, create_commit
from tests.support.connections import ConnectionApi
from tests.support.estuaries import SOURCE, FanOutRig, own_process
from tests.support.network import crashing
from tests.support.rigs import REGION, DynamoDbRig, dynamodb_local_rig

pytestmark = pytest.mark.medium

TWO_DAYS_MS = 2 * 86_400_000

NOTHING = {
    "expiredStreams": 0,
    "undeliveredStreams": 0,
    "segments": 0,
    "payloads": 0,
    "producers": 0,
    "followers": 0,
    "coldObjects": 0,
    "connections": 0,
    "stagedObjects": 0,
    "failures": 0,
}


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[DynamoDbRig]:
    """AWS's own engine, and rotation after a few batches."""
    async with dynamodb_local_rig(tmp_path, StoreLimits(segment_batches=12)) as opened:
        yield opened


async def run_sweep(rig: DynamoDbRig, *, dry_run: bool = False) -> Report:
    """Sweep all in another process; the report without the numbers of items and objects."""
    async with own_process(rig) as process:
        assert isinstance(process.store, DynamoDbStore)
        report = await sweep_all(process.store, lambda _items, _objects: None, dry_run=dry_run)
    assert report.pop("dryRun") is dry_run
    assert (report.pop("isComplete"), report.pop("isWhole")) == (True, True)
    return {name: count for name, count in report.items() if name not in {"items", "objects"}}


def items_but_tombstones(rig: DynamoDbRig) -> list[dict[str, Any]]:
    """The items of the table but its own, read without the store."""
    found: list[dict[str, Any]] = rig.client.scan(TableName=rig.config.table, ConsistentRead=True)["Items"]
    found = [item for item in found if item["pk"]["S"] != "TABLE"]
    return [item for item in found if not (item["sk"]["S"] == "H" and "i" not in item)]


def objects(rig: DynamoDbRig) -> list[str]:
    """The keys of the bucket's objects, without the one that names its owner."""
    listed = boto3.client("s3", region_name=REGION).list_objects_v2(Bucket=rig.config.bucket)
    return [one["Key"] for one in listed.get("Contents", []) if one["Key"] != OWNER_KEY]


async def fill(store: DynamoDbStore, acknowledged: list[bytes]) -> None:
    """Append so that there are bytes in the buffer, in hot and cold segments, and in payloads in items and in S3."""
    for number in range(22):
        size = {3: 700, 5: 301_000, 20: 700, 21: 301_000}.get(number, 190)
        payload = b"<%d:%s>" % (number, b"y" * size)
        await store.apply(NAME, append_commit(payload))
        acknowledged.append(payload)
        if number == 17:
            await store.rotate(NAME)


async def fork_and_delete(store: DynamoDbStore, incarnation: int) -> None:
    """Fork the stream, delete it, and delete its fork."""
    source = await store.head(NAME)
    assert source is not None
    command = create_command(name=OTHER, content_type=None, fork=ForkPoint(NAME, None, 0))
    position = ForkPosition(source, source.tail, source.tail)
    await store.apply(OTHER, plan_fork(command, position, Incarnation(incarnation), START_MS))
    await store.apply(OTHER, append_commit(b"own" * 300, name=OTHER))
    await store.apply(NAME, plan_delete(START_MS))
    await store.apply(OTHER, plan_delete(START_MS))


@pytest.mark.slow
@pytest.mark.parametrize("payload_item_bytes_max", [0, PAYLOAD_ITEM_BYTES_DEFAULT])
async def test_sweep_after_a_crash_deletes_orphans_and_keeps_acknowledged_bytes(
    rig: DynamoDbRig, payload_item_bytes_max: int
) -> None:
    """A process dies between any two calls of appends, spills, rotations, forks and deletions; then a sweep runs."""
    rig.config = replace(rig.config, payload_item_bytes_max=payload_item_bytes_max)
    for at in range(0, 400, 7):
        async with own_process(rig) as process:
            await process.store.apply(NAME, create_commit(incarnation=2 * at + 1))
        acknowledged = list[bytes]()

        async def step(store: DynamoDbStore, at: int = at, acknowledged: list[bytes] = acknowledged) -> None:
            await fill(store, acknowledged)
            await fork_and_delete(store, 2 * at + 2)

        crashed = await crashing(rig, step, at)
        rig.still.time.advance(TWO_DAYS_MS)
        await run_sweep(rig)
        assert await run_sweep(rig) == NOTHING
        async with own_process(rig) as process:
            assert isinstance(process.store, DynamoDbStore)
            head = await process.store.head(NAME)
            if head is not None:
                assert (await read_all(process.store)).startswith(b"".join(acknowledged))
            for name in (OTHER, NAME):
                await process.store.apply(name, plan_delete(START_MS))
            assert await process.store.head(NAME) is None
        rig.still.time.advance(TWO_DAYS_MS)
        await run_sweep(rig)
        assert items_but_tombstones(rig) == []
        assert objects(rig) == []
        if not crashed:
            assert at > 30
            return
    raise AssertionError("the step never came to its end")


async def test_dry_run_reports_what_a_sweep_deletes(rig: DynamoDbRig) -> None:
    """It deletes nothing itself."""
    async with own_process(rig) as process:
        assert isinstance(process.store, DynamoDbStore)
        await process.store.apply(NAME, create_commit())
        await fill(process.store, [])
        await process.store.apply(NAME, plan_delete(START_MS))
    rig.still.time.advance(TWO_DAYS_MS)
    before = items_but_tombstones(rig), objects(rig)
    planned = await run_sweep(rig, dry_run=True)
    assert (items_but_tombstones(rig), objects(rig)) == before
    assert {name for name, count in planned.items() if count} == {
        "segments",
        "payloads",
        "coldObjects",
        "stagedObjects",
    }
    assert await run_sweep(rig) == planned
    assert (items_but_tombstones(rig), objects(rig)) == ([], [])


async def test_sweep_keeps_young_orphans(rig: DynamoDbRig) -> None:
    """A request that points to them may still be under way."""
    rig.still.time.now_ms = time.time_ns() // 1_000_000
    async with own_process(rig) as process:
        await process.store.apply(NAME, create_commit())

    async def step(store: DynamoDbStore) -> None:
        await store.apply(NAME, append_commit(b"y" * 700))

    async def large_step(store: DynamoDbStore) -> None:
        await store.apply(NAME, append_commit(b"y" * 301_000))

    for one in (step, large_step):
        assert await crashing(rig, one, 1)
    assert await run_sweep(rig) == NOTHING
    rig.still.time.advance(TWO_DAYS_MS)
    assert await run_sweep(rig) == {**NOTHING, "payloads": 1, "stagedObjects": 1}


async def test_sweep_deletes_expired_streams_and_estuaries(rig: DynamoDbRig) -> None:
    """No request for them is needed; an estuary (a fan-in stream) that has time left stays."""
    fan_out = FanOutRig(rig)
    await fan_out.make_source()
    await fan_out.follow("p/expires", ttl_seconds=60)
    await fan_out.follow("p/stays", ttl_seconds=86_400 * 30)
    commit = create_commit(fan_out.clock.new_incarnation(), lifetime=SlidingTtl(60))
    await rig.store.apply(StreamName("short"), commit)
    rig.still.time.advance(TWO_DAYS_MS)
    reports = [
        await run_sweep(rig) for _ in range(2)
    ]  # the follower's item may be looked at before its estuary is deleted
    assert sum(report["expiredStreams"] for report in reports) == 2
    assert sum(report["followers"] for report in reports) == 1
    assert await rig.store.head(StreamName("short")) is None
    assert await rig.store.head(StreamName("p/expires")) is None
    assert await rig.store.head(StreamName("p/stays")) is not None
    source = await rig.store.head(SOURCE)
    assert source is not None
    assert [one.estuary for one in await rig.store.followers(source.incarnation, "", 9)] == ["p/stays"]
    assert await run_sweep(rig) == NOTHING


async def test_sweep_has_the_change_feed_deliver_what_it_gave_up_on(rig: DynamoDbRig) -> None:
    """The sweep touches the head of an undelivered stream, and the feed delivers."""
    fan_out = FanOutRig(rig)
    await fan_out.make_source()
    await fan_out.follow("p/a")
    await fan_out.append(b"undelivered")
    endpoint = rig.config.endpoints.dynamodb
    reader = ChangeFeedReader(
        boto3.client("dynamodbstreams", region_name=REGION, endpoint_url=endpoint), rig.config.table
    )
    assert reader.records()
    assert await run_sweep(rig) == {**NOTHING, "undeliveredStreams": 1}
    queue = FanOutQueue(boto3.client("sqs", region_name=REGION), "url")
    feed = ChangeFeed(rig.store, fan_out.deliveries, queue, Broadcaster(rig.store, fan_out.clock, ConnectionApi()))
    assert await process_records(feed, reader.records()) == set()
    assert await fan_out.read("p/a") == b"undelivered"
    assert await run_sweep(rig) == NOTHING


async def test_sweep_deletes_producers_and_followers_of_deleted_streams(rig: DynamoDbRig) -> None:
    """Producers that were evicted from the head, and followers that did not unsubscribe."""
    async with own_process(rig) as process:
        await process.make_source()
        await process.follow("p/one")
        for number in range(20):
            producer = ProducerStamp(f"p{number}", 0, 0)
            await process.store.apply(SOURCE, append_commit(b"x", name=SOURCE, producer=producer))
        assert await run_sweep(rig) == {**NOTHING, "undeliveredStreams": 1}
        await process.store.apply(SOURCE, plan_delete(START_MS))
    report = await run_sweep(rig)
    assert report["producers"] > 0
    assert report["followers"] == 1
    assert {item["pk"]["S"].partition("#")[0] for item in items_but_tombstones(rig)} <= {"S", "SEG"}


async def test_sweep_counts_connections_that_have_not_expired(rig: DynamoDbRig) -> None:
    """DynamoDB deletes an expired item up to two days late."""
    async with own_process(rig) as process:
        assert isinstance(process.store, DynamoDbStore)
        connections, now_s = Connections(process.store.table), START_MS // 1_000
        for connection_id, expires_s in (("open=", now_s + 60), ("expired=", now_s - 1)):
            await connections.add(NAME, Connection(connection_id, Incarnation(1), 0, expires_s), expires_s)
    assert await run_sweep(rig) == {**NOTHING, "connections": 1}


async def test_sweep_without_time_left_is_continued_by_the_next(rig: DynamoDbRig) -> None:
    """A dry run starts at the beginning and saves no cursor."""
    async with own_process(rig) as process:
        store = process.store
        assert isinstance(store, DynamoDbStore)
        await store.apply(NAME, create_commit())

        async def sweep_one_page(**event: bool) -> Report:
            times = iter([PAGE_MS_MAX + 1])
            return await sweep(store, event, lambda: next(times, 0))

        first = await sweep_one_page()
        assert (first["isComplete"], first["items"]) == (False, 2)  # with the table's own item
        assert (await sweep_one_page(dryRun=True))["items"] == 3  # the saved cursor is an item, too
        assert (await sweep_one_page())["items"] == 0
        last = await sweep(store, {}, lambda: PAGE_MS_MAX + 1)
        assert (last["isComplete"], last["isWhole"], last["items"]) == (True, False, 0)
        assert (await sweep_one_page())["items"] == 2


@pytest.mark.slow
async def test_readers_get_every_byte_while_a_stream_spills_rotates_and_is_swept(rig: DynamoDbRig) -> None:
    """Two processes read the whole stream in a loop, while others write, rotate and sweep."""
    rig.still.time.now_ms = time.time_ns() // 1_000_000
    await rig.store.apply(NAME, create_commit(now_ms=rig.still.time.now_ms))
    appended, is_writing, rounds = bytearray(), True, {"read": 0, "sweep": 0}

    async def write() -> None:
        nonlocal is_writing
        for number in range(240):
            payload = b"<%d:%s>" % (number, b"z" * {0: 700, 9: 301_000}.get(number % 40, number % 90))
            appended.extend(payload)
            await rig.store.apply(NAME, append_commit(payload, now_ms=rig.still.time.now_ms))
        is_writing = False

    async def read() -> None:
        async with own_process(rig) as process:
            assert isinstance(process.store, DynamoDbStore)
            while is_writing:
                data = await read_all(process.store)
                assert data == bytes(appended[: len(data)])
                rounds["read"] += 1

    async def rotate() -> None:
        async with own_process(rig) as process:
            assert isinstance(process.store, DynamoDbStore)
            while is_writing:
                await process.store.rotate(NAME)

    async def sweep_in_a_loop() -> None:
        while is_writing:
            report = await run_sweep(rig)
            assert report["failures"] == 0
            rounds["sweep"] += 1

    await asyncio.gather(write(), read(), read(), rotate(), sweep_in_a_loop())
    assert await read_all(rig.store) == bytes(appended)
    assert rounds["read"] > 3
    assert rounds["sweep"] > 3
    assert any(key.startswith("segments/") for key in objects(rig))
