"""What the driver does when a store fails, and where the bounds of subscriptions are."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from fluvial.model.command import Close
from fluvial.model.errors import ErrorCode, RequestError, StoreUnavailable
from fluvial.model.limits import (
    LINKS_PER_SUBSCRIPTION_MAX,
    SUBSCRIPTIONS_PER_PROJECT_MAX,
    WAKE_TOKEN_MS_MAX,
)
from fluvial.model.names import StreamName
from fluvial.model.plan import plan_close
from fluvial.model.subscriptions.state import Subscription, SubscriptionKey
from fluvial.storage.memory import MemoryStore
from fluvial.subscriptions.limits import WakeLimits
from fluvial.subscriptions.receivers import Answer, DeliveryError
from fluvial.subscriptions.service import Place
from fluvial.subscriptions.slots import target_of
from tests.support.clocks import FixedClock
from tests.support.rigs import sqlite_rig
from tests.support.subscriptions import path, pull_wake, webhook
from tests.support.wakes import DONE, TAKEN, WakeProcess, answering, soon


@pytest.fixture
async def process() -> AsyncIterator[WakeProcess]:
    """A process on a memory store, whose receivers do all that they get."""
    opened = WakeProcess(MemoryStore(), FixedClock().clock(), answering(DONE))
    yield opened
    await opened.driver.stop()


def fail_once(target: object, name: str, error: Exception) -> None:
    """Let the next call of an asynchronous method fail."""
    method = getattr(target, name)

    async def fail(*_arguments: object, **_named: object) -> Any:  # noqa: ANN401  as the method
        setattr(target, name, method)
        raise error

    setattr(target, name, fail)


@pytest.mark.parametrize("method", ["get", "replace"])
async def test_look_that_the_store_fails_is_made_again(process: WakeProcess, method: str) -> None:
    """Without another append."""
    await process.create(webhook())
    await process.run()
    fail_once(process.store.subscriptions, method, StoreUnavailable())
    await process.append("events/a")
    await soon(lambda: len(process.receivers.bodies) == 1)


async def test_outcome_that_cannot_be_stored_is_asked_for_again(process: WakeProcess) -> None:
    """The same wake is sent twice, rather than never."""

    async def answer(_url: str, _body: dict[str, Any]) -> Answer:
        if len(process.receivers.bodies) == 1:
            fail_once(process.store.subscriptions, "replace", StoreUnavailable())
        return DONE

    process.receivers.answer = answer
    await process.create(webhook())
    await process.append("events/a")
    await soon(lambda: len(process.receivers.bodies) == 2)
    await process.run()
    first, second = process.receivers.bodies
    assert first["wake_id"] == second["wake_id"]
    assert process.acked(await process.shown()) == {"events/a": 1}


async def test_bug_of_one_subscription_stops_no_other(process: WakeProcess, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the subscription is looked at again."""
    await process.create(webhook(), "a")
    await process.create(webhook(), "b")
    await process.run()
    fail_once(process.driver, "_is_owned", RuntimeError("a bug"))
    await process.append("events/a")
    await process.run()
    assert "subscription_not_looked_at" in caplog.text
    assert len({body["subscription_id"] for body in process.receivers.bodies}) == 2


async def test_tasks_of_a_process_outlast_failures_of_the_store(process: WakeProcess) -> None:
    """Recovery and the look at what is due are made again."""
    await process.create(webhook())
    await process.run()
    process.store.listen(lambda _name, _before, _after: None)
    await process.append("events/a")
    restarted = WakeProcess(process.store, process.clock, answering(DONE))
    fail_once(process.store.subscriptions, "keys_after", StoreUnavailable())
    fail_once(process.store.subscriptions, "due_after", StoreUnavailable())
    restarted.driver.start()
    await soon(lambda: len(restarted.receivers.bodies) == 1)
    await restarted.driver.settle()
    await restarted.driver.stop()
    restarted.driver.check(SubscriptionKey("__ds/sub-1"))
    assert restarted.driver.busy_count == 0, "a process that stops begins nothing"


async def test_due_subscriptions_are_looked_at_in_time() -> None:
    """By the process's own task, which sleeps until the earliest of them."""
    still = FixedClock()
    process = WakeProcess(MemoryStore(), still.clock(), answering(TAKEN), limits=WakeLimits(look_interval_s=0.0))
    process.driver.start()
    await process.create(webhook(lease_ms=1_000))
    await process.append("events/a")
    await soon(lambda: len(process.receivers.bodies) == 1)
    await process.driver.settle()
    still.time.advance(1_000)
    await soon(lambda: len(process.receivers.bodies) == 2)
    await process.driver.stop()


@pytest.mark.parametrize(
    "error",
    [DeliveryError("refused"), StoreUnavailable(), RuntimeError("a bug")],
    ids=lambda error: type(error).__name__,
)
async def test_any_failure_of_a_webhook_is_retried(process: WakeProcess, error: Exception) -> None:
    """Also a bug of the client."""

    async def fail(_url: str, _body: dict[str, Any]) -> Answer:
        raise error

    process.receivers.answer = fail
    await process.create(webhook())
    await process.append("events/a")
    await process.run()
    shown = await process.shown()
    assert shown.is_failed
    assert shown.failure_count == 1


@pytest.mark.parametrize("error", [StoreUnavailable(), RuntimeError("a bug")], ids=["store", "bug"])
async def test_wake_event_that_cannot_be_appended_is_retried(process: WakeProcess, error: Exception) -> None:
    """As a webhook is."""
    await process.append("wake/pool")
    await process.create(pull_wake())
    head = process.store.head

    async def fail(name: StreamName) -> Any:  # noqa: ANN401  as the method
        if name == "wake/pool":
            raise error
        return await head(name)

    process.store.head = fail  # type: ignore[method-assign]
    await process.append("events/a")
    await process.run()
    assert (await process.shown()).is_failed


async def test_closed_wake_stream_takes_no_event(process: WakeProcess) -> None:
    """The subscription says that it failed."""
    await process.append("wake/pool")
    name = StreamName("wake/pool")
    await process.store.apply(name, plan_close(Close(name=name), process.clock.now_ms()))
    await process.create(pull_wake())
    await process.append("events/a")
    await process.run()
    assert (await process.shown()).is_failed


async def refused(call: Callable[[], Any]) -> ErrorCode:
    """The code of the error of a call."""
    with pytest.raises(RequestError) as caught:
        await call()
    return caught.value.code


async def test_subscriptions_of_a_project_are_bounded(process: WakeProcess) -> None:
    """Another project has its own bound."""
    for number in range(SUBSCRIPTIONS_PER_PROJECT_MAX):
        process.ledger.catalog.watch(SubscriptionKey(f"__ds/{number}"), "", ["x"])
    code = await refused(lambda: process.create(webhook(), "one-more"))
    assert code is ErrorCode.TOO_MANY_SUBSCRIPTIONS
    await process.create(webhook(), "mine", Place("demo/", 1))


async def test_links_of_a_subscription_are_bounded(process: WakeProcess, caplog: pytest.LogCaptureFixture) -> None:
    """At its creation, when streams are added, and when one is created that the pattern matches."""
    paths = [path(f"x/{number}") for number in range(LINKS_PER_SUBSCRIPTION_MAX)]
    await process.create(webhook(streams=tuple(paths)))
    code = await refused(lambda: process.service.add_streams(Place("", 0), "sub-1", [path("one/more")]))
    assert code is ErrorCode.TOO_MANY_LINKS
    await process.append("events/new")
    await process.run()
    assert "subscription_full" in caplog.text
    assert process.receivers.bodies == []
    many = webhook(pattern="*/*", streams=tuple(paths))
    assert await refused(lambda: process.create(many, "many")) is ErrorCode.TOO_MANY_LINKS


async def test_wake_token_ends_after_a_day(process: WakeProcess) -> None:
    """However often the lease was extended."""
    still = FixedClock()
    process = WakeProcess(MemoryStore(), still.clock(), answering(TAKEN))
    await process.create(webhook())
    await process.append("events/a")
    await process.run()
    [wake] = process.receivers.bodies
    still.time.advance(WAKE_TOKEN_MS_MAX)
    assert await refused(lambda: process.acknowledge(wake)) is ErrorCode.WAKE_TOKEN_EXPIRED
    garbled = {**wake, "callback_token": "x" * 5_000}
    assert await refused(lambda: process.acknowledge(garbled)) is ErrorCode.WAKE_TOKEN_INVALID
    await process.driver.stop()


async def test_creation_of_a_former_owner_is_replaced(process: WakeProcess) -> None:
    """Its tokens and cursors end with it."""
    former = await process.create(webhook(), place=Place("demo/", 1))
    later = await process.create(pull_wake(), place=Place("demo/", 2))
    assert (later.owner, later.incarnation != former.incarnation) == (2, True)
    await process.service.delete(Place("demo/", 3), "sub-1")


async def test_creations_at_the_same_time_make_one_subscription(tmp_path: Path) -> None:
    """The other calls confirm it."""
    async with sqlite_rig(tmp_path / "data") as rig:
        process = WakeProcess(rig.store, rig.still.clock(), answering(DONE))
        made = await asyncio.gather(*(process.service.create(Place("", 0), "same", webhook()) for _ in range(5)))
        assert sorted(one.is_new for one in made) == [False] * 4 + [True]
        assert len({one.subscription.incarnation for one in made}) == 1
        await process.driver.stop()


async def test_failed_creation_leaves_nothing(process: WakeProcess) -> None:
    """Not in the index, either."""
    code = await refused(lambda: process.create(webhook(webhook_url="https://10.0.0.1/")))
    assert code is ErrorCode.WEBHOOK_URL_REJECTED
    fail_once(process.store, "heads", StoreUnavailable())
    with pytest.raises(StoreUnavailable):
        await process.create(webhook())
    assert len(process.ledger.catalog) == 0


async def test_change_that_always_comes_second_is_given_up(process: WakeProcess) -> None:
    """As a store that is busy."""
    created = await process.create(webhook())

    async def lose(before: Subscription, after: Subscription) -> bool:
        assert after.version == before.version + 1
        return False

    process.store.subscriptions.replace = lose  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        await process.service.add_streams(Place("", 0), created.id, [path("a")])


def test_targets_are_told_apart_by_scheme_host_and_port() -> None:
    """A malformed URL is one of its own."""
    assert target_of("https://a.example/x") == target_of("https://A.example/y") != target_of("https://a.example:444/")
    assert target_of("https://[x") == "https://[x"
