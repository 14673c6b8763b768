"""Acks that must not move a cursor back, and wakes whose work goes away."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fluvial.model.errors import ErrorCode
from fluvial.model.head import Incarnation, Span
from fluvial.model.subscriptions import moves
from fluvial.model.subscriptions.moves import Ack, Progress, Refusal, WakeProof
from fluvial.model.subscriptions.state import BEGINNING, Phase, Subscription, Wake
from fluvial.subscriptions.service import Claimed
from fluvial.wire.subscriptions import claim_fields
from tests.support.clocks import START_MS
from tests.support.commands import head
from tests.support.rigs import memory_rig
from tests.support.subscriptions import at, glob_link, moment, path, pull_wake, subscription, webhook
from tests.support.wakes import DONE, PLACE, WakeProcess, answering

PROOF = WakeProof(1, 1, "w_1")
A = path("events/a")


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[WakeProcess]:
    """A process with a store in memory."""
    async with memory_rig(tmp_path / "data") as rig:
        yield WakeProcess(rig.store, rig.still.clock(), answering(DONE))


def held(acked: int) -> Subscription:
    """A pull-wake subscription that a worker holds."""
    wake = Wake("w_1", Phase.HELD, START_MS + 30_000, {A: at(8)}, "worker")
    return subscription(pull_wake(), links={A: glob_link(acked)}, generation=1, wake=wake)


def test_inherited_part_of_a_fork_has_one_spelling() -> None:
    """By the fork's own birth an offset in that part would be after all offsets that the server issues for it."""
    fork = head(incarnation=Incarnation(2_000), born_us=2_000, tail=8, lineage=(Span(Incarnation(1_000), 0, 5, 1_000),))
    refused = moves.acknowledge(held(3), PROOF, Progress((Ack(A, at(2, 2_000)),)), {A: fork}, moment())
    assert isinstance(refused, Refusal)
    assert refused.code is ErrorCode.INVALID_OFFSET
    for offset in (at(4, 1_000), at(5, 1_000), at(6, 2_000)):
        moved = moves.acknowledge(held(3), PROOF, Progress((Ack(A, offset),)), {A: fork}, moment())
        assert isinstance(moved, Subscription)
        assert moved.links[A].acked == offset


def test_furthest_of_two_acks_of_a_stream_counts() -> None:
    """In either order."""
    stream = head(incarnation=Incarnation(1_000), born_us=1_000, tail=8)
    for acks in ((Ack(A, at(6)), Ack(A, at(4))), (Ack(A, at(4)), Ack(A, at(6)))):
        moved = moves.acknowledge(held(3), PROOF, Progress(acks), {A: stream}, moment())
        assert isinstance(moved, Subscription)
        assert moved.links[A].acked == at(6)


async def test_beginning_is_acked_as_it_is_issued(process: WakeProcess) -> None:
    """A worker may ack `acked_offset` itself; once there is more, it is before the cursor."""
    await process.create(pull_wake())
    await process.append("events/a")
    await process.run()
    claim = await process.claim()
    assert isinstance(claim, Claimed)
    assert claim.subscription.wake is not None
    wake = claim_fields(claim.subscription, claim.subscription.wake, claim.token)
    [stream] = wake["streams"]
    assert stream["acked_offset"] == "-1"
    assert await process.acknowledge(wake, acks={"events/a": "-1"}, is_done=False) is False
    assert (await process.shown()).links[A].acked == BEGINNING
    await process.acknowledge(wake, is_done=False)
    refused = await process.acknowledge(wake, acks={"events/a": "-1"})
    assert isinstance(refused, Refusal)
    assert refused.code is ErrorCode.INVALID_OFFSET


async def woken(process: WakeProcess) -> None:
    """A subscription whose wake event is in its wake stream."""
    await process.append("wake/pool")
    await process.append("events/b")
    await process.create(pull_wake(pattern=None, streams=(A, path("events/b"))))
    await process.append("events/a")
    await process.run()


async def test_claim_without_work_ends_the_wake(process: WakeProcess) -> None:
    """The next work has a wake event of its own at once."""
    await woken(process)
    await process.delete("events/a")
    refused = await process.claim()
    assert isinstance(refused, Refusal)
    assert refused.code is ErrorCode.NO_PENDING_WORK
    assert (await process.shown()).wake is None
    await process.append("events/b")
    await process.run()
    shown = await process.shown()
    assert shown.generation == 2
    assert shown.wake is not None
    assert shown.wake.phase is Phase.SENT


async def test_unlinking_the_last_work_ends_the_wake(process: WakeProcess) -> None:
    """No worker has claimed it, and none can."""
    await woken(process)
    await process.service.remove_stream(PLACE, "sub-1", path("events/b"))
    assert (await process.shown()).wake is not None
    await process.service.remove_stream(PLACE, "sub-1", A)
    assert (await process.shown()).wake is None


def test_next_wake_of_a_webhook_waits_for_its_turn() -> None:
    """Its lease begins when the request can be sent, and not with the ack of the last wake."""
    wake = Wake("w_1", Phase.SENT, START_MS + 30_000, {A: at(4)})
    sent = subscription(webhook(), links={A: glob_link(0)}, generation=1, wake=wake)
    heads = {A: head(incarnation=Incarnation(1_000), born_us=1_000, tail=8)}
    moved = moves.acknowledge(sent, PROOF, Progress((Ack(A, at(4)),), is_done=True), heads, moment())
    assert isinstance(moved, Subscription)
    assert moved.wake is None
    later = moves.look(moved, heads, moment(START_MS + 5_000, "w_2"))
    assert later.wake is not None
    assert later.wake.until_ms == START_MS + 35_000
