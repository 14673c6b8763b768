"""The one writer of the streams' database: it runs one transaction at a time, on the event loop or on its thread.

`group_commit` decides what the next transaction is and answers the callers; this module makes it durable. Where a
transaction runs is a matter of speed alone:

- SQLite releases the interpreter lock at every statement, and a busy loop gives it back late. So the loop itself writes
  the rows of a small transaction; the thread writes those of a large one.
- Handing a COMMIT to the thread and back costs as much as a fast fsync. So the loop itself commits a group of few
  commits, as long as no recent COMMIT was slow: while the loop is in an fsync, every request waits.
"""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Final

from fluvial.model.errors import StoreUnavailable, StoreUncertain
from fluvial.storage.failures import log_failure
from fluvial.storage.observer import UNOBSERVED, StoreObserver
from fluvial.storage.sqlite.checkpoints import copy_log, overwrite_log
from fluvial.storage.sqlite.commit_times import CommitTimes

log = logging.getLogger(__name__)

#: The loop writes the rows of a group with up to this many bytes.
INLINE_BYTES_MAX: Final = 262_144

#: The loop commits a group of up to this many commits while the disk is fast.
INLINE_COMMITS_MAX: Final = 16

#: How long the thread waits for another process's write to the same file.
BUSY_TIMEOUT_MS: Final = 10_000

#: Executes a transaction's statements between its BEGIN and its COMMIT.
Work = Callable[[sqlite3.Connection], None]


#: Why a transaction failed: StoreUnavailable when it is certainly undone, StoreUncertain when a restart may find it.
TransactionError = StoreUnavailable | StoreUncertain


@dataclass(frozen=True, slots=True)
class Transaction:
    """Statements to make durable. `on_end` is called on the loop: with None once they are durable, else the error."""

    write: Work
    on_end: Callable[[TransactionError | None], None]
    page_count: int


class _Rows(Enum):
    """What was done of a transaction before its COMMIT."""

    WRITTEN = auto()
    TO_WRITE = auto()


#: A job of the thread. It returns a call for the loop.
_Job = Callable[[], Callable[[], None]]


class TransactionWriter:
    """Runs transactions; the caller starts the next one only after the end of the one before."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        on_finished: Callable[[Transaction], None],
        observer: StoreObserver = UNOBSERVED,
    ) -> None:
        """Start the thread. The loop calls `on_finished` after each transaction's `on_end`, even if that raises."""
        self._connection, self._on_finished, self._observer = connection, on_finished, observer
        self._fsync_s: float | None = None  # of the COMMIT whose transaction has not ended yet
        self._loop = asyncio.get_running_loop()
        self._commit_times = CommitTimes()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = Thread(target=self._run_jobs, name="fluvial-commit", daemon=True)
        self._thread.start()

    def run(self, transaction: Transaction, byte_count: int, commit_count: int) -> None:
        """Make a group's transaction durable: on the loop, on the thread, or each part where it costs least."""
        if byte_count > INLINE_BYTES_MAX:
            self.run_on_thread(transaction)
        elif self._write_inline(transaction):
            if commit_count <= INLINE_COMMITS_MAX and self._commit_times.is_fast:
                self._end(transaction, self._commit())
            else:
                self._put(transaction, _Rows.WRITTEN)

    def run_on_thread(self, transaction: Transaction) -> None:
        """Make a transaction durable on the thread."""
        self._put(transaction, _Rows.TO_WRITE)

    def run_checkpoint(self, on_end: Callable[[bool], None]) -> None:
        """Run a checkpoint on the thread; `on_end` is called on the loop, and says whether it was complete."""

        def end(seconds: float, is_complete: bool) -> None:  # noqa: FBT001  `on_end`'s own
            self._observer.on_checkpoint(seconds, is_complete=is_complete)
            on_end(is_complete)

        def copy() -> Callable[[], None]:
            began = time.perf_counter()
            is_complete = copy_log(self._connection)
            return partial(end, time.perf_counter() - began, is_complete)

        self._jobs.put(copy)

    def close(self) -> None:
        """Stop the thread after its last job."""
        self._jobs.put(None)
        self._thread.join()

    def _write_inline(self, transaction: Transaction) -> bool:
        """Write the rows on the loop; False when that failed, or when the thread does it instead."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as exc:
            if getattr(exc, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                # Another process writes to the file, a backup for example: the thread may wait for it, the loop not.
                self.run_on_thread(transaction)
            else:
                self._loop.call_soon(self._end, transaction, unavailable(exc))
            return False
        try:
            transaction.write(self._connection)
        except Exception as exc:  # noqa: BLE001  `on_end` gets it
            self._loop.call_soon(self._end, transaction, unavailable(exc))
            return False
        return True

    def _run_jobs(self) -> None:
        """The thread's loop. It has a queue of its own because an executor's futures cost more than the hand-over."""
        while (job := self._jobs.get()) is not None:
            self._loop.call_soon_threadsafe(job())

    def _put(self, transaction: Transaction, rows: _Rows) -> None:
        self._jobs.put(lambda: partial(self._end, transaction, self._write_and_commit(transaction, rows)))

    def _write_and_commit(self, transaction: Transaction, rows: _Rows) -> TransactionError | None:
        """What the thread does of a transaction. Returns the error, if any."""
        try:
            if rows is _Rows.TO_WRITE:
                self._begin_patiently()
                transaction.write(self._connection)
        except Exception as exc:  # noqa: BLE001  `on_end` gets it
            return unavailable(exc)
        return self._commit()

    def _begin_patiently(self) -> None:
        """BEGIN, after another process's write to the file if need be. Raises sqlite3.Error."""
        self._connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        finally:
            self._connection.execute("PRAGMA busy_timeout = 0")

    def _commit(self) -> TransactionError | None:
        """COMMIT, which fsyncs the log. Returns the error, if any."""
        began = time.perf_counter()
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error as exc:
            self._fsync_s = time.perf_counter() - began
            # SQLite finds a full disk before the transaction's last page is in the log. After any other error of COMMIT
            # all pages may be in the log.
            is_full = getattr(exc, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
            error = StoreUnavailable() if is_full or self._overwrite_failed_commit() else StoreUncertain()
            error.__cause__ = exc
            return error
        self._fsync_s = time.perf_counter() - began
        self._commit_times.add(self._fsync_s)
        return None

    def _overwrite_failed_commit(self) -> bool:
        """Make sure that a transaction whose COMMIT failed never comes back; False when that failed, too.

        Without it: COMMIT writes all pages to the log, then the fsync fails; the client is told that nothing was
        written and sends its batch again; the process restarts, and SQLite's recovery finds the first transaction's
        pages complete in the log. The batch is there twice. So a transaction that changes nothing is committed at once:
        it takes the failed one's place in the log.
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

    def _end(self, transaction: Transaction, error: TransactionError | None) -> None:
        """Clean up after a failed transaction, then call back; on the loop."""
        if self._fsync_s is not None:
            self._observer.on_fsync(self._fsync_s)
            self._fsync_s = None
        try:
            if error is not None:
                log.error("commit_failed", extra={"reason": str(error.__cause__)})
                self._rollback()
        except sqlite3.Error as exc:
            log_failure(log, "rollback_failed", exc)
        try:
            transaction.on_end(error)
        finally:
            self._on_finished(transaction)


def unavailable(cause: Exception) -> StoreUnavailable:
    """The error of a commit that was certainly not written, for the reason that the log has."""
    error = StoreUnavailable()
    error.__cause__ = cause
    return error
