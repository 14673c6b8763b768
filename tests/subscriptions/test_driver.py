"""What wakes workers on one machine: driven by commits and by time, and found again after a crash."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace as replaced

from fluvial.access.project_cache import ProjectCache
from fluvial.model.errors import ErrorCode, StoreUnavailable, StoreUncertain
from fluvial.model.limits import RETRY_MS_MAX
from fluvial.model.names import StreamName
from fluvial.model.subscriptions.moves import Refusal
from fluvial.model.subscriptions.state import Phase, Subscription, SubscriptionKey
from fluvial.storage.memory_projects import MemoryProjects
from fluvial.subscriptions.driver import IsOwned
from fluvial.subscriptions.limits import WakeLimits
from fluvial.subscriptions.ownership import Ownership
from fluvial.subscriptions.receivers import Answer, DeliveryError
from fluvial.subscriptions.service import Claimed, Place
from fluvial.subscriptions.slots import Slots
from fluvial.wire.subscriptions import claim_fields
from tests.support.access import project
from tests.support.clocks import FixedClock
from tests.support.rigs import MemoryRig, Rig, SqliteRig, memory_rig, sqlite_rig
from tests.support.subscriptions import path, pull_wake, subscription, webhook
from tests.support.wakes import BROKEN, DONE, PLACE, TAKEN, Receivers, WakeProcess, answering, owned, soon

RIGS: dict[str, Callable[[Path], AbstractAsyncContextManager[Rig]]] = {"memory": memory_rig, "sqlite": sqlite_rig}


@pytest.fixture(params=RIGS)
async def store_rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MemoryRig | SqliteRig]:
    """Each store in turn."""
    async with RIGS[request.param](tmp_path / "data") as opened:
        assert isinstance(opened, MemoryRig | SqliteRig)
        yield opened


def process_on(
    rig: MemoryRig | SqliteRig, receivers: Receivers, *, limits: WakeLimits | None = None, is_owned: IsOwned = owned
) -> WakeProcess:
    """A process on the rig's store."""
    return WakeProcess(rig.store, rig.still.clock(), receivers, limits=limits, is_owned=is_owned)


async def restart(rig: MemoryRig | SqliteRig, receivers: Receivers) -> WakeProcess:
    """A new process on the same store, as after kill -9: nothing of the former one is known."""
    await rig.reopen()
    return process_on(rig, receivers)


async def test_append_wakes_the_webhook_and_done_acks_what_it_had(store_rig: MemoryRig | SqliteRig) -> None:
    """A stream that is new is linked before the append that made it match; one that was there, at its tail."""
    process = process_on(store_rig, answering(DONE))
    old = await process.append("events/old", b"before")
    await process.create(webhook())
    await process.run()
    assert process.receivers.bodies == []
    new = await process.append("events/new", b"first")
    await process.append("other/new", b"no match")
    await process.run()
    [wake] = process.receivers.bodies
    assert wake["callback_url"] == "http://fluvial.example/v1/stream/__ds/subscriptions/sub-1/callback"
    assert wake["generation"] == 1
    [stream] = wake["streams"]
    assert stream == {
        "path": "events/new",
        "link_type": "glob",
        "acked_offset": "-1",
        "tail_offset": f"{new.born_us:016d}_{new.tail:016d}",
        "has_pending": True,
    }
    shown = await process.shown()
    assert process.acked(shown) == {"events/old": old.tail, "events/new": new.tail}
    assert shown.due_ms is None


async def test_append_during_a_wake_is_in_the_next_wake(store_rig: MemoryRig | SqliteRig) -> None:
    """`done` acks the snapshot, not what came after it."""

    async def answer(_url: str, body: dict[str, Any]) -> Answer:
        if body["generation"] == 1:
            await process.append("events/a", b"more")
        return DONE

    process = process_on(store_rig, Receivers(answer))
    await process.create(webhook())
    head = await process.append("events/a", b"1")
    await process.run()
    first, second = process.receivers.bodies
    assert [first["generation"], second["generation"]] == [1, 2]
    assert second["streams"][0]["acked_offset"] == first["streams"][0]["tail_offset"]
    assert process.acked(await process.shown()) == {"events/a": head.tail + 4}


async def test_append_before_the_end_of_a_lease_is_not_forgotten(store_rig: MemoryRig | SqliteRig) -> None:
    """An append that lands between a worker's look at the tails and its ack is found by the look after the ack."""
    process = process_on(store_rig, answering(TAKEN))
    await process.create(webhook())
    await process.append("events/a", b"1")
    await process.run()
    [wake] = process.receivers.bodies
    replace = process.store.subscriptions.replace

    async def append_first(before: Subscription, after: Subscription) -> bool:
        process.store.subscriptions.replace = replace  # type: ignore[method-assign]
        await process.append("events/a", b"2")
        return await replace(before, after)

    process.store.subscriptions.replace = append_first  # type: ignore[method-assign]
    assert await process.acknowledge(wake) is False
    await process.run()
    assert [body["generation"] for body in process.receivers.bodies] == [1, 2]


async def test_ack_whose_answer_was_lost_leaves_no_work_behind(store_rig: MemoryRig | SqliteRig) -> None:
    """The subscription is idle, and its worker was told that this is not known."""
    process = process_on(store_rig, answering(TAKEN))
    await process.create(webhook())
    await process.append("events/a", b"1")
    await process.run()
    [wake] = process.receivers.bodies
    replace = process.store.subscriptions.replace

    async def lose_answer(before: Subscription, after: Subscription) -> bool:
        process.store.subscriptions.replace = replace  # type: ignore[method-assign]
        await replace(before, after)
        await process.append("events/a", b"2")
        raise StoreUncertain

    process.store.subscriptions.replace = lose_answer  # type: ignore[method-assign]
    with pytest.raises(StoreUncertain):
        await process.acknowledge(wake)
    await soon(lambda: len(process.receivers.bodies) > 1)
    await process.run()
    assert [body["generation"] for body in process.receivers.bodies] == [1, 2]


async def test_failed_webhook_is_sent_again_later(store_rig: MemoryRig | SqliteRig) -> None:
    """The same wake while its lease lasts, and another one after it; the pauses grow up to a minute."""
    process = process_on(store_rig, answering(BROKEN))
    await process.create(webhook(lease_ms=5_000))
    await process.append("events/a")
    await process.run()
    shown = await process.shown()
    assert shown.is_failed
    pauses = list[int]()
    for _ in range(10):
        assert shown.retry_at_ms is not None
        pauses.append(shown.retry_at_ms - store_rig.still.time.now_ms)
        store_rig.still.time.now_ms = shown.retry_at_ms - 1
        await process.run()
        count = len(process.receivers.bodies)
        store_rig.still.time.now_ms = shown.retry_at_ms
        await process.run()
        assert len(process.receivers.bodies) == count + 1
        shown = await process.shown()
    assert pauses == [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, *[RETRY_MS_MAX] * 4]
    ids = [(body["generation"], body["wake_id"]) for body in process.receivers.bodies]
    assert ids[0] == ids[1] == ids[2]
    assert len(set(ids[3:])) == len(ids[3:])
    process.receivers.answer = answering(DONE).answer
    store_rig.still.time.now_ms = shown.retry_at_ms or 0
    await process.run()
    shown = await process.shown()
    assert (shown.is_failed, shown.due_ms, shown.failure_count) == (False, None, 0)


async def test_receiver_that_hangs_is_given_up_at_the_end_of_the_lease(store_rig: MemoryRig | SqliteRig) -> None:
    """And counts as failed, so that it gets the next wake after a pause."""
    hangs = asyncio.Event()

    async def hang(_url: str, _body: dict[str, Any]) -> Answer:
        await hangs.wait()
        return DONE

    process = process_on(store_rig, Receivers(hang), limits=WakeLimits(answer_timeout_s=0.01))
    await process.create(webhook())
    await process.append("events/a")
    await process.run()
    shown = await process.shown()
    assert shown.is_failed
    assert shown.retry_at_ms is not None
    assert process.acked(shown) == {"events/a": 0}


async def test_late_answer_of_a_former_wake_does_nothing(store_rig: MemoryRig | SqliteRig) -> None:
    """The receiver answers when its lease has ended, and another wake has begun."""
    released = asyncio.Event()

    async def answer(_url: str, body: dict[str, Any]) -> Answer:
        if body["generation"] == 1:
            await released.wait()
            return DONE
        return TAKEN

    process = process_on(store_rig, Receivers(answer))
    await process.create(webhook(lease_ms=1_000))
    await process.append("events/a")
    await soon(lambda: bool(process.receivers.bodies))
    store_rig.still.time.advance(1_000)
    released.set()
    await process.run()
    assert process.acked(await process.shown()) == {"events/a": 0}
    store_rig.still.time.advance(2_000)
    await process.run()
    assert [body["generation"] for body in process.receivers.bodies] == [1, 2, 3]
    refused = await process.acknowledge(process.receivers.bodies[0])
    assert isinstance(refused, Refusal)
    assert refused.code is ErrorCode.FENCED


async def test_dead_receivers_delay_no_other(store_rig: MemoryRig | SqliteRig) -> None:
    """However many hang: of one target, and of many targets."""
    hangs = asyncio.Event()

    async def answer(url: str, _body: dict[str, Any]) -> Answer:
        if "dead" in url:
            await hangs.wait()
        if "broken" in url:
            raise DeliveryError("refused")
        return DONE

    limits = WakeLimits(deliveries_per_target=2, retries_at_once=1, deliveries_at_once=8)
    process = process_on(store_rig, Receivers(answer), limits=limits)
    for number in range(4):
        await process.create(webhook(webhook_url="https://dead.example/"), f"dead-{number}")
        await process.create(webhook(webhook_url=f"https://broken-{number}.example/"), f"broken-{number}")
    await process.create(webhook(webhook_url="https://alive.example/"), "alive")
    alive = 0
    for number in range(5):
        await process.append(f"events/{number}")
        store_rig.still.time.advance(1_500)
        await process.driver.check_due()
        await soon(lambda: process.ledger.catalog.entries[path("__ds/alive")].generation > alive)  # type: ignore[index]  # noqa: B023
        alive = process.ledger.catalog.entries[path("__ds/alive")].generation  # type: ignore[index]
    await process.driver.stop()


async def test_pending_work_is_found_again_on_a_quiet_stream(store_rig: MemoryRig | SqliteRig) -> None:
    """The process is killed after the append, before it looked: for a stream it knew, and for one it did not."""
    process = process_on(store_rig, answering(DONE))
    known = await process.append("events/known")
    await process.create(webhook())
    await process.run()
    process.store.listen(lambda _name, _before, _after: None)  # it is killed before it is told
    for name in ("events/known", "events/new"):
        await process.append(name)
    restarted = await restart(store_rig, answering(DONE))
    await restarted.start()
    paths = {stream["path"] for body in restarted.receivers.bodies for stream in body["streams"]}
    assert paths == {"events/known", "events/new"}
    assert restarted.acked(await restarted.shown()) == {"events/known": known.tail + 1, "events/new": 1}


async def test_wake_under_way_is_sent_again_after_a_crash(store_rig: MemoryRig | SqliteRig) -> None:
    """With the same id, so that the receiver can tell; one that waits for its retry keeps waiting."""
    began = asyncio.Event()

    async def die(_url: str, _body: dict[str, Any]) -> Answer:
        began.set()
        await asyncio.Event().wait()
        raise AssertionError

    process = process_on(store_rig, Receivers(die))
    await process.create(webhook())
    await process.append("events/a")
    await asyncio.wait_for(began.wait(), 10)
    [first] = process.receivers.bodies
    await process.driver.stop()
    restarted = await restart(store_rig, answering(BROKEN))
    await restarted.start()
    assert [body["wake_id"] for body in restarted.receivers.bodies] == [first["wake_id"]]
    again = await restart(store_rig, answering(DONE))
    await again.start()
    assert again.receivers.bodies == []
    store_rig.still.time.advance(1_000)
    await again.run()
    assert [body["wake_id"] for body in again.receivers.bodies] == [first["wake_id"]]
    assert (await again.shown()).due_ms is None


async def events_in(process: WakeProcess, name: str = "wake/pool") -> list[int]:
    """The generations of the events in a wake stream."""
    head = await process.store.head(StreamName(name))
    assert head is not None
    if not head.tail:
        return []
    page = await process.store.read(StreamName(name), head, 0, 1_000_000)
    return [int(part.split(b"}")[0].split(b",")[0]) for part in page.data.split(b'"generation":')[1:]]


async def test_pull_wake_writes_each_event_once(store_rig: MemoryRig | SqliteRig) -> None:
    """Also when a process is killed before it has noted that the event is there."""
    process = process_on(store_rig, answering(DONE))
    await process.append("wake/pool", b"begin ")
    await process.create(pull_wake())
    await process.append("events/a")
    await process.run()
    assert await events_in(process) == [1]
    shown = await process.shown()
    assert shown.wake is not None
    assert shown.wake.phase is Phase.SENT
    issued = shown.wake.__class__(shown.wake.wake_id, Phase.ISSUED, shown.wake.until_ms, shown.wake.snapshot)

    def forget(known: Subscription, _heads: object, _moment: object) -> Subscription:
        return known.__class__(**{**{f: getattr(known, f) for f in known.__struct_fields__}, "wake": issued})

    await process.ledger.change(shown.key, 0, forget)
    await process.driver.stop()
    restarted = await restart(store_rig, answering(DONE))
    await restarted.start()
    assert await events_in(restarted) == [1]


async def test_unclaimed_wake_is_announced_again_more_and_more_seldom(store_rig: MemoryRig | SqliteRig) -> None:
    """A worker that read the first event may have died before its claim."""
    process = process_on(store_rig, answering(DONE))
    await process.append("wake/pool", b"begin ")
    await process.create(pull_wake(lease_ms=1_000))
    await process.append("events/a")
    await process.run()
    for count, pause_ms in enumerate([1_000, 2_000, 4_000], 2):
        store_rig.still.time.advance(pause_ms - 1)
        await process.run()
        assert len(await events_in(process)) == count - 1
        store_rig.still.time.advance(1)
        await process.run()
        assert await events_in(process) == list(range(1, count + 1))


async def test_missing_wake_stream_is_waited_for(store_rig: MemoryRig | SqliteRig) -> None:
    """Spec 7.2: "The wake stream [...] MUST be created explicitly by the application"."""
    process = process_on(store_rig, answering(DONE))
    await process.create(pull_wake())
    await process.append("events/a")
    await process.run()
    assert (await process.shown()).is_failed
    await process.append("wake/pool", b"begin ")
    store_rig.still.time.advance(1_000)
    await process.run()
    assert await events_in(process) == [1]
    assert not (await process.shown()).is_failed


async def test_leases_of_pull_wake(store_rig: MemoryRig | SqliteRig) -> None:
    """One worker holds the lease, acks extend it, and after its end another one may claim, which fences the first."""
    process = process_on(store_rig, answering(DONE))
    await process.append("wake/pool", b"begin ")
    await process.create(pull_wake(lease_ms=1_000))
    refused = await process.claim()
    assert isinstance(refused, Refusal)
    assert refused.code is ErrorCode.NO_PENDING_WORK
    await process.append("events/a")
    claimed = await process.claim("first")
    assert isinstance(claimed, Claimed)
    assert claimed.subscription.wake is not None
    first = claim_fields(claimed.subscription, claimed.subscription.wake, claimed.token)
    busy = await process.claim("second")
    assert isinstance(busy, Refusal)
    assert (busy.code, busy.holder, busy.generation) == (ErrorCode.ALREADY_CLAIMED, "first", first["generation"])
    for _ in range(3):
        store_rig.still.time.advance(999)
        assert await process.acknowledge(first, is_done=False, acks={}) is False
    store_rig.still.time.advance(1_000)
    taken = await process.claim("second")
    assert isinstance(taken, Claimed)
    late = await process.acknowledge(first)
    assert isinstance(late, Refusal)
    assert late.code is ErrorCode.FENCED
    assert taken.subscription.wake is not None
    second = claim_fields(taken.subscription, taken.subscription.wake, taken.token)
    assert second["generation"] > first["generation"]
    assert await process.acknowledge(second) is False
    await process.run()
    assert process.acked(await process.shown()) == {"events/a": 1}


async def test_stream_that_is_created_again_is_pending_again(store_rig: MemoryRig | SqliteRig) -> None:
    """Its cursor is of a former incarnation, whose offsets come before."""
    process = process_on(store_rig, answering(DONE))
    await process.create(webhook(streams=(path("events/a"),)))
    await process.append("events/a", b"a long text")
    await process.run()
    await process.delete("events/a")
    await process.append("events/a", b"b")
    await process.run()
    assert [body["generation"] for body in process.receivers.bodies] == [1, 2]
    assert process.acked(await process.shown()) == {"events/a": 1}


async def test_matches_of_deleted_streams_are_forgotten(store_rig: MemoryRig | SqliteRig) -> None:
    """So that a subscription does not fill up with streams that are gone."""
    process = process_on(store_rig, answering(DONE))
    await process.create(webhook())
    for number in range(3):
        await process.append(f"events/{number}")
        await process.run()
        await process.delete(f"events/{number}")
    await process.append("events/last")
    await process.run()
    assert set((await process.shown()).links) == {"events/last"}


async def test_subscription_of_a_former_owner_wakes_nobody_else(store_rig: MemoryRig | SqliteRig) -> None:
    """It rests while its server is closed, and is removed with its project."""
    owner: dict[str, bool | None] = {"is": False}

    async def is_owned(_subscription: Subscription) -> bool | None:
        return owner["is"]

    process = process_on(store_rig, answering(DONE), is_owned=is_owned)
    created = await process.create(webhook())
    await process.append("events/a")
    await process.run()
    assert process.receivers.bodies == []
    owner["is"] = None
    await process.append("events/a")
    await process.driver.sweep()
    await process.run()
    assert process.receivers.bodies == []
    assert await process.ledger.load(created.key) is None
    assert len(process.ledger.catalog) == 0


async def test_subscriptions_that_rest_delay_no_lease_and_no_retry(store_rig: MemoryRig | SqliteRig) -> None:
    """A server that was open gets its first project: what is left of its subscriptions is due no more."""
    closed = False

    async def is_owned(known: Subscription) -> bool | None:
        return bool(known.owner) or not closed

    process = process_on(store_rig, answering(TAKEN), limits=WakeLimits(due_per_look=2), is_owned=is_owned)
    for number in range(5):
        await process.create(webhook(lease_ms=1_000), f"open-{number}")
    await process.create(webhook(lease_ms=1_500), "of-project", Place("demo/", 7, "http://fluvial.example"))
    await process.append("events/a")
    await process.append("demo/events/a")
    await process.run()
    closed, count = True, len(process.receivers.bodies)
    store_rig.still.time.advance(1_500)
    for _ in range(4):
        await process.run()
    assert [body["subscription_id"] for body in process.receivers.bodies[count:]] == ["of-project"]
    assert (await process.shown("open-0")).due_ms is None
    entries = process.ledger.catalog.entries
    await process.append("events/b")
    await process.run()
    assert list(entries) == ["demo/__ds/of-project"]


async def test_subscription_whose_owner_comes_back_is_woken(store_rig: MemoryRig | SqliteRig) -> None:
    """The deletion of a project is refused: the work that was pending is still."""
    owner: dict[str, bool | None] = {"is": True}

    async def is_owned(_known: Subscription) -> bool | None:
        return owner["is"]

    process = process_on(store_rig, answering(TAKEN), is_owned=is_owned)
    place = Place("demo/", 7, "http://fluvial.example")
    await process.create(webhook(lease_ms=1_000), "of-project", place)
    await process.append("demo/events/a")
    await process.run()
    owner["is"] = False
    store_rig.still.time.advance(1_000)
    await process.run()
    assert (await process.shown("of-project", place)).due_ms is None
    owner["is"] = True
    await process.driver.sweep()
    await process.run()
    assert [body["generation"] for body in process.receivers.bodies] == [1, 2]


@pytest.mark.parametrize("error", [StoreUnavailable(), RuntimeError("unforeseen")])
async def test_look_that_fails_is_made_again(store_rig: MemoryRig | SqliteRig, error: Exception) -> None:
    """No wake is lost, whatever the error; each failure is counted."""
    failures = [error, error]

    async def is_owned(_known: Subscription) -> bool | None:
        if failures:
            raise failures.pop()
        return True

    process = process_on(store_rig, answering(DONE), is_owned=is_owned)
    outcomes = list[str]()
    process.driver._note_outcome = outcomes.append
    await process.create(webhook())
    await process.append("events/a")
    await process.run()
    assert [body["generation"] for body in process.receivers.bodies] == [1]
    assert outcomes == ["error", "error", "done"]


async def test_pauses_after_failures_grow() -> None:
    """A subscription that cannot be read does not flood the log."""
    async with memory_rig(Path()) as rig:
        assert isinstance(rig, MemoryRig)
        driver = process_on(rig, answering(DONE), limits=WakeLimits()).driver
        pauses = [driver._note_failure(SubscriptionKey("__ds/sub-1")) for _ in range(20)]
    assert pauses[:7] == [1, 2, 4, 8, 16, 32, 60]
    assert pauses[-1] == 60


async def test_damaged_subscription_disables_no_other(tmp_path: Path) -> None:
    """After a restart the others are looked at, and listed."""
    async with sqlite_rig(tmp_path / "data") as rig:
        process = process_on(rig, answering(TAKEN))
        for name in ("a", "b"):
            await process.create(webhook(), name)
        process.store.listen(lambda _name, _before, _after: None)
        await process.append("events/a")

        def flip(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE subscription SET body = 'x' WHERE key = '__ds/a'")

        await rig.store._group_commit.submit_work(flip)
        restarted = await restart(rig, answering(DONE))
        outcomes = list[str]()
        restarted.driver._note_outcome = outcomes.append
        await restarted.start()
        assert [body["subscription_id"] for body in restarted.receivers.bodies] == ["b"]
        assert outcomes == ["error", "done"]
        assert [one.id for one in await restarted.service.list_after(PLACE, "", 10)] == ["b"]


@pytest.mark.parametrize("root", ["", "a__ds/"])
async def test_stream_that_is_created_during_a_creation_is_linked(store_rig: MemoryRig | SqliteRig, root: str) -> None:
    """Although a look finds no subscription yet: the project's name may have the reserved segment's letters."""
    process = process_on(store_rig, answering(DONE))
    add = process.store.subscriptions.add

    async def append_first(subscription: Subscription) -> bool:
        await process.append(f"{root}events/new")
        await process.driver.settle()
        return await add(subscription)

    process.store.subscriptions.add = append_first  # type: ignore[method-assign]
    place = Place(root, 0, "http://fluvial.example")
    await process.create(webhook(), place=place)
    await process.run()
    assert process.acked(await process.shown(place=place)) == {"events/new": 1}
    assert process.ledger.new_paths == {}


async def test_creation_in_doubt_is_woken_if_it_was_made(store_rig: MemoryRig | SqliteRig) -> None:
    """Its client was told that this is not known."""
    process = process_on(store_rig, answering(DONE))
    add = process.store.subscriptions.add

    async def lose_answer(subscription: Subscription) -> bool:
        await add(subscription)
        raise StoreUncertain

    process.store.subscriptions.add = lose_answer  # type: ignore[method-assign]
    with pytest.raises(StoreUncertain):
        await process.create(webhook())
    await soon(lambda: SubscriptionKey("__ds/sub-1") in process.ledger.catalog.entries)
    await process.append("events/a")
    await process.run()
    assert len(process.receivers.bodies) == 1


async def test_streams_noted_for_a_creation_that_fails_are_forgotten(store_rig: MemoryRig | SqliteRig) -> None:
    """By the next sweep."""
    process = process_on(store_rig, answering(DONE))

    async def refuse(_subscription: Subscription) -> bool:
        await process.append("events/new")
        raise StoreUnavailable

    process.store.subscriptions.add = refuse  # type: ignore[method-assign, assignment]
    with pytest.raises(StoreUnavailable):
        await process.create(webhook())
    await process.driver.settle()
    await process.driver.sweep()
    assert process.ledger.new_paths == {}


async def test_what_waits_for_its_turn_is_asked_for_once(store_rig: MemoryRig | SqliteRig) -> None:
    """While receivers are down the clock's task rests until the next moment."""
    hangs = asyncio.Event()

    async def hang(_url: str, _body: dict[str, Any]) -> Answer:
        await hangs.wait()
        return DONE

    process = process_on(store_rig, Receivers(hang), limits=WakeLimits(deliveries_per_target=1, due_per_look=2))
    for number in range(4):
        await process.create(webhook(lease_ms=1_000), f"sub-{number}")
    await process.append("events/a")
    await soon(lambda: len(process.receivers.bodies) == 1)
    store_rig.still.time.advance(1_000)
    assert await process.driver.check_due() == 1  # the others have no wake before their turn
    assert await process.driver.check_due() == 0
    store_rig.still.time.advance(-500)
    assert await process.driver.check_due() == 0
    store_rig.still.time.advance(500)
    assert await process.driver.check_due() == 1  # after the clock was set back
    await process.driver.stop()


async def test_one_owner_fills_no_slot_of_another() -> None:
    """Of a host that both use; and retries fill none of those that have answered."""
    slots = Slots(WakeLimits(deliveries_per_target=1))
    url = "https://shared.example/hook"
    async with (
        slots.hold(1, url, is_retry=False),
        slots.hold(2, url, is_retry=False),
        slots.hold(1, f"{url}/other", is_retry=True),
    ):
        waiting = asyncio.ensure_future(slots.hold(1, f"{url}/more", is_retry=False).__aenter__())
        await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert slots._targets == {}


async def test_subscriptions_of_a_project_that_is_being_deleted_rest() -> None:
    """Only when the project is gone, or another has its name, they are of no use."""
    projects, still = MemoryProjects(), FixedClock()
    is_owned = Ownership(ProjectCache(projects, still.clock(), closed=True)).is_owned
    known = subscription(root="demo/", owner=7)
    assert await is_owned(known) is None
    stored = project(incarnation=7)
    await projects.put(stored)
    still.time.advance(60_000)
    assert await is_owned(known) is True
    assert await is_owned(subscription(root="demo/", owner=6)) is None
    await projects.put(replaced(stored, version=stored.version + 1, is_ending=True))
    still.time.advance(60_000)
    assert await is_owned(known) is False
