"""An answer is lost, and before its writer resolves the doubt, another process deletes or recreates the stream."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from fluvial.model.command import ForkPoint
from fluvial.model.commit import Applied, Commit, Exists, Unmet
from fluvial.model.entity_tag import Preconditions, TagList, stream_etag
from fluvial.model.errors import StoreUnavailable, StoreUncertain
from fluvial.model.head import Incarnation
from fluvial.model.limits import PAYLOAD_ITEM_BYTES_DEFAULT
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
    """AWS's own engine, and short timeouts."""
    async with dynamodb_local_rig(tmp_path, IMPATIENT) as opened:
        yield opened


@pytest.fixture
async def writer(rig: DynamoDbRig) -> AsyncIterator[DynamoDbStore]:
    """A new process's store; the rig's store is that of the other processes."""
    async with own_process(rig) as process:
        assert isinstance(process.store, DynamoDbStore)
        yield process.store


def lose_one_answer(store: DynamoDbStore, operation: str, meanwhile: Meanwhile) -> None:
    """Carry out a store's next request of this operation, let other processes act, and lose the answer."""
    send, lost = getattr(store.table, operation), iter([True])

    async def losing(*arguments: Any, **parameters: Any) -> Any:  # noqa: ANN401  whatever the operation takes
        answer = await send(*arguments, **parameters)
        if next(lost, False):
            await meanwhile()
            return InDoubt(TimeoutError())
        return answer

    setattr(store.table, operation, losing)


async def test_deletion_in_doubt_leaves_the_next_incarnation_alone(rig: DynamoDbRig, writer: DynamoDbStore) -> None:
    """The bytes that were acknowledged in it stay."""
    await rig.store.apply(NAME, create_commit(incarnation=1))

    async def recreate() -> None:
        assert isinstance(await rig.store.apply(NAME, create_commit(incarnation=2)), Applied)
        assert isinstance(await rig.store.apply(NAME, append_commit(b"acknowledged")), Applied)

    lose_one_answer(writer, "update", recreate)
    assert await writer.apply(NAME, plan_delete(START_MS)) == Applied(None)
    assert await read_all(rig.store) == b"acknowledged"


@pytest.mark.parametrize("commit", [append_commit(b"once"), close_commit()], ids=["append", "close"])
async def test_write_in_doubt_to_a_deleted_incarnation_is_not_repeated_in_the_next(
    rig: DynamoDbRig, writer: DynamoDbStore, commit: Commit
) -> None:
    """Whether it was applied can no longer be found out, and the writer gets StoreUncertain."""
    await rig.store.apply(NAME, create_commit(incarnation=1))

    async def recreate() -> None:
        await rig.store.apply(NAME, plan_delete(START_MS))
        await rig.store.apply(NAME, create_commit(incarnation=2))

    lose_one_answer(writer, "update", recreate)
    with pytest.raises(StoreUncertain):
        await writer.apply(NAME, commit)
    head = await rig.store.head(NAME)
    assert head is not None
    assert (head.tail, head.closed) == (0, False)


async def test_append_in_doubt_to_a_deleted_stream_is_uncertain_and_no_404(
    rig: DynamoDbRig, writer: DynamoDbStore
) -> None:
    """The stream is deleted now, but existed when the append was sent."""
    await rig.store.apply(NAME, create_commit(incarnation=1))
    lose_one_answer(writer, "update", lambda: rig.store.apply(NAME, plan_delete(START_MS)))
    with pytest.raises(StoreUncertain):
        await writer.apply(NAME, append_commit(b"once"))


async def test_append_in_doubt_to_a_second_incarnation_is_resolved(rig: DynamoDbRig, writer: DynamoDbStore) -> None:
    """Its fence is that incarnation's."""
    await rig.store.apply(NAME, create_commit(incarnation=1))
    await rig.store.apply(NAME, plan_delete(START_MS))
    await rig.store.apply(NAME, create_commit(incarnation=2))
    await writer.head(NAME)
    lose_one_answer(writer, "update", lambda: rig.store.apply(NAME, append_commit(b"other")))
    assert isinstance(await writer.apply(NAME, append_commit(b"once")), Applied)
    assert await read_all(rig.store) == b"onceother"


async def test_creation_in_doubt_does_not_undo_a_deletion(rig: DynamoDbRig, writer: DynamoDbStore) -> None:
    """It was applied, although the stream was deleted afterwards."""
    lose_one_answer(writer, "put", lambda: rig.store.apply(NAME, plan_delete(START_MS)))
    assert isinstance(await writer.apply(NAME, create_commit(incarnation=1)), Applied)
    assert await rig.store.head(NAME) is None


async def test_fork_in_doubt_is_found_though_its_source_is_deleted(rig: DynamoDbRig, writer: DynamoDbStore) -> None:
    """The fork keeps the bytes that it inherits."""
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


async def test_renewal_in_doubt_does_not_raise_the_fence(rig: DynamoDbRig, writer: DynamoDbStore) -> None:
    """A reader may not write that; the next read renews again."""
    await rig.store.apply(NAME, create_commit(incarnation=1))

    async def do_nothing() -> None:
        """No other process acts."""

    lose_one_answer(writer, "update", do_nothing)
    with pytest.raises(StoreUncertain):
        await writer.apply(NAME, plan_renewal(START_MS))
    [item] = rig.items(f"S#{NAME}")
    assert item["f"] == {"N": "0"}


@pytest.mark.parametrize("size", [1_000, PAYLOAD_ITEM_BYTES_DEFAULT + 1])
async def test_rejected_batch_leaves_no_payload(rig: DynamoDbRig, writer: DynamoDbStore, size: int) -> None:
    """Neither of an append nor of a creation."""
    assert isinstance(await writer.apply(NAME, append_commit(b"x" * size)), Unmet)
    await rig.store.apply(NAME, create_commit(incarnation=1))
    again = await writer.apply(NAME, create_commit(incarnation=2, body=b"x" * size))
    assert isinstance(again, Unmet)
    assert not isinstance(again.requirement, Exists)
    assert rig.payloads() == []
    assert writer._aws.objects.list_objects_v2(Bucket=rig.config.bucket)["KeyCount"] == 0


async def test_append_with_key_is_not_repeated_in_the_next_incarnation(rig: DynamoDbRig, writer: DynamoDbStore) -> None:
    """A redelivery that reaches the next incarnation gets StoreUncertain."""
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


async def test_rejected_append_with_key_may_be_repeated_once_the_stream_exists(
    rig: DynamoDbRig, writer: DynamoDbStore
) -> None:
    """Also where an earlier incarnation has left its tombstone."""
    await rig.store.apply(NAME, create_commit(incarnation=1))
    await rig.store.apply(NAME, plan_delete(START_MS))
    assert isinstance((await writer.apply_idempotently(NAME, append_commit(b"once"), "key")).outcome, Unmet)
    await rig.store.apply(NAME, create_commit(incarnation=2))
    for is_repeat in (False, True):
        result = await writer.apply_idempotently(NAME, append_commit(b"once"), "key")
        assert (type(result.outcome), result.is_repeat) == (Applied, is_repeat)
    assert await read_all(rig.store) == b"once"


@pytest.mark.parametrize(
    ("is_match", "expected"), [(True, Unmet), (False, StoreUncertain)], ids=["match", "none match"]
)
async def test_conditional_deletion_in_doubt_is_rejected_only_if_it_can_never_apply(
    rig: DynamoDbRig,
    writer: DynamoDbStore,
    is_match: bool,  # noqa: FBT001
    expected: type,
) -> None:
    """A stream never returns to a former state: If-Match of one can no longer hold, If-None-Match may hold later."""
    await rig.store.apply(NAME, create_commit(incarnation=1))
    seen = await rig.store.head(NAME)
    assert seen is not None
    passed, next_one = (TagList(frozenset([stream_etag(state)])) for state in (seen, replace(seen, tail=1)))
    guard = Preconditions(if_match=passed) if is_match else Preconditions(if_none_match=next_one)
    send, lost = writer.table.update, iter([True])

    async def delay_first(request: Any, on_busy: Any = None) -> Any:  # noqa: ANN401  as the table's is called
        """Delay the first request on its way, while another process appends."""
        if next(lost, False):
            await rig.store.apply(NAME, append_commit(b"x"))
            return InDoubt(TimeoutError())
        return await send(request)

    writer.table.update = delay_first  # type: ignore[method-assign]
    try:
        outcome: object = await writer.apply(NAME, plan_delete(START_MS, guard))
    except StoreUncertain as exc:
        outcome = exc
    assert isinstance(outcome, expected)
    assert await read_all(rig.store) == b"x"


async def test_batch_that_cannot_be_looked_for_is_in_doubt(
    rig: DynamoDbRig, writer: DynamoDbStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer is lost, others have moved it out of the head, and the segments cannot be read: it may be there."""
    await rig.store.apply(NAME, create_commit())

    async def write_on() -> None:
        for number in range(40):
            await rig.store.apply(NAME, append_commit(b"<%d:%s>" % (number, b"x" * 90)))
        monkeypatch.setattr(writer.table, "query", refuse)

    async def refuse(*_: object, **__: object) -> None:
        raise StoreUnavailable

    lose_one_answer(writer, "update", write_on)
    with pytest.raises(StoreUncertain):
        await writer.apply(NAME, append_commit(b"once"))
    assert (await read_all(rig.store)).count(b"once") == 1
