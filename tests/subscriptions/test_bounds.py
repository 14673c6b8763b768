"""What subscriptions keep in memory, and in one transaction, has a bound."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from fluvial.model.errors import StoreUnavailable
from fluvial.model.limits import LINKS_PER_SUBSCRIPTION_MAX
from fluvial.model.names import StreamName
from fluvial.storage.sqlite import subscriptions as sqlite_subscriptions
from fluvial.subscriptions import catalog as catalogs
from fluvial.subscriptions.catalog import Catalog
from fluvial.subscriptions.ledger import Ledger
from tests.support.rigs import memory_rig, sqlite_rig
from tests.support.subscriptions import glob_link, path, subscription


def test_matches_weigh_by_their_subscriptions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that ten thousand subscriptions match are remembered more briefly."""
    monkeypatch.setattr(catalogs, "MATCHES_WEIGHT_MAX", 12)
    catalog = Catalog()
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


async def test_changes_that_wait_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are told that the store is busy."""
    monkeypatch.setattr(sqlite_subscriptions, "WAITING_CHANGES_MAX", 2)
    async with sqlite_rig(tmp_path / "data") as rig:
        adds = [rig.store.subscriptions.add(subscription(id=f"sub-{number}")) for number in range(3)]
        assert [type(result) for result in await asyncio.gather(*adds, return_exceptions=True)] == [
            bool,
            bool,
            StoreUnavailable,
        ]


async def test_rows_of_a_transaction_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of many links is written alone, and not by the event loop."""
    monkeypatch.setattr(sqlite_subscriptions, "ROWS_PER_TRANSACTION_MAX", 4)
    monkeypatch.setattr(sqlite_subscriptions, "INLINE_ROWS_MAX", 4)
    async with sqlite_rig(tmp_path / "data") as rig:
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
        assert await asyncio.gather(*(rig.store.subscriptions.add(one) for one in made)) == [True] * 3
        assert submitted == ["rows", "any", "rows"]
