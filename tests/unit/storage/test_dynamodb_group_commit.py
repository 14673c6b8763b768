"""Group commit on DynamoDB: which requests a group is, the answer of each of its appends, and reading its batches."""

import asyncio
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from fluvial.model.command import ForkPoint
from fluvial.model.commit import Applied, NotDuplicate, Open, Outcome, SeqAfter, Unmet, UpdateCommit
from fluvial.model.errors import StorageDamaged, StoreUnavailable
from fluvial.model.head import Incarnation
from fluvial.model.lifetime import SlidingTtl
from fluvial.model.plan import ForkPosition, plan_fork
from fluvial.storage.dynamodb.store import DynamoDbStore
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.format import FORMAT, format_of
from fluvial.storage.dynamodb.table.items import decode_batches, encode_batches
from fluvial.storage.dynamodb.table.keys import head_key
from fluvial.storage.dynamodb.writes.group_commit import (
    GROUP_BYTES_MAX,
    GROUP_COMMITS_MAX,
    take_group,
)
from fluvial.storage.dynamodb.writes.group_plan import GROUP_PRODUCERS_MAX
from fluvial.storage.dynamodb.writes.group_writer import GROUP_LARGE_MAX, QueuedAppend
from fluvial.storage.dynamodb.writes.updates import HEAD_PRODUCERS_MAX
from fluvial.storage.memory import MemoryStore
from tests.support.budget import examples
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
from tests.support.network import Network
from tests.support.rigs import IMPATIENT, DynamoDbRig, eventually, moto_rig


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[DynamoDbRig]:
    """A stream on moto; no rotation."""
    async with moto_rig(tmp_path, IMPATIENT) as opened:
        await opened.store.apply(NAME, create_commit())
        yield opened


@pytest.fixture
async def rotating(tmp_path: Path) -> AsyncIterator[DynamoDbRig]:
    """A stream on moto, of which ten batches are a segment."""
    async with moto_rig(tmp_path, replace(IMPATIENT, segment_batches=10)) as opened:
        await opened.store.apply(NAME, create_commit())
        yield opened


def watch(store: DynamoDbStore) -> Network:
    """The requests that the store sends from now on."""
    network = Network(random.Random(1))
    network.attach(store)
    return network


async def apply_together(store: DynamoDbStore, commits: Sequence[UpdateCommit]) -> list[Outcome]:
    """The outcomes of commits whose calls begin together: the first is written alone, the others wait for it."""
    return await asyncio.gather(*(store.apply(NAME, commit) for commit in commits))


async def read_all(store: DynamoDbStore, page_bytes: int = 1_000_000) -> list[bytes]:
    """The stream's batches, read in pages of so many bytes."""
    head, batches, position = await store.head(NAME), list[bytes](), 0
    assert head is not None
    while position < head.tail:
        page = await store.read(NAME, head, position, page_bytes)
        assert page.start == position
        at = 0
        for end in page.ends:
            batches.append(page.data[at : end - page.start])
            at = end - page.start
        position = page.end
    return batches


def tail(outcome: Outcome) -> int:
    """Where an applied commit's batch ends."""
    assert isinstance(outcome, Applied)
    assert outcome.head is not None
    return outcome.head.tail


async def test_lone_append_is_one_update_at_once(rig: DynamoDbRig) -> None:
    """As without group commit."""
    network = watch(rig.store)
    await rig.store.apply(NAME, append_commit())
    await rig.store.apply(NAME, append_commit())
    assert [name for name, _ in network.operations] == ["UpdateItem", "UpdateItem"]


async def test_waiting_appends_are_one_payload_and_one_update(rig: DynamoDbRig) -> None:
    """Each is told where its own batch ends, and the batches are read one by one."""
    network = watch(rig.store)
    batches = [b"%03d:%s," % (number, b"x" * 20) for number in range(60)]
    outcomes = await apply_together(rig.store, [append_commit(batch) for batch in batches])
    assert [name for name, _ in network.operations] == ["UpdateItem", "PutItem", "UpdateItem"]
    assert [tail(one) for one in outcomes] == [25 * number for number in range(1, 61)]
    for page_bytes in (1, 30, 700, 1_000_000):
        assert await read_all(rig.store, page_bytes) == batches
    await rig.reopen()
    assert await read_all(rig.store) == batches


async def test_few_small_batches_stay_in_the_head(rig: DynamoDbRig) -> None:
    """A payload of their own would cost more than the head's next kilobyte."""
    network = watch(rig.store)
    await apply_together(rig.store, [append_commit(b"%d" % number) for number in range(5)])
    assert [name for name, _ in network.operations] == ["UpdateItem", "UpdateItem"]
    assert await read_all(rig.store) == [b"%d" % number for number in range(5)]


async def test_many_tiny_batches_are_one_payload(rig: DynamoDbRig) -> None:
    """Each would be an element of the buffer, which has room for as many as one group may have."""
    network = watch(rig.store)
    batches = [b"%d," % number for number in range(GROUP_COMMITS_MAX)]
    await apply_together(rig.store, [append_commit(batch) for batch in batches])
    assert [name for name, _ in network.operations] == ["UpdateItem", "PutItem", "UpdateItem"]
    assert await read_all(rig.store) == batches


async def test_group_that_is_planned_again_has_a_payload_under_a_new_key(rig: DynamoDbRig) -> None:
    """The first plan's payload is deleted; that deletion may come late, and must not meet the second plan's payload."""
    keys = list[str]()

    def write_meanwhile(params: dict[str, Any], **_: object) -> None:
        keys.append(params["Item"]["pk"]["S"])
        if len(keys) == 1:
            moved = {"UpdateExpression": f"SET {a.STREAM_SEQ} = :s", "ExpressionAttributeValues": {":s": {"S": "6"}}}
            rig.client.update_item(TableName=rig.config.table, Key=head_key(NAME), **moved)

    rig.store._aws.writes.meta.events.register("provide-client-params.dynamodb.PutItem", write_meanwhile)
    batches = [b"%03d:%s," % (number, b"x" * 20) for number in range(30)]
    commits = [append_commit(batch) for batch in batches]
    commits[7] = append_commit(batches[7], stream_seq="5")
    outcomes = await apply_together(rig.store, commits)
    assert [place for place, one in enumerate(outcomes) if isinstance(one, Unmet)] == [7]
    assert len(keys) == len(set(keys)) == 2
    assert payloads(rig) == keys[1:]
    assert await read_all(rig.store) == batches[:7] + batches[8:]


async def test_group_that_is_shorter_than_its_pointer_says_is_damage(rig: DynamoDbRig) -> None:
    """Its bytes are not taken for the stream's."""
    await apply_together(rig.store, [append_commit(b"x" * 100)] * 20)
    [key] = payloads(rig)
    [item] = rig.items(key)
    batches = decode_batches(item)
    rig.client.put_item(TableName=rig.config.table, Item={**item, **encode_batches(batches[1:])})
    with pytest.raises(StorageDamaged):
        await read_all(rig.store)


async def test_single_append_finds_room_beside_the_producers_that_groups_left(rig: DynamoDbRig) -> None:
    """As many leave the head as are too many."""
    names = [f"p{number}" for number in range(GROUP_PRODUCERS_MAX)]
    await apply_together(rig.store, [append_commit(b"x", producer=stamp(producer_id=name)) for name in names])
    network = watch(rig.store)
    await rig.store.apply(NAME, append_commit(b"y", producer=stamp(producer_id="new")))
    head = await rig.store.head(NAME)
    assert head is not None
    assert len(head.producers) <= HEAD_PRODUCERS_MAX
    assert head.producer_count == len(names) + 1
    updates = [name for name, _ in network.operations if name == "UpdateItem"]
    assert len(updates) == 3, "refused, room made, written"


@pytest.mark.parametrize(("size", "is_raised"), [(10, False), (1_000, True)])
async def test_batch_that_an_older_release_cannot_find_raises_the_format(
    rig: DynamoDbRig, size: int, *, is_raised: bool
) -> None:
    """Of a head that an older release has made; what that release can find leaves the head to both."""
    for count in (1, 20):
        removed = {"UpdateExpression": f"REMOVE {a.FORMAT}"}
        rig.client.update_item(TableName=rig.config.table, Key=head_key(NAME), **removed)
        await apply_together(rig.store, [append_commit(b"x" * size)] * count)
        [item] = rig.items(head_key(NAME)["pk"]["S"])
        assert (format_of(item) == FORMAT) is (is_raised or count > 1)


async def test_large_batches_have_payloads_of_their_own(rig: DynamoDbRig) -> None:
    """The order of the group is kept, of small and of large ones."""
    sizes = [10, 300, 200, 1_000, 400, 400, 400_000, 3]
    batches = [bytes([number]) * size for number, size in enumerate(sizes)]
    await apply_together(rig.store, [append_commit(batch) for batch in batches])
    assert await read_all(rig.store) == batches


async def test_every_append_of_a_group_gets_its_own_answer(rig: DynamoDbRig) -> None:
    """Applied, duplicate, gap, fenced, out of order, and closed: as if each had come alone."""
    commits = [
        append_commit(b"0", producer=stamp(epoch=1)),
        append_commit(b"1", producer=stamp(epoch=1, seq=1)),
        append_commit(b"1", producer=stamp(epoch=1, seq=1)),
        append_commit(b"2", producer=stamp(epoch=1, seq=2)),
        append_commit(b"9", producer=stamp(epoch=1, seq=9)),
        append_commit(b"0", producer=stamp(epoch=0)),
        append_commit(b"a", stream_seq="5"),
        append_commit(b"b", stream_seq="4"),
        append_commit(b"c", closes=True),
        append_commit(b"d"),
    ]
    outcomes = await apply_together(rig.store, commits)
    kinds = [type(one.requirement) if isinstance(one, Unmet) else Applied for one in outcomes]
    assert kinds[:2] == [Applied, Applied]
    assert kinds[2] in {NotDuplicate, Open}  # the stream is closed by the time at which it is refused
    assert kinds[6:] == [Applied, SeqAfter, Applied, Open] or kinds[6:] == [Applied, Open, Applied, Open]
    assert await read_all(rig.store) in ([b"0", b"1", b"a", b"c"], [b"0", b"1", b"2", b"a", b"c"])
    closing = outcomes[8]
    assert isinstance(closing, Applied)
    assert closing.head is not None
    assert closing.head.closed
    first = outcomes[1]
    assert isinstance(first, Applied)
    assert first.head is not None
    assert not first.head.closed


async def test_refused_appends_cost_no_request(rig: DynamoDbRig) -> None:
    """The head that the group's update returns is as new as they are."""
    await apply_together(rig.store, [append_commit(b"%d" % seq, producer=stamp(seq=seq)) for seq in range(5)])
    network = watch(rig.store)
    retries = [append_commit(b"%d" % seq, producer=stamp(seq=seq)) for seq in range(5)]
    outcomes = await apply_together(rig.store, [append_commit(b"new"), append_commit(b"next"), *retries])
    assert all(isinstance(one, Unmet) and isinstance(one.requirement, NotDuplicate) for one in outcomes[2:])
    assert [name for name, _ in network.operations] == ["UpdateItem", "UpdateItem"]
    assert b"".join(await read_all(rig.store)) == b"01234newnext"


async def test_group_of_refused_appends_is_one_read(rig: DynamoDbRig) -> None:
    """Nothing is written for a stream that is closed, and every append is told so."""
    await rig.store.apply(NAME, close_commit())
    network = watch(rig.store)
    outcomes = await apply_together(rig.store, [append_commit()] * 20)
    assert all(isinstance(one, Unmet) and isinstance(one.requirement, Open) for one in outcomes)
    assert [name for name, _ in network.operations] == ["UpdateItem", "GetItem"]


async def test_refusal_is_judged_on_what_other_processes_have_written(rig: DynamoDbRig) -> None:
    """This process has seen the stream before another one wrote the batch that its producer goes on from."""
    await rig.store.apply(NAME, append_commit(b"0", producer=stamp()))
    other = DynamoDbStore(rig.config, rig.still.own_clock())
    await other.apply(NAME, append_commit(b"1", producer=stamp(seq=1)))
    await other.close()
    commits = [append_commit(b"x"), *(append_commit(b"%d" % seq, producer=stamp(seq=seq)) for seq in (2, 3))]
    outcomes = await apply_together(rig.store, commits)
    assert all(isinstance(one, Applied) for one in outcomes)
    assert b"".join(await read_all(rig.store)) == b"01x23"


async def test_stream_that_was_created_again_is_not_taken_for_the_former(rig: DynamoDbRig) -> None:
    """The group is planned on the former incarnation's head, and lands in the present one."""
    await apply_together(rig.store, [append_commit(b"old")] * 3)
    other = DynamoDbStore(rig.config, rig.still.own_clock())
    await other.apply(NAME, delete_commit())
    await other.apply(NAME, create_commit(2))
    await other.close()
    outcomes = await apply_together(rig.store, [append_commit(b"%d" % number) for number in range(4)])
    assert [one.head.incarnation for one in outcomes if isinstance(one, Applied) and one.head] == [2] * 4
    assert b"".join(await read_all(rig.store)) == b"0123"


async def test_sliding_deadline_moves_with_a_group(rig: DynamoDbRig) -> None:
    """As with every append."""
    await rig.store.apply(NAME, delete_commit())
    await rig.store.apply(NAME, create_commit(2, lifetime=SlidingTtl(100)))
    later = [append_commit(b"%d" % number, START_MS + 50_000) for number in range(4)]
    assert all(isinstance(one, Applied) for one in await apply_together(rig.store, later))
    head = await rig.store.head(NAME)
    assert head is not None
    assert head.live_until_ms is not None
    assert head.live_until_ms >= START_MS + 150_000


async def test_more_producers_than_a_head_holds_write_at_once(rig: DynamoDbRig) -> None:
    """Those that do not fit wait for the next group; every state is kept."""
    names = [f"p{number}" for number in range(2 * GROUP_PRODUCERS_MAX + 10)]
    for seq in (0, 1):
        commits = [append_commit(b"x", producer=stamp(seq=seq, producer_id=name)) for name in names]
        assert all(isinstance(one, Applied) for one in await apply_together(rig.store, commits))
    head = await rig.store.head(NAME)
    assert head is not None
    assert head.producer_count == len(names)
    assert {one.seq for one in await rig.store.producers(head, 1_000)} == {1}


async def test_batches_of_groups_are_rotated_and_deleted(rotating: DynamoDbRig) -> None:
    """The cold segment has them one by one, and no payload is left."""
    batches = [b"%03d:%s," % (number, b"x" * 20) for number in range(150)]
    for at in range(0, 150, 50):
        await apply_together(rotating.store, [append_commit(batch) for batch in batches[at : at + 50]])
    await rotating.store.apply(NAME, close_commit())
    await eventually(lambda: not payloads(rotating), rotating.let_pass)
    await rotating.reopen()
    for page_bytes in (60, 700, 1_000_000):
        assert await read_all(rotating.store, page_bytes) == batches
    await rotating.store.apply(NAME, delete_commit())


async def test_deleted_stream_leaves_no_group(rig: DynamoDbRig) -> None:
    """Of a head, and of hot segments."""
    for _ in range(40):
        await apply_together(rig.store, [append_commit(b"x" * 100)] * 20)
    assert payloads(rig)
    assert rig.items(f"SEG#{1:016x}"), "some groups have been spilled"
    await rig.store.apply(NAME, delete_commit())
    await eventually(lambda: not payloads(rig), rig.let_pass)


async def test_fork_begins_inside_of_a_group(rig: DynamoDbRig) -> None:
    """A group is stored like one batch, but a fork may begin at every one of its batches."""
    batches = [b"%02d:%s" % (number, b"y" * 97) for number in range(20)]
    await apply_together(rig.store, [append_commit(batch) for batch in batches])
    source = await rig.store.head(NAME)
    assert source is not None
    command = create_command(name=OTHER, content_type=None, fork=ForkPoint(NAME, None, 0))
    fork = plan_fork(command, ForkPosition(source, 700, 700), Incarnation(2), START_MS)
    created = await rig.store.apply(OTHER, fork)
    assert isinstance(created, Applied)
    assert created.head is not None
    assert (await rig.store.read(OTHER, created.head, 0, 10_000)).data == b"".join(batches[:7])


def payloads(rig: DynamoDbRig) -> list[str]:
    """The partition keys of all payloads."""
    scanned = rig.client.scan(TableName=rig.config.table, ConsistentRead=True)["Items"]
    return [item["pk"]["S"] for item in scanned if item["pk"]["S"].partition("#")[0] in {"PAYLOAD", "PL"}]


async def test_queue_is_bounded_by_bytes(tmp_path: Path) -> None:
    """What comes beyond is refused at once, and what waits is written."""
    async with moto_rig(tmp_path, replace(IMPATIENT, pending_bytes_max=10)) as rig:
        await rig.store.apply(NAME, create_commit())
        calls = (rig.store.apply(NAME, append_commit(b"%d" % number * 4)) for number in range(5))
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [isinstance(one, Applied) for one in results] == [True, True, True, False, False]
        assert isinstance(results[3], StoreUnavailable)
        assert b"".join(await read_all(rig.store)) == b"000011112222"


async def test_cancelled_call_is_not_written(rig: DynamoDbRig) -> None:
    """While it waits; its place in the queue is free."""
    first = asyncio.create_task(rig.store.apply(NAME, append_commit(b"first")))
    waiting = asyncio.create_task(rig.store.apply(NAME, append_commit(b"cancelled")))
    last = asyncio.create_task(rig.store.apply(NAME, append_commit(b"last")))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(first, last)
    assert waiting.cancelled()
    assert b"".join(await read_all(rig.store)) == b"firstlast"


async def test_closing_store_answers_what_waits(rig: DynamoDbRig) -> None:
    """As the contract says."""
    calls = [asyncio.create_task(rig.store.apply(NAME, append_commit(b"%d" % number))) for number in range(5)]
    await asyncio.sleep(0)
    await rig.store.close()
    assert all(isinstance(one, Applied) for one in await asyncio.gather(*calls))
    rig.store = DynamoDbStore(rig.config, rig.still.clock())


async def test_group_takes_what_its_limits_allow() -> None:
    """The count of appends, the bytes of the small ones, and the count of the large ones."""
    for size, count in ((1, GROUP_COMMITS_MAX), (400, GROUP_BYTES_MAX // 400), (1_000, GROUP_LARGE_MAX)):
        assert len(take_group(queue_of([append_commit(b"x" * size)] * 300), 0.0)) == count


async def test_append_that_has_waited_too_long_is_refused() -> None:
    """Its client may have gone: it is not written."""
    queue = queue_of([append_commit()] * 2)
    queue[1].since_s = 1.0
    late, fresh = queue[0], queue[1]
    assert take_group(queue, 0.5) == [fresh]
    assert isinstance(late.answer.exception(), StoreUnavailable)


async def test_close_is_written_between_two_groups() -> None:
    """A group is found again by its batches, and a close has none."""
    queue = queue_of([append_commit(), append_commit(), close_commit(stamp()), append_commit()])
    assert [len(take_group(queue, 0.0)) for _ in range(3)] == [2, 1, 1]


def queue_of(commits: Sequence[UpdateCommit]) -> deque[QueuedAppend]:
    """A queue in which commits have waited since the second zero."""
    loop = asyncio.get_running_loop()
    return deque(QueuedAppend(one, len(one.data or b""), 0.0, loop.create_future()) for one in commits)


producers = st.tuples(st.sampled_from("pq"), st.integers(0, 2), st.integers(0, 3))
seqs = st.sampled_from(["1", "2", "3"])


def commit_of(number: int, producer: tuple[str, int, int] | None, seq: str | None) -> UpdateCommit:
    """An append that can be told from the others."""
    data = b"%02d:%s," % (number, b"z" * (number % 4 * 60))
    who = None if producer is None else stamp(producer[1], producer[2], producer[0])
    return append_commit(data, producer=who, stream_seq=seq)


@examples(15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.lists(st.tuples(producers, st.none()) | st.tuples(st.none(), st.none() | seqs), max_size=16))
def test_group_answers_as_a_store_that_takes_one_append_after_the_other(
    tmp_path: Path, drawn: list[tuple[tuple[str, int, int] | None, str | None]]
) -> None:
    """The memory store's answers, and its batches; only their order may differ between writers."""
    commits = [commit_of(number, producer, seq) for number, (producer, seq) in enumerate(drawn)]

    async def run() -> None:
        memory = MemoryStore()
        await memory.apply(NAME, create_commit())
        expected = [await memory.apply(NAME, commit) for commit in commits]
        async with moto_rig(tmp_path, IMPATIENT) as rig:
            await rig.store.apply(NAME, create_commit())
            outcomes = await apply_together(rig.store, commits)
            assert [kind_of(one) for one in outcomes] == [kind_of(one) for one in expected]
            stored = await read_all(rig.store)
        accepted = [one.data for one, outcome in zip(commits, expected, strict=True) if isinstance(outcome, Applied)]
        assert Counter(stored) == Counter(accepted)
        ends = {
            tail(one): commit.data for commit, one in zip(commits, outcomes, strict=True) if kind_of(one) is Applied
        }
        assert [ends[end] for end in sorted(ends)] == stored

    asyncio.run(run())


def kind_of(outcome: Outcome) -> type:
    """Applied, or which requirement is unmet."""
    return type(outcome.requirement) if isinstance(outcome, Unmet) else Applied
