"""What subscriptions keep in memory, and in one transaction, has a bound."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from fluvial.model.errors import StoreUnavailable
from fluvial.model.limits import LINKS_PER_SUBSCRIPTION_MAX
from fluvial.model.names import StreamName
from fluvial.storage.sqlite.subscriptions import ChangeLimits, SqliteSubscriptions
from fluvial.subscriptions.catalog import Catalog
from fluvial.subscriptions.ledger import Ledger
from tests.support.rigs import SqliteRig, memory_rig, sqlite_rig
from tests.support.subscriptions import glob_link, path, subscription


def limited(rig: SqliteRig, limits: ChangeLimits) -> SqliteSubscriptions:
    """Subscriptions in the rig's database, with other limits."""
    stored = rig.store.subscriptions
    assert isinstance(stored, SqliteSubscriptions)
    return SqliteSubscriptions(stored._reader, rig.store._group_commit, limits)


def test_matches_weigh_by_their_subscriptions() -> None:
    """Names that ten thousand subscriptions match are remembered more briefly."""
    catalog = Catalog(matches_weight_max=12)
    for number in range(3):
        catalog.put(subscription(id=f"sub-{number}"))
    for number in range(4):
        assert len(catalog.find(StreamName(f"events/{number}"))) == 3
    assert len(catalog._matches) == 1


async def test_new_streams_of_a_subscription_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """It has no room for more links; the latest are kept, because older ones may be gone."""
    async with memory_rig(Path()) as rig:
        ledger, key = Ledger(rig.store, rig.still.clock()), subscription().key
        for number in range(2 * LINKS_PER_SUBSCRIPTION_MAX):
            ledger.note_new(key, path(f"events/{number}"))
    noted = list(ledger.new_paths[key])
    assert len(noted) == LINKS_PER_SUBSCRIPTION_MAX
    assert noted[-1] == f"events/{2 * LINKS_PER_SUBSCRIPTION_MAX - 1}"
    assert "subscription_full" in caplog.text


async def test_changes_that_wait_are_bounded(tmp_path: Path) -> None:
    """The others are told that the store is busy."""
    async with sqlite_rig(tmp_path / "data") as rig:
        stored = limited(rig, ChangeLimits(waiting_changes=2))
        adds = [stored.add(subscription(id=f"sub-{number}")) for number in range(3)]
        assert [type(result) for result in await asyncio.gather(*adds, return_exceptions=True)] == [
            bool,
            bool,
            StoreUnavailable,
        ]


async def test_rows_of_a_transaction_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of many links is written alone, and not by the event loop."""
    async with sqlite_rig(tmp_path / "data") as rig:
        stored = limited(rig, ChangeLimits(rows_per_transaction=4, inline_rows=4))
        group_commit, submitted = rig.store._group_commit, list[str]()
        submit_rows, submit_work = group_commit.submit_rows, group_commit.submit_work

        def rows(work: Callable[[sqlite3.Connection], None]) -> asyncio.Future[None]:
            submitted.append("rows")
            return submit_rows(work)

        def any_size(work: Callable[[sqlite3.Connection], None]) -> asyncio.Future[None]:
            submitted.append("any")
            return submit_work(work)

        monkeypatch.setattr(group_commit, "submit_rows", rows)
        monkeypatch.setattr(group_commit, "submit_work", any_size)
        links = {path(f"events/{number}"): glob_link(1) for number in range(9)}
        made = [subscription(id="small-1"), subscription(id="large", links=links), subscription(id="small-2")]
        assert await asyncio.gather(*(stored.add(one) for one in made)) == [True] * 3
        assert submitted == ["rows", "any", "rows"]
