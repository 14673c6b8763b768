"""The order within a group, which one process can promise and several cannot; and what its fsyncs cost others."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fluvial.model.commit import Applied, Open, Unmet
from fluvial.model.errors import StoreUnavailable
from fluvial.model.head import Incarnation
from fluvial.storage.sqlite.checkpoints import LOG_BYTES_MAX, copy_log
from fluvial.storage.sqlite.commit_times import FAST_S_MAX, CommitTimes
from fluvial.storage.sqlite.group import PRODUCERS_KEPT_MAX
from fluvial.storage.sqlite.projects import LOG_BYTES_MAX as PROJECTS_LOG_BYTES_MAX
from fluvial.storage.sqlite.projects import SqliteProjects
from tests.support.clocks import START_MS
from tests.support.commands import NAME, append_commit, close_commit, create_commit, delete_commit, stamp
from tests.support.rigs import SqliteRig, eventually, sqlite_rig

BATCH = b"x" * 200_000


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[SqliteRig]:
    """A SQLite store."""
    async with sqlite_rig(tmp_path / "data") as opened:
        yield opened


@dataclass
class WatchedConnection:
    """A connection that notes which thread carries out which statements."""

    inner: sqlite3.Connection
    threads: dict[str, set[str]] = field(default_factory=dict)

    def execute(self, statement: str, *parameters: object) -> sqlite3.Cursor:
        """Run it."""
        self.threads.setdefault(statement, set()).add(threading.current_thread().name)
        return self.inner.execute(statement, *parameters)  # type: ignore[arg-type]

    def executemany(self, statement: str, rows: object) -> sqlite3.Cursor:
        """Run it."""
        return self.inner.executemany(statement, rows)  # type: ignore[arg-type]

    @property
    def in_transaction(self) -> bool:
        """As the inner one says."""
        return self.inner.in_transaction


def log_bytes(rig: SqliteRig) -> int:
    """The size of the write-ahead log's file."""
    return (rig.folder / "fluvial.db-wal").stat().st_size


async def test_commits_of_a_group_land_in_the_order_of_their_calls(rig: SqliteRig) -> None:
    """Also those of different writers."""
    await rig.store.apply(NAME, create_commit())
    batches = [b"%03d," % number for number in range(200)]
    await asyncio.gather(*(rig.store.apply(NAME, append_commit(batch)) for batch in batches))
    assert rig.raw_bytes(Incarnation(1)) == b"".join(batches)


async def test_a_life_of_one_group_is_before_the_next_one_after_a_restart(rig: SqliteRig) -> None:
    """Its writer has a token of it, which must not sort after the next life's, though the clock was set back."""
    begun, ended = await asyncio.gather(rig.store.apply(NAME, create_commit()), rig.store.apply(NAME, delete_commit()))
    assert isinstance(begun, Applied)
    assert ended == Applied(None)
    await rig.reopen()
    again = await rig.store.apply(NAME, create_commit(2, START_MS - 1_000))
    assert isinstance(again, Applied)
    assert begun.head is not None
    assert again.head is not None
    assert again.head.born_us > begun.head.born_us


async def test_a_refusal_is_judged_on_the_commits_before_it(rig: SqliteRig) -> None:
    """A later commit of the group sees what an earlier one did."""
    await rig.store.apply(NAME, create_commit())
    closed, late = await asyncio.gather(
        rig.store.apply(NAME, close_commit()), rig.store.apply(NAME, append_commit(b"late"))
    )
    assert isinstance(closed, Applied)
    assert isinstance(late, Unmet)
    assert late.requirement == Open()
    assert late.head == closed.head
    assert rig.raw_bytes(Incarnation(1)) == b""


async def test_the_log_is_copied_off_the_loop_and_keeps_its_size(rig: SqliteRig) -> None:
    """Neither a COMMIT nor the event loop waits for the copying; a rotation that reads may put off a new beginning."""
    await rig.store.apply(NAME, create_commit())
    commits, before = rig.store._group_commit, log_bytes(rig)
    watched = WatchedConnection(commits._connection)
    commits._connection = watched  # type: ignore[assignment]
    for _ in range(150):
        await rig.store.apply(NAME, append_commit(BATCH))
    assert watched.threads["PRAGMA wal_checkpoint(PASSIVE)"] == {"fluvial-commit"}
    assert rig.store._writer.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
    assert log_bytes(rig) <= 2 * before, "thirty megabytes were appended"


@pytest.mark.parametrize("writes_go_on", [True, False])
async def test_the_log_shrinks_once_its_reader_has_gone(rig: SqliteRig, *, writes_go_on: bool) -> None:
    """Somebody reads the file for a while, a backup say, and the log must keep what that one sees."""
    await rig.store.apply(NAME, create_commit())
    reader = sqlite3.connect(rig.folder / "fluvial.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM stream").fetchone()
    for _ in range(120):
        await rig.store.apply(NAME, append_commit(BATCH))
    assert log_bytes(rig) > 2 * LOG_BYTES_MAX
    reader.close()
    if writes_go_on:
        for _ in range(60):
            await rig.store.apply(NAME, append_commit(BATCH))
    else:
        timer = rig.store._group_commit._checkpoints._timer
        assert timer is not None, "somebody comes back, though nobody writes"
        rig.store._group_commit._checkpoints._become_due()
        await eventually(lambda: log_bytes(rig) <= LOG_BYTES_MAX, rig.let_pass)
    assert log_bytes(rig) <= LOG_BYTES_MAX


async def test_the_log_of_the_projects_has_a_limit_too(rig: SqliteRig) -> None:
    """`fluvial project` may be looking at the file while a server counts what is appended."""
    projects = rig.store.projects
    assert isinstance(projects, SqliteProjects)
    assert projects._connection.execute("PRAGMA journal_size_limit").fetchone() == (PROJECTS_LOG_BYTES_MAX,)


def test_a_checkpoint_that_fails_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """It is no transaction of anybody's: one line in the log is all."""
    connection = sqlite3.connect(":memory:")
    connection.close()
    assert not copy_log(connection)
    assert "log_not_copied" in caplog.text


def test_one_slow_commit_keeps_the_next_ones_off_the_loop() -> None:
    """A mean would forget it, and the next one that is slow would hold up everybody."""
    times = CommitTimes()
    assert not times.is_fast, "a disk is not known to be fast before it was used"
    for _ in range(1_000):
        times.add(FAST_S_MAX / 5)
    assert times.is_fast
    times.add(FAST_S_MAX * 5)
    for _ in range(150):
        assert not times.is_fast
        times.add(FAST_S_MAX / 5)
    for _ in range(50):
        times.add(FAST_S_MAX / 5)
    assert times.is_fast


async def test_commits_after_the_close_are_refused_at_once(rig: SqliteRig) -> None:
    """Also those of the background, and those that come while the last ones are being written."""
    await rig.store.apply(NAME, create_commit())
    commits = rig.store._group_commit
    before = commits.submit(NAME, append_commit(b"x"), 1)
    closing = asyncio.create_task(commits.close())
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable):
        commits.submit(NAME, append_commit(b"y"), 1)
    with pytest.raises(StoreUnavailable):
        commits.submit_work(lambda _connection: None)
    await closing
    assert isinstance(before.result(), Applied)


async def test_the_producers_that_wrote_last_stay_at_hand(rig: SqliteRig) -> None:
    """Those of a stream's producers that write all the time, though they were its first."""
    await rig.store.apply(NAME, create_commit())
    busy = ["busy-1", "busy-2"]
    for seq in range(PRODUCERS_KEPT_MAX):
        for producer_id in busy:
            await rig.store.apply(NAME, append_commit(producer=stamp(seq=seq, producer_id=producer_id)))
        outcome = await rig.store.apply(NAME, append_commit(producer=stamp(producer_id=f"once-{seq}")))
        assert outcome.head is not None
        head = rig.store._heads[NAME]
        assert head is not None
        assert set(busy) <= set(head.producers)
        assert head.producer_count == seq + 1 + len(busy)
