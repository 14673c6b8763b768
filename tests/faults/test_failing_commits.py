"""What a writer is told when SQLite itself fails, through a connection that fails on demand."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fluvial.model.commit import Applied
from fluvial.model.errors import StoreUnavailable, StoreUncertain
from fluvial.storage.limits import StoreLimits
from fluvial.storage.sqlite.group_commit import INLINE_BYTES_MAX
from fluvial.wire.response import store_error_response
from tests.support.commands import NAME, append_commit, create_commit
from tests.support.rigs import SqliteRig, sqlite_rig


@dataclass
class FailingConnection:
    """A connection whose next statements of some kinds fail, once each, with an I/O error unless told otherwise."""

    inner: sqlite3.Connection
    failing: list[str] = field(default_factory=list)
    error: sqlite3.Error = field(default_factory=lambda: coded(sqlite3.OperationalError("disk I/O error")))

    def execute(self, statement: str, *parameters: object) -> sqlite3.Cursor:
        """Run it, or fail."""
        self._fail(statement)
        return self.inner.execute(statement, *parameters)  # type: ignore[arg-type]

    def executemany(self, statement: str, rows: object) -> sqlite3.Cursor:
        """Run it, or fail."""
        self._fail(statement)
        return self.inner.executemany(statement, rows)  # type: ignore[arg-type]

    @property
    def in_transaction(self) -> bool:
        """As the inner one says."""
        return self.inner.in_transaction

    def _fail(self, statement: str) -> None:
        for prefix in tuple(self.failing):
            if prefix in statement:
                self.failing.remove(prefix)
                raise self.error


def coded(error: sqlite3.Error) -> sqlite3.Error:
    """With the code of an I/O error."""
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
    """The same, with room for next to nothing in a group or in what waits."""
    limits = StoreLimits(group_bytes_max=3, pending_bytes_max=10, pending_work_max=0)
    async with sqlite_rig(tmp_path / "small", limits) as opened:
        await opened.store.apply(NAME, create_commit(body=b"kept"))
        yield opened


def failing(rig: SqliteRig, *prefixes: str) -> None:
    """Let the writer's next statements of these kinds fail."""
    commits = rig.store._group_commit
    commits._connection = FailingConnection(commits._connection, list(prefixes))  # type: ignore[assignment]


async def bytes_after_restart(rig: SqliteRig) -> bytes:
    """What is there, once the folder was opened anew."""
    await rig.reopen()
    head = await rig.store.head(NAME)
    assert head is not None
    return (await rig.store.read(NAME, head, 0, 10_000_000)).data


@pytest.mark.parametrize("size", [1, INLINE_BYTES_MAX + 1], ids=["small", "large"])
@pytest.mark.parametrize("statement", ["BEGIN", "INSERT INTO hot_run", "UPDATE", "COMMIT"])
async def test_a_failed_statement_writes_nothing_and_the_next_commit_lands(
    rig: SqliteRig, statement: str, size: int
) -> None:
    """Wherever in the transaction it fails, on the loop or on the thread."""
    failing(rig, statement)
    with pytest.raises(StoreUnavailable) as failed:
        await rig.store.apply(NAME, append_commit(b"x" * size, stream_seq="1"))
    assert store_error_response(failed.value).status == 503
    assert isinstance(await rig.store.apply(NAME, append_commit(b"next")), Applied)
    assert await bytes_after_restart(rig) == b"keptnext"


@pytest.mark.parametrize("statement", ["BEGIN", "INSERT INTO hot_run", "COMMIT"])
async def test_a_damaged_database_keeps_nobody_waiting(rig: SqliteRig, statement: str) -> None:
    """SQLite tells of it by an error of another kind, and Python's own ones have no code."""
    commits = rig.store._group_commit
    damaged = FailingConnection(commits._connection, [statement], sqlite3.DatabaseError("malformed"))
    commits._connection = damaged  # type: ignore[assignment]
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(rig.store.apply(NAME, append_commit(b"lost")), 10)
    assert isinstance(await rig.store.apply(NAME, append_commit(b"next")), Applied)
    assert await bytes_after_restart(rig) == b"keptnext"


async def test_what_is_durable_is_answered_whatever_fails_after_it(
    rig: SqliteRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the next commit has its turn."""

    def failing_to_remember(_group: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(rig.store._group_commit, "_landed", failing_to_remember)
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    first = rig.store._group_commit.submit(NAME, append_commit(b"1"), 1)
    assert isinstance(await asyncio.wait_for(first, 10), Applied)


async def test_the_background_has_a_bound(small: SqliteRig) -> None:
    """Past it whoever asks is refused at once."""
    with pytest.raises(StoreUnavailable):
        small.store._group_commit.submit_work(lambda _connection: None)


async def test_a_commit_that_cannot_be_overwritten_is_uncertain(rig: SqliteRig) -> None:
    """Nobody can say what a restart would find; the server goes on as if it were not there."""
    failing(rig, "COMMIT", "PRAGMA user_version")
    with pytest.raises(StoreUncertain) as failed:
        await rig.store.apply(NAME, append_commit(b"lost"))
    assert b"store_uncertain" in store_error_response(failed.value).body
    assert isinstance(await rig.store.apply(NAME, append_commit(b"next")), Applied)
    assert await bytes_after_restart(rig) == b"keptnext"


async def test_a_rollback_that_fails_does_not_stop_the_queue(rig: SqliteRig) -> None:
    """The answer comes all the same."""
    failing(rig, "INSERT", "ROLLBACK")
    with pytest.raises(StoreUnavailable):
        await rig.store.apply(NAME, append_commit(b"lost"))
    rig.store._writer.execute("ROLLBACK")
    assert isinstance(await rig.store.apply(NAME, append_commit(b"next")), Applied)


async def test_what_waits_for_a_group_has_a_bound(small: SqliteRig) -> None:
    """Past it a commit is refused at once, and nothing else changes."""
    first = small.store._group_commit.submit(NAME, append_commit(b"x" * 10), 10)
    with pytest.raises(StoreUnavailable):
        small.store._group_commit.submit(NAME, append_commit(b"y"), 1)
    assert isinstance(await first, Applied)


async def test_a_group_has_a_bound(small: SqliteRig) -> None:
    """What does not fit is the next group's, in the same order."""
    answers = [small.store._group_commit.submit(NAME, append_commit(b"%d," % number), 2) for number in range(5)]
    for answer in answers:
        assert isinstance(await answer, Applied)
    assert await bytes_after_restart(small) == b"kept0,1,2,3,4,"
