"""The answers to commits when SQLite itself fails, through a connection that fails on demand."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fluvial.model.commit import Applied
from fluvial.model.errors import StoreUnavailable, StoreUncertain
from fluvial.storage.limits import StoreLimits
from fluvial.storage.sqlite.transaction_writer import INLINE_BYTES_MAX
from fluvial.wire.response import store_error_response
from tests.support.commands import NAME, append_commit, create_commit
from tests.support.rigs import SqliteRig, sqlite_rig


@dataclass
class FailingConnection:
    """A connection that fails once for each text in `failing`, at the next statement that contains it."""

    inner: sqlite3.Connection
    failing: list[str] = field(default_factory=list)
    error: sqlite3.Error = field(default_factory=lambda: with_io_code(sqlite3.OperationalError("disk I/O error")))

    def execute(self, statement: str, *parameters: object) -> sqlite3.Cursor:
        """Execute, or fail."""
        self._fail(statement)
        return self.inner.execute(statement, *parameters)  # type: ignore[arg-type]

    def executemany(self, statement: str, rows: object) -> sqlite3.Cursor:
        """Execute, or fail."""
        self._fail(statement)
        return self.inner.executemany(statement, rows)  # type: ignore[arg-type]

    @property
    def in_transaction(self) -> bool:
        """Whether the inner connection is in a transaction."""
        return self.inner.in_transaction

    def _fail(self, statement: str) -> None:
        for text in tuple(self.failing):
            if text in statement:
                self.failing.remove(text)
                raise self.error


def with_io_code(error: sqlite3.Error) -> sqlite3.Error:
    """The error with the code of an I/O error."""
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    return error


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[SqliteRig]:
    """A SQLite store with one stream."""
    async with sqlite_rig(tmp_path / "data") as opened:
        await opened.store.apply(NAME, create_commit(body=b"kept"))
        yield opened


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[SqliteRig]:
    """The same with tiny limits: 3 bytes in a group, 10 bytes in the queue, and no background job."""
    limits = StoreLimits(group_bytes_max=3, pending_bytes_max=10, pending_work_max=0)
    async with sqlite_rig(tmp_path / "small", limits) as opened:
        await opened.store.apply(NAME, create_commit(body=b"kept"))
        yield opened


def let_fail(rig: SqliteRig, *texts: str) -> None:
    """Let the writer's next statement that contains a text fail, for each text."""
    rig.wrap_connection(lambda connection: FailingConnection(connection, list(texts)))


async def bytes_after_restart(rig: SqliteRig) -> bytes:
    """The stream's bytes after a restart."""
    await rig.reopen()
    head = await rig.store.head(NAME)
    assert head is not None
    return (await rig.store.read(NAME, head, 0, 10_000_000)).data


@pytest.mark.parametrize("size", [1, INLINE_BYTES_MAX + 1], ids=["small", "large"])
@pytest.mark.parametrize("statement", ["BEGIN", "INSERT INTO hot_run", "UPDATE", "COMMIT"])
async def test_failed_statement_writes_nothing_and_the_next_commit_is_applied(
    rig: SqliteRig, statement: str, size: int
) -> None:
    """Whichever statement of the transaction fails, on the loop or on the thread."""
    let_fail(rig, statement)
    with pytest.raises(StoreUnavailable) as failed:
        await rig.store.apply(NAME, append_commit(b"x" * size, stream_seq="1"))
    assert store_error_response(failed.value).status == 503
    assert isinstance(await rig.store.apply(NAME, append_commit(b"next")), Applied)
    assert await bytes_after_restart(rig) == b"keptnext"


@pytest.mark.parametrize("statement", ["BEGIN", "INSERT INTO hot_run", "COMMIT"])
async def test_commit_is_answered_when_the_database_is_damaged(rig: SqliteRig, statement: str) -> None:
    """Then SQLite raises an error of another class, which may have no code."""
    damage = sqlite3.DatabaseError("malformed")
    rig.wrap_connection(lambda connection: FailingConnection(connection, [statement], damage))
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(rig.store.apply(NAME, append_commit(b"lost")), 10)
    assert isinstance(await rig.store.apply(NAME, append_commit(b"next")), Applied)
    assert await bytes_after_restart(rig) == b"keptnext"


async def test_durable_commit_is_answered_when_a_step_after_it_fails(
    rig: SqliteRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example the update of the caches."""

    def fail(_changes: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(rig.store._group_commit, "_on_durable", fail)
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    first = rig.store._group_commit.submit(NAME, append_commit(b"1"), 1)
    assert isinstance(await asyncio.wait_for(first, 10), Applied)


async def test_queue_of_background_jobs_is_bounded(small: SqliteRig) -> None:
    """A job past the limit is not accepted."""
    with pytest.raises(StoreUnavailable):
        small.store._group_commit.submit_work(lambda _connection: None)


async def test_failed_commit_that_cannot_be_overwritten_is_uncertain(rig: SqliteRig) -> None:
    """A restart may find it or not; the server goes on as if it were not there."""
    let_fail(rig, "COMMIT", "PRAGMA user_version")
    with pytest.raises(StoreUncertain) as failed:
        await rig.store.apply(NAME, append_commit(b"lost"))
    assert b"store_uncertain" in store_error_response(failed.value).body
    assert isinstance(await rig.store.apply(NAME, append_commit(b"next")), Applied)
    assert await bytes_after_restart(rig) == b"keptnext"


async def test_commit_is_answered_when_its_rollback_fails(rig: SqliteRig) -> None:
    """And the next commit is applied, once the connection can roll back."""
    let_fail(rig, "INSERT", "ROLLBACK")
    with pytest.raises(StoreUnavailable):
        await rig.store.apply(NAME, append_commit(b"lost"))
    rig.store._writer.execute("ROLLBACK")
    assert isinstance(await rig.store.apply(NAME, append_commit(b"next")), Applied)


async def test_queue_of_commits_is_bounded(small: SqliteRig) -> None:
    """A commit past the limit raises StoreUnavailable at once; the others are applied."""
    first = small.store._group_commit.submit(NAME, append_commit(b"x" * 10), 10)
    with pytest.raises(StoreUnavailable):
        small.store._group_commit.submit(NAME, append_commit(b"y"), 1)
    assert isinstance(await first, Applied)


async def test_group_is_bounded(small: SqliteRig) -> None:
    """Commits that do not fit are in the next groups, in the same order."""
    answers = [small.store._group_commit.submit(NAME, append_commit(b"%d," % number), 2) for number in range(5)]
    for answer in answers:
        assert isinstance(await answer, Applied)
    assert await bytes_after_restart(small) == b"kept0,1,2,3,4,"
