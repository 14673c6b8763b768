"""Group commit on SQLite: the order of commits, checkpoints, and COMMITs on the event loop."""

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
from fluvial.storage.sqlite.group_changes import PRODUCERS_KEPT_MAX
from fluvial.storage.sqlite.projects import SqliteProjects
from fluvial.storage.sqlite.projects_database import LOG_BYTES_MAX as PROJECTS_LOG_BYTES_MAX
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
    """A connection that records which threads execute which statements."""

    inner: sqlite3.Connection
    threads: dict[str, set[str]] = field(default_factory=dict)

    def execute(self, statement: str, *parameters: object) -> sqlite3.Cursor:
        """Record the thread, and execute."""
        self.threads.setdefault(statement, set()).add(threading.current_thread().name)
        return self.inner.execute(statement, *parameters)  # type: ignore[arg-type]

    def executemany(self, statement: str, rows: object) -> sqlite3.Cursor:
        """Execute."""
        return self.inner.executemany(statement, rows)  # type: ignore[arg-type]

    @property
    def in_transaction(self) -> bool:
        """Whether the inner connection is in a transaction."""
        return self.inner.in_transaction


def wal_bytes(rig: SqliteRig) -> int:
    """The size of the write-ahead log's file."""
    return (rig.folder / "fluvial.db-wal").stat().st_size


async def test_group_applies_commits_in_the_order_of_their_calls(rig: SqliteRig) -> None:
    """Commits of different writers, too: one process can promise that, several cannot."""
    await rig.store.apply(NAME, create_commit())
    batches = [b"%03d," % number for number in range(200)]
    await asyncio.gather(*(rig.store.apply(NAME, append_commit(batch)) for batch in batches))
    assert rig.raw_bytes(Incarnation(1)) == b"".join(batches)


async def test_next_incarnation_is_born_later_when_one_group_created_and_deleted_the_last(rig: SqliteRig) -> None:
    """After a restart and with the clock set back: a client's token of the first must not sort after the second's."""
    created, deleted = await asyncio.gather(
        rig.store.apply(NAME, create_commit()), rig.store.apply(NAME, delete_commit())
    )
    assert isinstance(created, Applied)
    assert deleted == Applied(None)
    await rig.reopen()
    created_again = await rig.store.apply(NAME, create_commit(2, START_MS - 1_000))
    assert isinstance(created_again, Applied)
    assert created.head is not None
    assert created_again.head is not None
    assert created_again.head.born_us > created.head.born_us


async def test_commit_is_evaluated_on_earlier_commits_of_its_group(rig: SqliteRig) -> None:
    """An append after a close in the same group is rejected."""
    await rig.store.apply(NAME, create_commit())
    closed, late = await asyncio.gather(
        rig.store.apply(NAME, close_commit()), rig.store.apply(NAME, append_commit(b"late"))
    )
    assert isinstance(closed, Applied)
    assert isinstance(late, Unmet)
    assert late.requirement == Open()
    assert late.head == closed.head
    assert rig.raw_bytes(Incarnation(1)) == b""


async def test_checkpoints_run_on_the_commit_thread_and_bound_the_log(rig: SqliteRig) -> None:
    """No COMMIT and no event loop waits for the copying. The log may double, when a rotation reads meanwhile."""
    await rig.store.apply(NAME, create_commit())
    before, watched = wal_bytes(rig), rig.wrap_connection(WatchedConnection)
    for _ in range(150):
        await rig.store.apply(NAME, append_commit(BATCH))
    assert watched.threads["PRAGMA wal_checkpoint(PASSIVE)"] == {"fluvial-commit"}
    assert rig.store._writer.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
    assert wal_bytes(rig) <= 2 * before, "thirty megabytes were appended"


@pytest.mark.parametrize("writes_go_on", [True, False])
async def test_log_shrinks_after_a_long_read_ends(rig: SqliteRig, *, writes_go_on: bool) -> None:
    """While another process reads the file, a backup for example, the log keeps what that process sees."""
    await rig.store.apply(NAME, create_commit())
    reader = sqlite3.connect(rig.folder / "fluvial.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM stream").fetchone()
    for _ in range(120):
        await rig.store.apply(NAME, append_commit(BATCH))
    assert wal_bytes(rig) > 2 * LOG_BYTES_MAX
    reader.close()
    if writes_go_on:
        for _ in range(60):
            await rig.store.apply(NAME, append_commit(BATCH))
    else:
        checkpoints = rig.store._group_commit._checkpoints
        # A checkpoint may be under way, as the last append or a rotation made it due. It sets the timer at its end.
        await eventually(lambda: checkpoints._timer is not None, rig.let_pass)
        checkpoints._mark_due()
        await eventually(lambda: wal_bytes(rig) <= LOG_BYTES_MAX, rig.let_pass)
    assert wal_bytes(rig) <= LOG_BYTES_MAX


async def test_log_of_the_projects_database_has_a_size_limit(rig: SqliteRig) -> None:
    """`fluvial project` may read the file while a server counts appended bytes in it."""
    projects = rig.store.projects
    assert isinstance(projects, SqliteProjects)
    assert projects._database._connection.execute("PRAGMA journal_size_limit").fetchone() == (PROJECTS_LOG_BYTES_MAX,)


def test_failed_checkpoint_is_incomplete_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    """It raises nothing, because no caller waits for it."""
    connection = sqlite3.connect(":memory:")
    connection.close()
    assert not copy_log(connection)
    assert "log_not_copied" in caplog.text


def test_one_slow_commit_keeps_150_commits_off_the_loop() -> None:
    """A mean would hide it, and the next slow COMMIT would hold up every request."""
    times = CommitTimes()
    assert not times.is_fast, "an unknown disk counts as slow"
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


async def test_closing_group_commit_raises_unavailable_for_new_commits_and_jobs(rig: SqliteRig) -> None:
    """Also while it still writes the commits from before the close."""
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


async def test_cached_head_keeps_the_producers_that_wrote_last(rig: SqliteRig) -> None:
    """Two busy producers stay in it, although they are the stream's first of many."""
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
