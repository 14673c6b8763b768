"""What the store on DynamoDB does behind the contract: rotation, collection, polling, and what AWS's errors mean."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError, ReadTimeoutError

from fluvial.model.command import ForkPoint
from fluvial.model.commit import Applied, Commit, NotDuplicate, Unmet
from fluvial.model.errors import StorageDamaged, StoreUnavailable, StoreUncertain
from fluvial.model.head import Head, Incarnation, ReaderKey
from fluvial.model.lifetime import ExpiresAt, SlidingTtl
from fluvial.model.names import StreamName
from fluvial.model.plan import ForkPosition, plan_create, plan_delete, plan_fork, plan_mark_followed
from fluvial.storage.dynamodb.bucket_owner import OWNER_KEY
from fluvial.storage.dynamodb.store import DynamoDbStore
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.items import HotSegment, decode_head_item, encode_hot_segment
from fluvial.storage.dynamodb.table.keys import head_key
from fluvial.storage.dynamodb.upkeep import rotation
from fluvial.storage.dynamodb.upkeep.background_tasks import BackgroundTasks, Work
from fluvial.storage.dynamodb.writes.updates import HEAD_PRODUCERS_MAX
from fluvial.storage.limits import STORE_LIMITS
from tests.support.clocks import START_MS
from tests.support.commands import (
    NAME,
    OTHER,
    append_commit,
    close_commit,
    create_command,
    create_commit,
    delete_commit,
    stamp,
)
from tests.support.estuaries import own_process
from tests.support.rigs import IMPATIENT, REGION, DynamoDbRig, dynamodb_local_rig, eventually, moto_rig

pytestmark = pytest.mark.medium

LARGE = b"L" * 400_000


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[DynamoDbRig]:
    """AWS's own engine, rotation after ten batches, and no patience."""
    async with dynamodb_local_rig(tmp_path, replace(IMPATIENT, segment_batches=10)) as opened:
        yield opened


async def reopen_patient(rig: DynamoDbRig) -> None:
    """Go on with the segments of a server: a test's few batches are not enough for one."""
    rig.config = replace(rig.config, limits=STORE_LIMITS)
    await rig.reopen()


async def applied(store: DynamoDbStore, commit: Commit, name: StreamName = NAME) -> Head | None:
    """The head after a commit that must be applied."""
    outcome = await store.apply(name, commit)
    assert isinstance(outcome, Applied), outcome
    return outcome.head


async def fill(rig: DynamoDbRig, count: int = 30) -> bytes:
    """A stream with batches of every size; its bytes."""
    await applied(rig.store, create_commit())
    batches = [b"<%d:%s>" % (number, b"x" * (900 if number % 7 == 3 else 90)) for number in range(count)]
    batches.insert(5, LARGE)
    for batch in batches:
        await applied(rig.store, append_commit(batch))
    return b"".join(batches)


async def read_all(store: DynamoDbStore, page_bytes: int = 1_000_000) -> bytes:
    """The stream, page by page."""
    head = await store.head(NAME)
    assert head is not None
    data = b""
    while len(data) < head.tail:
        data += (await store.read(NAME, head, len(data), page_bytes)).data
    return data


def objects(rig: DynamoDbRig) -> list[str]:
    """The keys in the bucket, without the object that names its owner."""
    listed = boto3.client("s3", region_name=REGION).list_objects_v2(Bucket=rig.config.bucket)
    return [item["Key"] for item in listed.get("Contents", []) if item["Key"] != OWNER_KEY]


def hot_segments(rig: DynamoDbRig) -> list[Any]:
    """The segments of the first incarnation that still hold bytes."""
    return [item for item in rig.items(f"SEG#{1:016x}") if item.get("d", {}).get("B")]


async def test_rotation_moves_bytes_into_s3_and_deletes_hot_segments(rig: DynamoDbRig) -> None:
    """Cold segments hold what hot ones and payloads held; a page may begin in one and end in the head."""
    data = await fill(rig)
    await applied(rig.store, close_commit())
    await eventually(lambda: not hot_segments(rig) and not rig.payloads(), rig.let_pass)
    assert all(key.startswith("segments/") for key in objects(rig))
    await rig.reopen()
    for page_bytes in (1, 500, 1_000_000):
        assert await read_all(rig.store, page_bytes) == data


async def test_rotation_skips_a_segment_that_the_head_still_buffers(rig: DynamoDbRig) -> None:
    """The head still points to its payloads, also when it counts too many batches, as after a note that was lost."""
    await reopen_patient(rig)
    data = await fill(rig, 20)
    await applied(rig.store, append_commit(b"y" * 700))
    key = {"pk": {"S": f"S#{NAME}"}, "sk": {"S": "H"}}
    stored = decode_head_item(rig.client.get_item(TableName=rig.config.table, Key=key)["Item"])
    segment = HotSegment(stored.base, stored.buffer, NAME, START_MS)
    rig.client.put_item(TableName=rig.config.table, Item=encode_hot_segment(Incarnation(1), segment))
    counted = {"UpdateExpression": "SET h = :h", "ExpressionAttributeValues": {":h": {"N": "1000"}}}
    rig.client.update_item(TableName=rig.config.table, Key=key, **counted)
    await rig.store.rotate(NAME)
    assert objects(rig)
    await rig.reopen()
    assert await read_all(rig.store) == data + b"y" * 700


async def test_returned_hot_segment_is_ignored_by_readers(rig: DynamoDbRig) -> None:
    """A put that was under way while rotation went by; its payloads are gone by now."""
    await reopen_patient(rig)
    data = await fill(rig)
    hot = hot_segments(rig)
    await applied(rig.store, close_commit())
    await eventually(lambda: not hot_segments(rig), rig.let_pass)
    taken = {item["sk"]["S"] for item in rig.items(f"SEG#{1:016x}")}
    back = [item for item in hot if item["sk"]["S"] not in taken]
    assert back
    for item in back:
        rig.client.put_item(TableName=rig.config.table, Item=item)
    await rig.reopen()
    assert await read_all(rig.store, 700) == data
    await rig.store.rotate(NAME)
    assert await read_all(rig.store, 700) == data


async def test_deleted_stream_leaves_only_a_tombstone(rig: DynamoDbRig) -> None:
    """Segments, objects, payloads and producers are collected, and all that the head had."""
    everything = create_command(lifetime=SlidingTtl(60), is_public=True, reader_key=ReaderKey("k"))
    await applied(rig.store, plan_create(everything, Incarnation(1), START_MS))
    for number in range(12):
        data = LARGE if number == 5 else b"x" * 900
        await applied(
            rig.store, append_commit(data, producer=stamp(producer_id=f"p{number}"), stream_seq=f"{number:02}")
        )
    head = await applied(rig.store, append_commit(b"end", closes=True, producer=stamp(producer_id="last")))
    assert head is not None
    await applied(rig.store, plan_mark_followed(head, START_MS))
    await applied(rig.store, delete_commit())
    await eventually(lambda: not objects(rig) and not rig.payloads(), rig.let_pass)
    await eventually(lambda: not rig.items(f"SEG#{1:016x}"), rig.let_pass)
    scanned = rig.client.scan(TableName=rig.config.table)["Items"]
    [tombstone] = [item for item in scanned if item["pk"]["S"] != "TABLE"]
    assert set(tombstone) == {"pk", "sk", "f", "t", "by", "ei", "fb", "bu"}


async def test_producers_that_write_are_not_evicted(rig: DynamoDbRig) -> None:
    """Those that have not written for longest move out, whatever their names."""
    await applied(rig.store, create_commit())
    busy, seqs = ["aaa", "bbb", "mmm", "zzz"], count()
    idle = [f"idle-{number}" for number in range(HEAD_PRODUCERS_MAX - len(busy))]
    for producer_id in busy + idle:
        await applied(rig.store, append_commit(producer=stamp(producer_id=producer_id)))
    for seq in range(1, 4):
        rig.still.time.advance(1_000)
        now_ms = rig.still.time.now_ms
        for producer_id in busy:
            await applied(rig.store, append_commit(producer=stamp(seq=seq, producer_id=producer_id), now_ms=now_ms))
    for number in range(HEAD_PRODUCERS_MAX // 2):
        newcomer = stamp(producer_id=f"new-{next(seqs)}")
        head = await applied(rig.store, append_commit(producer=newcomer, now_ms=rig.still.time.now_ms))
        assert head is not None
        assert set(busy) <= set(head.producers), number
        assert head.producer_count == HEAD_PRODUCERS_MAX + number + 1


@pytest.mark.slow
@pytest.mark.parametrize("lifetime", [None, SlidingTtl(3_600)], ids=["no lifetime", "sliding"])
async def test_item_of_an_older_version_is_read_and_updated(tmp_path: Path, lifetime: SlidingTtl | None) -> None:
    """Without a birth, with producers that do not say when they wrote, and a last use where there is no window."""
    async with moto_rig(tmp_path) as rig:
        await applied(rig.store, create_commit(lifetime=lifetime))
        for number in range(HEAD_PRODUCERS_MAX):
            await applied(rig.store, append_commit(b"x", producer=stamp(producer_id=f"p-{number}")))
        [item] = [one for one in rig.items(head_key(NAME)["pk"]["S"]) if "i" in one]
        del item[a.BORN_US]
        for producer in item[a.PRODUCERS]["M"].values():
            producer["L"].pop()
        item.setdefault(a.USED_UNTIL, {"N": str(START_MS)})
        rig.client.put_item(TableName=rig.config.table, Item=item)
        await rig.reopen()
        later_ms = START_MS + 600_000
        again = await rig.store.apply(NAME, append_commit(b"x", later_ms, producer=stamp(producer_id="p-3")))
        assert isinstance(again, Unmet)
        assert isinstance(again.requirement, NotDuplicate)
        for producer in (stamp(seq=1, producer_id="p-3"), stamp(producer_id="newcomer")):
            head = await applied(rig.store, append_commit(b"y", later_ms, producer=producer))
        assert head is not None
        assert (head.born_us, head.producer_count, head.lifetime) == (0, HEAD_PRODUCERS_MAX + 1, lifetime)
        assert head.live_until_ms == (None if lifetime is None else lifetime.deadline_ms(later_ms))
        assert await read_all(rig.store) == b"x" * HEAD_PRODUCERS_MAX + b"yy"
        await rig.store.apply(NAME, delete_commit(later_ms))
        begun = await applied(rig.store, create_commit(2, later_ms))
        assert begun is not None
        assert begun.born_us == later_ms * 1_000


async def test_due_stream_is_rotated_once(rig: DynamoDbRig) -> None:
    """However many appends find it due before it is its turn: one rotation waits, and one may be under way."""
    background_tasks, is_their_turn = rig.store._background_tasks, asyncio.Event()
    assert background_tasks is not None
    background_tasks.add("something that takes long", is_their_turn.wait)
    await applied(rig.store, create_commit())
    for number in range(40):
        await applied(rig.store, append_commit(b"x" * 200, now_ms=START_MS + number))
    assert not is_their_turn.is_set()
    assert background_tasks.count == 1
    is_their_turn.set()
    await eventually(lambda: bool(objects(rig)), rig.let_pass)


async def test_background_work_with_one_key_runs_once_and_the_queue_is_bounded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A thousand appends to a stream that is due leave a collection its place; what finds no room is in the log."""
    background_tasks, done = BackgroundTasks(count_max=3), list[str]()

    def work(name: str) -> Work:
        async def do() -> None:
            done.append(name)

        return do

    background_tasks.add(1, work("collection"))
    for _ in range(1_000):
        background_tasks.add("a", work("rotation of a"))
    background_tasks.add("b", work("rotation of b"))
    assert "too_many_background_tasks" not in caplog.text
    for name in ("c", "d"):
        background_tasks.add(name, work("too many"))
    await background_tasks.close()
    assert done == ["collection", "rotation of a", "rotation of b"]
    assert [caplog.text.count(event) for event in ("too_many_background_tasks", "background_tasks_left")] == [1, 1]
    background_tasks.add("c", work("rotation of c"))
    await background_tasks.close()
    assert done[-1] == "rotation of c"


async def test_only_tombstones_and_fixed_expiries_have_a_ttl(rig: DynamoDbRig) -> None:
    """A sliding deadline moves, so DynamoDB must not act on it."""
    lifetimes = {"eternal": None, "sliding": SlidingTtl(60), "fixed": ExpiresAt(START_MS + 60_000, "x")}
    for number, (name, lifetime) in enumerate(lifetimes.items(), 1):
        await applied(rig.store, create_commit(incarnation=number, lifetime=lifetime), StreamName(name))
    fixed = await rig.store.head(StreamName("fixed"))
    assert fixed is not None
    fork = create_command(name=OTHER, lifetime=lifetimes["fixed"], fork=ForkPoint(StreamName("fixed"), None, 0))
    await applied(rig.store, plan_fork(fork, ForkPosition(fixed, 0, 0), Incarnation(9), START_MS), OTHER)
    await applied(rig.store, delete_commit(), OTHER)
    again = plan_fork(fork, ForkPosition(fixed, 0, 0), Incarnation(10), START_MS)
    await applied(rig.store, again, StreamName("fork"))
    found = {item["pk"]["S"]: item.get("t") for item in rig.client.scan(TableName=rig.config.table)["Items"]}
    found.pop("TABLE", None)  # the table's own item, which a collection may write
    tombstone = {"N": str(START_MS // 1_000 + 86_400)}
    assert found == {"S#eternal": None, "S#sliding": None, "S#fixed": None, "S#fork": None, f"S#{OTHER}": tombstone}
    await applied(rig.store, delete_commit(), StreamName("fork"))
    fixed_item = rig.client.get_item(TableName=rig.config.table, Key=head_key(StreamName("fixed")))["Item"]
    assert fixed_item["t"] == {"N": str(START_MS // 1_000 + 60 + 86_400)}


async def test_live_read_sees_appends_of_another_process(rig: DynamoDbRig) -> None:
    """Any number of readers wait with one poller; bytes, and then the end of the stream."""
    seen = await applied(rig.store, create_commit())
    assert seen is not None
    other = DynamoDbStore(rig.config, rig.still.own_clock())
    for news in (append_commit(b"x"), plan_delete(START_MS)):
        waiting = [asyncio.create_task(rig.store.wait(NAME, seen, 10)) for _ in range(3)]
        await eventually(lambda: rig.store._notifier.count == 3, rig.let_pass)
        assert len(rig.store._poller._watches) == 1
        expected = await applied(other, news)
        assert await asyncio.gather(*waiting) == [expected] * 3
        seen = expected or seen
    await other.close()


def client_error(code: str, status: int = 400, reasons: tuple[str, ...] = ()) -> ClientError:
    """An error as a service tells it."""
    response: dict[str, Any] = {"Error": {"Code": code, "Message": "m"}}
    response["ResponseMetadata"] = {"HTTPStatusCode": status}
    response["CancellationReasons"] = [{"Code": reason} for reason in reasons]
    return ClientError(response, "UpdateItem")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (client_error("ThrottlingException"), StoreUnavailable),
        (client_error("ProvisionedThroughputExceededException"), StoreUnavailable),
        (client_error("TransactionCanceledException", reasons=("None", "TransactionConflict")), StoreUnavailable),
        (client_error("AccessDeniedException"), StoreUnavailable),
        (client_error("ResourceNotFoundException"), StoreUnavailable),
        (EndpointConnectionError(endpoint_url="http://x"), StoreUnavailable),
        (ConnectTimeoutError(endpoint_url="http://x"), StoreUnavailable),
        (ReadTimeoutError(endpoint_url="http://x"), StoreUncertain),
        (client_error("InternalServerError", 500), StoreUncertain),
        (client_error("ValidationException"), ClientError),
        (client_error("TransactionCanceledException", reasons=("ValidationError",)), ClientError),
    ],
    ids=str,
)
async def test_writer_gets_unavailable_or_uncertain_by_the_error(
    rig: DynamoDbRig, monkeypatch: pytest.MonkeyPatch, error: Exception, told: type[Exception]
) -> None:
    """Nothing was written, nobody knows, or our own mistake."""

    def failing(**_: object) -> None:
        raise error

    await applied(rig.store, create_commit())
    monkeypatch.setattr(rig.store._aws.writes, "update_item", failing)
    with pytest.raises(told):
        await rig.store.apply(NAME, append_commit())


async def test_missing_bytes_damage_one_stream_only(rig: DynamoDbRig) -> None:
    """A clear error, however often it is read."""
    await fill(rig)
    await applied(rig.store, close_commit())
    await eventually(lambda: not hot_segments(rig), rig.let_pass)
    bucket = boto3.resource("s3", region_name=REGION).Bucket(rig.config.bucket)
    bucket.objects.all().delete()
    await rig.reopen()
    for _ in range(2):
        with pytest.raises(StorageDamaged):
            await read_all(rig.store)
    await applied(rig.store, create_commit(incarnation=2), StreamName("fine"))


async def test_next_rotation_notes_what_a_dead_one_did_not(rig: DynamoDbRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise every later spill would be thought due, and become an object of its own."""

    async def dying(*_: object) -> None:
        """The process is gone."""

    async with own_process(rig) as process:
        store = process.store
        assert isinstance(store, DynamoDbStore)
        await applied(store, create_commit())
        for _ in range(60):
            await applied(store, append_commit(b"x" * 90))
        with monkeypatch.context() as patched:
            patched.setattr(rotation.Rotator, "_note_cold_end", dying)
            await store.rotate(NAME)
        await store.rotate(NAME)
    stored = decode_head_item(rig.client.get_item(TableName=rig.config.table, Key=head_key(NAME))["Item"])
    assert stored.cold_end > 0
    assert stored.spilled == sum(len(item["e"]["B"]) // 4 for item in hot_segments(rig))
    assert not rotation.rotation_is_due(stored, STORE_LIMITS)
