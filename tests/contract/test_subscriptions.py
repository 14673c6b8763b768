"""The contract of subscription stores, for every store that keeps subscriptions."""

import asyncio
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from msgspec.structs import replace

from fluvial.model.errors import StorageDamaged
from fluvial.model.head import Head
from fluvial.model.names import StreamName
from fluvial.model.offset import Offset
from fluvial.model.subscriptions.state import Link, Phase, Subscription, SubscriptionKey, Wake
from fluvial.storage.sqlite.subscriptions import SqliteSubscriptions
from fluvial.storage.subscriptions import Subscriptions, SubscriptionStore
from tests.care.folders import problems_in
from tests.support.budget import examples
from tests.support.clocks import START_MS
from tests.support.commands import NAME, append_commit, create_commit, delete_commit
from tests.support.rigs import MemoryRig, Rig, SqliteRig, memory_rig, sqlite_rig
from tests.support.subscriptions import at, glob_link, path, pull_wake, subscription, webhook

#: Before every moment.
NEVER = (-1, SubscriptionKey(""))

RIGS: dict[str, Callable[[Path], AbstractAsyncContextManager[Rig]]] = {"memory": memory_rig, "sqlite": sqlite_rig}


@pytest.fixture(params=RIGS)
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    """Each store in turn."""
    async with RIGS[request.param](tmp_path / "data") as opened:
        yield opened


def subscriptions_of(rig: Rig) -> Subscriptions:
    """The subscriptions of the rig's store."""
    assert isinstance(rig.store, SubscriptionStore)
    return rig.store.subscriptions


FULL = subscription(
    webhook(description="all fields", streams=(path("other/x"),)),
    root="demo/",
    owner=7,
    links={path("events/a"): glob_link(5), path("other/x"): Link(at(3, 2**52), is_explicit=True, is_glob=False)},
    generation=4,
    wake=Wake("w_4", Phase.SENT, START_MS + 1_000, {path("events/a"): at(9)}, "worker"),
    failure_count=2,
    retry_at_ms=START_MS + 500,
)


async def test_subscription_is_stored_with_all_fields(rig: Rig) -> None:
    """Also over a restart, if the store has one."""
    assert await subscriptions_of(rig).get(FULL.key) is None
    assert await subscriptions_of(rig).add(FULL)
    if not isinstance(rig, MemoryRig):
        await rig.reopen()
    assert await subscriptions_of(rig).get(FULL.key) == FULL


async def test_a_key_is_taken_once(rig: Rig) -> None:
    """Of two creations one is made."""
    stored = subscriptions_of(rig)
    made = await asyncio.gather(stored.add(FULL), stored.add(replace(FULL, incarnation=2)))
    assert sorted(made) == [False, True]


async def test_only_one_of_two_changes_of_a_version_is_made(rig: Rig) -> None:
    """The other changes nothing, not even a link."""
    stored, first = subscriptions_of(rig), FULL
    await stored.add(first)
    one = replace(first, version=2, generation=5, links={path("events/a"): glob_link(7)})
    other = replace(first, version=2, generation=5, wake=None, links={path("events/b"): glob_link(1)})
    made = tuple(await asyncio.gather(stored.replace(first, one), stored.replace(first, other)))
    assert made == (True, False)
    if not isinstance(rig, MemoryRig):
        await rig.reopen()
    assert await subscriptions_of(rig).get(FULL.key) == one


async def test_former_incarnation_changes_and_deletes_nothing(rig: Rig) -> None:
    """Although the versions are equal."""
    stored, former = subscriptions_of(rig), FULL
    await stored.add(former)
    assert await stored.remove(former)
    assert not await stored.remove(former)
    assert not await stored.replace(former, replace(former, version=2))
    assert await stored.get(former.key) is None
    now = replace(FULL, incarnation=2, links={})
    assert await stored.add(now)
    assert not await stored.replace(former, replace(former, version=2))
    assert not await stored.remove(former)
    assert await stored.get(now.key) == now


async def test_deleted_subscription_leaves_nothing(rig: Rig) -> None:
    """In whatever version it was deleted."""
    await subscriptions_of(rig).add(FULL)
    await subscriptions_of(rig).replace(FULL, replace(FULL, version=2))
    assert await subscriptions_of(rig).remove(FULL)
    assert await subscriptions_of(rig).due_after(NEVER, 1) == []
    if isinstance(rig, SqliteRig):
        assert rig.query("SELECT * FROM subscription") == rig.query("SELECT * FROM subscription_link") == []


async def test_subscriptions_are_listed_by_key_in_pages(rig: Rig) -> None:
    """Of one stream root, or of all."""
    stored = subscriptions_of(rig)
    made = [subscription(pull_wake(), root=root, id=name) for root in ("", "a/", "b/") for name in "xyz"]
    for one in made:
        await stored.add(one)
    keys = sorted(one.key for one in made)

    async def listed(root: str, after: str, count_max: int) -> list[SubscriptionKey]:
        return [one.key for one in await stored.list_after(root, after, count_max)]

    assert await listed("", "", 100) == keys
    assert await listed("", keys[4], 2) == keys[5:7]
    assert await listed("a/__ds/", "", 2) == ["a/__ds/x", "a/__ds/y"]
    assert await listed("a/__ds/", "a/__ds/y", 2) == ["a/__ds/z"]
    assert await listed("__ds/", "", 9) == ["__ds/x", "__ds/y", "__ds/z"]


async def test_due_subscriptions_come_in_the_order_of_their_times(rig: Rig) -> None:
    """One that is idle is never due."""
    stored = subscriptions_of(rig)
    moments = {"a": START_MS + 30, "b": START_MS + 10, "c": START_MS + 20, "d": None}
    for name, moment in moments.items():
        await stored.add(subscription(id=name, retry_at_ms=moment))
    [b, c, a] = await stored.due_after(NEVER, 10)
    assert (b, c, a) == ((START_MS + 10, "__ds/b"), (START_MS + 20, "__ds/c"), (START_MS + 30, "__ds/a"))
    assert await stored.due_after(NEVER, 2) == [b, c]
    assert await stored.due_after(b, 2) == [c, a]
    assert await stored.due_after((START_MS + 20, SubscriptionKey("")), 2) == [c, a]
    first = await stored.get(SubscriptionKey("__ds/b"))
    assert first is not None
    await stored.replace(first, replace(first, version=2, retry_at_ms=None))
    assert await stored.due_after(NEVER, 10) == [c, a]


async def test_listener_is_told_of_each_change_once_it_is_visible(rig: Rig) -> None:
    """What was before, and what is now; a refused commit tells nothing."""
    told = list[tuple[StreamName, int | None, int | None]]()

    def listen(name: StreamName, before: Head | None, after: Head | None) -> None:
        told.append((name, None if before is None else before.tail, None if after is None else after.tail))

    assert isinstance(rig.store, SubscriptionStore)
    rig.store.listen(listen)
    await rig.store.apply(NAME, append_commit())
    assert told == []
    await rig.store.apply(NAME, create_commit(body=b"ab"))
    await rig.store.apply(NAME, append_commit(b"c"))
    await rig.store.apply(NAME, delete_commit())
    assert told == [(NAME, None, 2), (NAME, 2, 3), (NAME, 3, None)]


links = st.dictionaries(
    st.sampled_from([path("a"), path("b"), path("c/d")]),
    st.builds(Link, st.builds(Offset, st.integers(0, 2**53), st.integers(0, 10**15)), st.booleans(), st.booleans()),
)


@pytest.mark.medium
@given(history=st.lists(st.tuples(links, st.booleans()), min_size=1, max_size=6))
@examples(25, suppress_health_check=[HealthCheck.too_slow])
def test_any_history_of_links_survives_a_restart(history: list[tuple[dict[str, Link], bool]]) -> None:
    """Links are rows of their own in SQLite, of which a change writes those that differ."""

    async def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with sqlite_rig(Path(folder) / "data") as rig:
                known: Subscription = subscription()
                await subscriptions_of(rig).add(known)
                for number, (changed, restarts) in enumerate(history, 2):
                    after = replace(known, version=number, links=changed)
                    assert await subscriptions_of(rig).replace(known, after)
                    known = after
                    if restarts:
                        await rig.reopen()
                    assert await subscriptions_of(rig).get(known.key) == known

    asyncio.run(run())


async def test_damaged_row_is_found(tmp_path: Path) -> None:
    """A bit that flips on the disk wakes no worker for the wrong stream."""
    async with sqlite_rig(tmp_path / "data") as rig:
        await subscriptions_of(rig).add(FULL)
        await rig.reopen()

        def flip(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE subscription_link SET acked_position = 77")

        await rig.store._group_commit.submit_work(flip)
        assert any("a row of subscription_link" in line for line in problems_in(tmp_path / "data"))
        with pytest.raises(StorageDamaged):
            await subscriptions_of(rig).get(FULL.key)
        sound = [subscription(id=f"sound-{number}") for number in range(2)]
        for one in sound:
            await subscriptions_of(rig).add(one)
        assert await subscriptions_of(rig).list_after("", "", 2) == sound
        assert FULL.key in await subscriptions_of(rig).keys_after("", "", 3)


async def test_cache_that_is_wrong_is_not_believed_again(tmp_path: Path) -> None:
    """A change whose condition fails reads what is stored."""
    async with sqlite_rig(tmp_path / "data") as rig:
        stored = rig.store.subscriptions
        assert isinstance(stored, SqliteSubscriptions)
        known = subscription()
        await stored.add(known)
        stored._cache[known.key] = wrong = replace(known, version=9)
        assert not await stored.replace(wrong, replace(wrong, version=10))
        assert await stored.get(known.key) == known


async def test_sound_rows_are_verified(tmp_path: Path) -> None:
    """And a link whose subscription is gone is a problem."""
    async with sqlite_rig(tmp_path / "data") as rig:
        await subscriptions_of(rig).add(FULL)
        assert problems_in(tmp_path / "data") == []

        def lose(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM subscription")

        await rig.store._group_commit.submit_work(lose)
        assert any("belongs to no subscription" in line for line in problems_in(tmp_path / "data"))
