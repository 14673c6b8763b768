"""Group commit: commits that arrive together become one transaction, are fsynced once, then all are answered.

Everything but the fsync happens on the event loop, one transaction at a time: while one is under way no head
changes, so the next group is judged on durable heads. A refusal waits with its group, for the state that it was
judged on may be the group's own. Between two transactions the thread copies the log into the database when that is due.
"""

import asyncio
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Final

from fluvial.model.commit import Commit, Outcome
from fluvial.model.errors import StoreError, StoreUnavailable, StoreUncertain
from fluvial.model.names import StreamName
from fluvial.storage.failures import log_failure
from fluvial.storage.limits import STORE_LIMITS, StoreLimits
from fluvial.storage.sqlite.checkpoints import Checkpoints, copy_log, overwrite_log
from fluvial.storage.sqlite.commit_times import CommitTimes
from fluvial.storage.sqlite.group import Group, HeadOf
from fluvial.storage.sqlite.queries import SQL

log = logging.getLogger(__name__)

#: What one transaction takes: enough to share an fsync, too little to make anybody wait for long. Its bytes, and what
#: may wait, are in StoreLimits.
GROUP_COMMITS_MAX: Final = 4_096

#: What may wait for its group; past it the answer is a 503 at once.
PENDING_COMMITS_MAX: Final = 65_536

#: Up to here a group's rows are written on the loop: for a few rows a thread's turns at the interpreter lock
#: would cost more than the rows. Larger ones are left to the thread.
INLINE_BYTES_MAX: Final = 262_144

#: A group of few commits is fsynced on the loop while no COMMIT has been slow lately: handing it to the thread and back
#: costs as much as a fast one.
INLINE_COMMITS_MAX: Final = 16

#: How long a write of another process to the same file is waited for.
BUSY_TIMEOUT_MS: Final = 10_000

#: About how many pages a background job adds to the log.
_WORK_PAGES: Final = 64

#: What a background job does in its own transaction.
Work = Callable[[sqlite3.Connection], None]


@dataclass(frozen=True, slots=True)
class _Pending:
    name: StreamName
    commit: Commit
    byte_count: int
    answer: asyncio.Future[Outcome]


#: What the thread does, and then the loop with what came of it.
_Job = Callable[[], Callable[[], None]]


@dataclass(frozen=True, slots=True)
class _Transaction:
    """What the writer does, in two parts, and who is told how it went."""

    write: Work
    done: Callable[[Exception | None], None]
    page_count: int
    is_written: bool = False


class GroupCommit:
    """The queue in front of the database's one writer."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        head_of: HeadOf,
        landed: Callable[[Group], None],
        limits: StoreLimits = STORE_LIMITS,
    ) -> None:
        """`head_of` tells durable heads; `landed` is called with each group that is durable, before its answers."""
        self._connection, self._limits = connection, limits
        (self._newest_born_us,) = connection.execute(SQL.newest_life).fetchone()
        self._head_of = head_of
        self._landed = landed
        self._loop = asyncio.get_running_loop()
        self._pending: deque[_Pending] = deque()
        self._pending_bytes = 0
        self._work: deque[tuple[Work, asyncio.Future[None]]] = deque()
        self._is_work_next = False
        self._is_busy = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_closed = False
        self._commit_times = CommitTimes()
        self._checkpoints = Checkpoints(self._wake)
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = Thread(target=self._run_jobs, name="fluvial-commit", daemon=True)
        self._thread.start()

    def submit(self, name: StreamName, commit: Commit, byte_count: int) -> asyncio.Future[Outcome]:
        """Queue a commit; its outcome comes when its group is durable.

        Raises StoreUnavailable when too many wait, and once the store is closing.
        """
        if self._is_closed:
            raise StoreUnavailable
        if (
            len(self._pending) >= PENDING_COMMITS_MAX
            or self._pending_bytes + byte_count > self._limits.pending_bytes_max
        ):
            raise StoreUnavailable
        answer: asyncio.Future[Outcome] = self._loop.create_future()
        self._pending.append(_Pending(name, commit, byte_count, answer))
        self._pending_bytes += byte_count
        self._wake()
        return answer

    def submit_work(self, work: Work) -> asyncio.Future[None]:
        """Queue a background job's statements: a transaction of their own, between two groups.

        Raises StoreUnavailable when too many wait, and once the store is closing.
        """
        if self._is_closed or len(self._work) >= self._limits.pending_work_max:
            raise StoreUnavailable
        answer: asyncio.Future[None] = self._loop.create_future()
        self._work.append((work, answer))
        self._wake()
        return answer

    async def close(self) -> None:
        """Take nothing more, answer all that was submitted, then stop the thread."""
        self._is_closed = True
        await self._idle.wait()
        self._checkpoints.close()
        self._jobs.put(None)
        self._thread.join()

    def _wake(self) -> None:
        if not self._is_busy:
            self._is_busy = True
            self._idle.clear()
            self._loop.call_soon(self._start)

    def _start(self) -> None:
        """Begin the next transaction, groups and background jobs in turn, or rest."""
        if self._checkpoints.is_due:
            self._checkpoints.begin()
            self._jobs.put(self._checkpoint)
        elif self._work and (self._is_work_next or not self._pending):
            self._is_work_next = False
            self._start_work()
        elif self._pending:
            self._is_work_next = True
            self._start_group()
        else:
            self._is_busy = False
            self._idle.set()

    def _start_work(self) -> None:
        work, answer = self._work.popleft()

        def done(error: Exception | None) -> None:
            if answer.done():
                return
            if error is None:
                answer.set_result(None)
            else:
                answer.set_exception(error)

        self._put(_Transaction(work, done, _WORK_PAGES))

    def _take(self) -> tuple[list[_Pending], int]:
        """The commits of the next group in the order they came, and their bytes."""
        taken, byte_count = list[_Pending](), 0
        while self._pending and len(taken) < GROUP_COMMITS_MAX:
            if taken and byte_count + self._pending[0].byte_count > self._limits.group_bytes_max:
                break
            taken.append(self._pending.popleft())
            byte_count += taken[-1].byte_count
        self._pending_bytes -= byte_count
        return taken, byte_count

    def _start_group(self) -> None:
        taken, byte_count = self._take()
        group = Group(self._head_of, self._newest_born_us)
        outcomes = [self._judged(group, pending) for pending in taken]
        self._newest_born_us = group.newest_born_us

        def done(error: Exception | None) -> None:
            try:
                if error is None:
                    self._landed(group)
            finally:  # whatever becomes of the caches, what is durable is answered
                for pending, outcome in zip(taken, outcomes, strict=True):
                    _answer(pending.answer, error or outcome)

        if not group.heads:
            done(None)
            self._loop.call_soon(self._start)
            return
        is_small = byte_count <= INLINE_BYTES_MAX
        transaction = _Transaction(group.write, done, group.page_count, is_written=is_small)
        if is_small and not self._written(transaction):
            return
        if is_small and len(taken) <= INLINE_COMMITS_MAX and self._commit_times.is_fast:
            self._finished(transaction, self._transacted(transaction))
        else:
            self._put(transaction)

    def _judged(self, group: Group, pending: _Pending) -> Outcome | Exception:
        try:
            return group.judge(pending.name, pending.commit)
        except StoreError as exc:
            return exc
        except Exception as exc:  # one commit that cannot be judged must not hold up the others
            log.exception("commit_not_judged", extra={"stream": pending.name})
            return _unavailable(exc)

    def _written(self, transaction: _Transaction) -> bool:
        """Write a small group's rows on the loop; False when that failed and everybody will be told."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as exc:
            if getattr(exc, "sqlite_errorcode", None) != sqlite3.SQLITE_BUSY:
                self._loop.call_soon(self._finished, transaction, _unavailable(exc))
            else:  # somebody else writes to the file, e.g. a backup: the thread may wait for that, the loop may not
                self._put(replace(transaction, is_written=False))
            return False
        try:
            transaction.write(self._connection)
        except Exception as exc:  # noqa: BLE001  told to who waits for it
            self._loop.call_soon(self._finished, transaction, _unavailable(exc))
            return False
        return True

    def _run_jobs(self) -> None:
        """The thread: a queue of its own, for an executor's futures cost more than its turn at the lock."""
        while (job := self._jobs.get()) is not None:
            self._loop.call_soon_threadsafe(job())

    def _put(self, transaction: _Transaction) -> None:
        """Let the thread make a transaction durable."""
        self._jobs.put(lambda: partial(self._finished, transaction, self._transacted(transaction)))

    def _checkpoint(self) -> Callable[[], None]:
        is_complete = copy_log(self._connection)

        def finish() -> None:
            self._checkpoints.finish(is_complete=is_complete)
            self._start()

        return finish

    def _transacted(self, transaction: _Transaction) -> Exception | None:
        """Make a transaction durable; what went wrong, if anything."""
        try:
            if not transaction.is_written:
                self._begin_patiently()
                transaction.write(self._connection)
        except Exception as exc:  # noqa: BLE001  told to who waits for it
            return _unavailable(exc)
        began = time.perf_counter()
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error as exc:
            # A full disk is found out before the transaction's last page is in the log; any other failure of
            # COMMIT may have come after it.
            is_full = getattr(exc, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
            is_undone = is_full or self._overwritten()
            error = StoreUnavailable() if is_undone else StoreUncertain()
            error.__cause__ = exc
            return error
        self._commit_times.add(time.perf_counter() - began)
        return None

    def _begin_patiently(self) -> None:
        """BEGIN on the thread, which may wait for another process's write to end. Raises sqlite3.Error."""
        self._connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        finally:
            self._connection.execute("PRAGMA busy_timeout = 0")

    def _overwritten(self) -> bool:
        """Whether a failed transaction is gone for good: a later one has taken its place in the log.

        Until then its pages may be there, and a restart would take them for committed.
        """
        try:
            self._rollback()
            overwrite_log(self._connection)
        except sqlite3.Error as exc:
            log_failure(log, "log_not_overwritten", exc)
            return False
        return True

    def _rollback(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _finished(self, transaction: _Transaction, error: Exception | None) -> None:
        self._checkpoints.add(transaction.page_count)
        try:
            if error is not None:
                log.error("commit_failed", extra={"reason": str(error.__cause__)})
                self._rollback()
        except sqlite3.Error as exc:
            log_failure(log, "rollback_failed", exc)
        try:
            transaction.done(error)
        finally:
            self._start()


def _unavailable(cause: Exception) -> StoreUnavailable:
    error = StoreUnavailable()
    error.__cause__ = cause
    return error


def _answer(future: asyncio.Future[Outcome], outcome: Outcome | Exception) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
