"""An answer is lost, and before its writer finds out, somebody else ends the stream or begins it anew."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from fluvial.model.command import ForkPoint
from fluvial.model.commit import Applied, Commit, Exists, Unmet
from fluvial.model.entity_tag import Preconditions, TagList, stream_etag
from fluvial.model.errors import StoreUncertain
from fluvial.model.head import Incarnation
from fluvial.model.plan import ForkPosition, plan_delete, plan_fork, plan_renewal
from fluvial.storage.dynamodb.store import DynamoDbStore
from fluvial.storage.dynamodb.table.write_outcome import InDoubt
from tests.faults.test_concurrent_appends import read_all
from tests.support.clocks import START_MS
from tests.support.commands import NAME, OTHER, append_commit, close_commit, create_command, create_commit
from tests.support.estuaries import own_process
from tests.support.rigs import IMPATIENT, DynamoDbRig, dynamodb_local_rig

pytestmark = pytest.mark.medium

Meanwhile = Callable[[], Awaitable[object]]


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[DynamoDbRig]:
    """AWS's own engine, and no patience."""
    async with dynamodb_local_rig(tmp_path, IMPATIENT) as opened:
        yield opened


@pytest.fixture
async def writer(rig: DynamoDbRig) -> AsyncIterator[DynamoDbStore]:
    """A process that knows nothing yet; the rig's store is everybody else."""
    async with own_process(rig) as process:
        assert isinstance(process.store, DynamoDbStore)
        yield process.store


def lose_one_answer(store: DynamoDbStore, operation: str, meanwhile: Meanwhile) -> None:
    """Carry out the next such request of a store, let others act, and lose the answer."""
    send, lost = getattr(store.table, operation), iter([True])

    async def losing(*arguments: Any, **parameters: Any) -> Any:  # noqa: ANN401  whatever the operation takes
        answer = await send(*arguments, **parameters)
        if next(lost, False):
            await meanwhile()
            return InDoubt(TimeoutError())
        return answer

    setattr(store.table, operation, losing)


async def test_a_deletion_in_doubt_leaves_the_next_life_alone(rig: DynamoDbRig, writer: DynamoDbStore) -> None:
    """What was acknowledged there stays."""
    await rig.store.apply(NAME, create_commit(incarnation=1))

    async def begin_anew() -> None:
        assert isinstance(await rig.store.apply(NAME, create_commit(incarnation=2)), Applied)
        assert isinstance(await rig.store.apply(NAME, append_commit(b"acknowledged")), Applied)

    lose_one_answer(writer, "update", begin_anew)
    assert await writer.apply(NAME, plan_delete(START_MS)) == Applied(None)
    assert await read_all(rig.store) == b"acknowledged"


@pytest.mark.parametrize("commit", [append_commit(b"once"), close_commit()], ids=["append", "close"])
async def test_what_may_have_landed_in_a_life_that_is_over_is_not_done_in_the_next(
    rig: DynamoDbRig, writer: DynamoDbStore, commit: Commit
) -> None:
    """Nobody can tell any more, and the writer is told so."""
    await rig.store.apply(NAME, create_commit(incarnation=1))

    async def begin_anew() -> None:
        await rig.store.apply(NAME, plan_delete(START_MS))
        await rig.store.apply(NAME, create_commit(incarnation=2))

    lose_one_answer(writer, "update", begin_anew)
    with pytest.raises(StoreUncertain):
        await writer.apply(NAME, commit)
    head = await rig.store.head(NAME)
    assert head is not None
    assert (head.tail, head.closed) == (0, False)


async def test_what_may_have_landed_before_the_end_is_not_told_as_missing(
    rig: DynamoDbRig, writer: DynamoDbStore
) -> None:
    """The stream is gone now, but was there when the append was sent."""
    await rig.store.apply(NAME, create_commit(incarnation=1))
    lose_one_answer(writer, "update", lambda: rig.store.apply(NAME, plan_delete(START_MS)))
    with pytest.raises(StoreUncertain):
        await writer.apply(NAME, append_commit(b"once"))


async def test_an_append_in_doubt_to_a_second_life_is_settled(rig: DynamoDbRig, writer: DynamoDbStore) -> None:
    """Its fence is of that life."""
    await rig.store.apply(NAME, create_commit(incarnation=1))
    await rig.store.apply(NAME, plan_delete(START_MS))
    await rig.store.apply(NAME, create_commit(incarnation=2))
    await writer.head(NAME)
    lose_one_answer(writer, "update", lambda: rig.store.apply(NAME, append_commit(b"other")))
    assert isinstance(await writer.apply(NAME, append_commit(b"once")), Applied)
    assert await read_all(rig.store) == b"onceother"


async def test_a_creation_in_doubt_does_not_undo_a_deletion(rig: DynamoDbRig, writer: DynamoDbStore) -> None:
    """It was carried out; that the stream is gone again is another matter."""
    lose_one_answer(writer, "put", lambda: rig.store.apply(NAME, plan_delete(START_MS)))
    assert isinstance(await writer.apply(NAME, create_commit(incarnation=1)), Applied)
    assert await rig.store.head(NAME) is None


async def test_a_fork_in_doubt_is_found_though_its_source_is_gone(rig: DynamoDbRig, writer: DynamoDbStore) -> None:
    """The fork keeps what it needs of it."""
    await rig.store.apply(NAME, create_commit(incarnation=1, body=b"inherited"))
    source = await rig.store.head(NAME)
    assert source is not None
    command = create_command(name=OTHER, content_type=None, fork=ForkPoint(NAME, None, 0))
    fork = plan_fork(command, ForkPosition(source, source.tail, source.tail), Incarnation(2), START_MS)
    lose_one_answer(writer, "transact", lambda: rig.store.apply(NAME, plan_delete(START_MS)))
    assert isinstance(await writer.apply(OTHER, fork), Applied)
    head = await rig.store.head(OTHER)
    assert head is not None
    assert (await rig.store.read(OTHER, head, 0, 100)).data == b"inherited"


async def test_a_renewal_in_doubt_is_left_to_the_next_read(rig: DynamoDbRig, writer: DynamoDbStore) -> None:
    """It is not worth a fence, which a reader may not raise."""
    await rig.store.apply(NAME, create_commit(incarnation=1))

    async def nothing() -> None:
        """Nobody does anything."""

    lose_one_answer(writer, "update", nothing)
    with pytest.raises(StoreUncertain):
        await writer.apply(NAME, plan_renewal(START_MS))
    [item] = rig.items(f"S#{NAME}")
    assert item["f"] == {"N": "0"}


@pytest.mark.parametrize("size", [1_000, 301_000])
async def test_a_refused_batch_leaves_no_payload(rig: DynamoDbRig, writer: DynamoDbStore, size: int) -> None:
    """Neither that of an append nor that of a creation."""
    assert isinstance(await writer.apply(NAME, append_commit(b"x" * size)), Unmet)
    await rig.store.apply(NAME, create_commit(incarnation=1))
    again = await writer.apply(NAME, create_commit(incarnation=2, body=b"x" * size))
    assert isinstance(again, Unmet)
    assert not isinstance(again.requirement, Exists)
    assert rig.items(f"PAYLOAD#{NAME}") == []
    assert writer._aws.objects.list_objects_v2(Bucket=rig.config.bucket)["KeyCount"] == 0


async def test_a_keyed_append_stays_in_the_life_that_it_was_meant_for(rig: DynamoDbRig, writer: DynamoDbStore) -> None:
    """A queue that brings it again to another life is told that nobody knows."""
    await rig.store.apply(NAME, create_commit(incarnation=1))
    assert isinstance((await writer.apply_idempotently(NAME, append_commit(b"once"), "key")).outcome, Applied)
    await rig.store.apply(NAME, plan_delete(START_MS))
    await rig.store.apply(NAME, create_commit(incarnation=2))
    for _ in range(2):
        with pytest.raises(StoreUncertain):
            await writer.apply_idempotently(NAME, append_commit(b"once"), "key")
    head = await rig.store.head(NAME)
    assert head is not None
    assert head.tail == 0


async def test_a_keyed_append_that_was_refused_may_be_sent_to_a_stream_that_is_there_by_then(
    rig: DynamoDbRig, writer: DynamoDbStore
) -> None:
    """Also where an earlier life has left its tombstone."""
    await rig.store.apply(NAME, create_commit(incarnation=1))
    await rig.store.apply(NAME, plan_delete(START_MS))
    assert isinstance((await writer.apply_idempotently(NAME, append_commit(b"once"), "key")).outcome, Unmet)
    await rig.store.apply(NAME, create_commit(incarnation=2))
    for is_repeat in (False, True):
        once = await writer.apply_idempotently(NAME, append_commit(b"once"), "key")
        assert (type(once.outcome), once.is_repeat) == (Applied, is_repeat)
    assert await read_all(rig.store) == b"once"


@pytest.mark.parametrize(("is_match", "told"), [(True, Unmet), (False, StoreUncertain)], ids=["match", "none match"])
async def test_a_guarded_deletion_in_doubt_is_refused_only_if_it_can_never_land(
    rig: DynamoDbRig,
    writer: DynamoDbStore,
    is_match: bool,  # noqa: FBT001
    told: type,
) -> None:
    """A stream comes back to no state: what was for one that has passed is refused, what is against one may land."""
    await rig.store.apply(NAME, create_commit(incarnation=1))
    seen = await rig.store.head(NAME)
    assert seen is not None
    passed, next_one = (TagList(frozenset([stream_etag(state)])) for state in (seen, replace(seen, tail=1)))
    guard = Preconditions(if_match=passed) if is_match else Preconditions(if_none_match=next_one)
    send, lost = writer.table.update, iter([True])

    async def lose(request: Any) -> Any:  # noqa: ANN401  boto3's own parameters
        """Let the first request wait somewhere on its way, while somebody else appends."""
        if next(lost, False):
            await rig.store.apply(NAME, append_commit(b"x"))
            return InDoubt(TimeoutError())
        return await send(request)

    writer.table.update = lose  # type: ignore[method-assign]
    try:
        outcome: object = await writer.apply(NAME, plan_delete(START_MS, guard))
    except StoreUncertain as exc:
        outcome = exc
    assert isinstance(outcome, told)
    assert await read_all(rig.store) == b"x"
