"""Group commit: commits that arrive together become one transaction, are fsynced once, then all are answered.

Everything but the fsync happens on the event loop, one group at a time: while a group is under way no head
changes, so the next group is judged on durable heads. A refusal waits with its group, for the state that it was
judged on may be the group's own.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final

from fluvial.core.commit import Commit, Outcome, Unmet
from fluvial.core.errors import StoreUnavailable, StoreUncertain
from fluvial.core.head import Head, Incarnation, ProducerState
from fluvial.core.names import StreamName
from fluvial.core.transition import Batch, transition
from fluvial.stores.sqlite.queries import SQL
from fluvial.stores.sqlite.rows import head_row, hot_run_row, new_head_row
from fluvial.stores.sqlite.runs import Run

log = logging.getLogger(__name__)

#: What one transaction takes: enough to share an fsync, too little to make anybody wait for long.
GROUP_COMMITS_MAX: Final = 4_096
GROUP_BYTES_MAX: Final = 16 * 1_048_576

#: What may wait for its group; past it the answer is a 503 at once.
PENDING_COMMITS_MAX: Final = 65_536
PENDING_BYTES_MAX: Final = 256 * 1_048_576

#: Up to here a group's rows are written on the loop: for a few rows a thread's turns at the interpreter lock
#: would cost more than the rows. Larger ones are left to the thread.
INLINE_BYTES_MAX: Final = 262_144

Work = Callable[[sqlite3.Connection], None]
HeadOf = Callable[[StreamName, str | None], Head | None]


@dataclass(slots=True)
class _Pending:
    name: StreamName
    commit: Commit
    byte_count: int
    answer: asyncio.Future[Outcome]


@dataclass(slots=True)
class _RunInMaking:
    start: int
    ends: list[int] = field(default_factory=list)
    parts: list[bytes] = field(default_factory=list)

    def run(self) -> Run:
        """The batches so far as one run."""
        return Run(self.start, tuple(self.ends), self.parts[0] if len(self.parts) == 1 else b"".join(self.parts))


@dataclass(slots=True)
class Group:
    """One transaction in the making: the heads as they will be, and what goes with them."""

    heads_before: dict[StreamName, Head | None] = field(default_factory=dict)
    heads: dict[StreamName, Head | None] = field(default_factory=dict)
    producers: dict[tuple[Incarnation, str], ProducerState] = field(default_factory=dict)
    dropped: list[Incarnation] = field(default_factory=list)
    runs: dict[Incarnation, Run] = field(default_factory=dict)
    byte_count: int = 0

    def write(self, connection: sqlite3.Connection) -> None:
        """Put the rows into the open transaction. Raises sqlite3.Error."""
        for name, head in self.heads.items():
            before = self.heads_before[name]
            if head is None:
                connection.execute(SQL.remove_head, (name,))
            elif before is not None and before.incarnation == head.incarnation:
                connection.execute(SQL.save_head, head_row(name, head))
            else:
                connection.execute(SQL.save_new_head, new_head_row(name, head))
        if self.runs:
            connection.executemany(SQL.add_hot_run, [hot_run_row(*run) for run in self.runs.items()])
        if self.producers:
            rows = [(*key, state.epoch, state.seq) for key, state in self.producers.items()]
            connection.executemany(SQL.save_producer, rows)
        if self.dropped:
            connection.executemany(SQL.add_ended_life, [(incarnation,) for incarnation in self.dropped])


class GroupCommit:
    """The queue in front of the database's one writer."""

    def __init__(self, connection: sqlite3.Connection, head_of: HeadOf, landed: Callable[[Group], None]) -> None:
        """`head_of` tells durable heads; `landed` is called with each group that is durable, before its answers."""
        self._connection = connection
        self._head_of = head_of
        self._landed = landed
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fluvial-commit")
        self._pending: list[_Pending] = []
        self._pending_bytes = 0
        self._work: list[tuple[Work, asyncio.Future[None]]] = []
        self._is_busy = False
        self._idle = asyncio.Event()
        self._idle.set()

    def submit(self, name: StreamName, commit: Commit, byte_count: int) -> asyncio.Future[Outcome]:
        """Queue a commit; its outcome comes when its group is durable. Raises StoreUnavailable when too many wait."""
        if len(self._pending) >= PENDING_COMMITS_MAX or self._pending_bytes + byte_count > PENDING_BYTES_MAX:
            raise StoreUnavailable
        answer: asyncio.Future[Outcome] = self._loop.create_future()
        self._pending.append(_Pending(name, commit, byte_count, answer))
        self._pending_bytes += byte_count
        self._wake()
        return answer

    def submit_work(self, work: Work) -> asyncio.Future[None]:
        """Queue a background job's own statements: a transaction by themselves, between two groups."""
        answer: asyncio.Future[None] = self._loop.create_future()
        self._work.append((work, answer))
        self._wake()
        return answer

    async def close(self) -> None:
        """Wait for all that was submitted, then stop the thread."""
        await self._idle.wait()
        self._thread.shutdown()

    def _wake(self) -> None:
        if not self._is_busy:
            self._is_busy = True
            self._idle.clear()
            self._loop.call_soon(self._start)

    def _start(self) -> None:
        """Begin the next transaction, a background job's in turn with a group, or rest."""
        if self._work and (len(self._work) > 1 or not self._pending):
            self._start_work()
        elif self._pending:
            self._start_group()
        elif self._work:
            self._start_work()
        else:
            self._is_busy = False
            self._idle.set()

    def _start_work(self) -> None:
        work, answer = self._work.pop(0)

        def transact() -> None:
            self._begin()
            work(self._connection)
            self._commit()

        def done(error: BaseException | None) -> None:
            if not answer.done():
                answer.set_result(None) if error is None else answer.set_exception(error)

        self._in_thread(transact, done)

    def _take(self) -> list[_Pending]:
        """The commits of the next group, in the order they came."""
        count = byte_count = 0
        for pending in self._pending[:GROUP_COMMITS_MAX]:
            if count and byte_count + pending.byte_count > GROUP_BYTES_MAX:
                break
            count += 1
            byte_count += pending.byte_count
        taken, self._pending = self._pending[:count], self._pending[count:]
        self._pending_bytes -= byte_count
        return taken

    def _start_group(self) -> None:
        group, taken, outcomes = Group(), self._take(), list[Outcome | Exception]()
        making: dict[Incarnation, _RunInMaking] = {}
        for pending in taken:
            try:
                outcomes.append(self._judge(group, making, pending))
            except sqlite3.Error as exc:
                log.exception("head_unreadable", extra={"stream": pending.name})
                error = StoreUnavailable()
                error.__cause__ = exc
                outcomes.append(error)
        group.runs = {incarnation: run.run() for incarnation, run in making.items()}
        group.byte_count = sum(pending.byte_count for pending in taken)

        def done(error: BaseException | None) -> None:
            if error is None:
                self._landed(group)
            for pending, outcome in zip(taken, outcomes, strict=True):
                if pending.answer.done():
                    continue
                failure = error or (outcome if isinstance(outcome, Exception) else None)
                if failure is not None:
                    pending.answer.set_exception(failure)
                elif not isinstance(outcome, Exception):
                    pending.answer.set_result(outcome)

        if not group.heads:
            done(None)
            self._loop.call_soon(self._start)
        elif group.byte_count <= INLINE_BYTES_MAX:
            try:
                self._begin()
                group.write(self._connection)
            except sqlite3.Error as exc:
                self._rolled_back(done, exc)
            else:
                self._in_thread(self._commit, done)
        else:

            def transact() -> None:
                self._begin()
                group.write(self._connection)
                self._commit()

            self._in_thread(transact, done)

    def _judge(self, group: Group, making: dict[Incarnation, _RunInMaking], pending: _Pending) -> Outcome:
        """Judge one commit on the heads that its predecessors in the group leave, and add its changes."""
        producer_id = pending.commit.producer_id

        def head_of(name: StreamName) -> Head | None:
            if name in group.heads:
                head = group.heads[name]
                if producer_id is None or head is None or producer_id in head.producers:
                    return head
                return self._head_with_producer(group, name, head, producer_id)
            return self._head_of(name, producer_id)

        result = transition(pending.name, pending.commit, head_of)
        if isinstance(result, Unmet):
            return result
        change, applied = result
        for name, head in change.heads.items():
            if name not in group.heads:
                group.heads_before[name] = self._head_of(name, None)
            group.heads[name] = head
        group.dropped += change.dropped
        if change.batch is not None:
            _add_batch(making, change.batch)
        if producer_id is not None and applied.head is not None:
            group.producers[applied.head.incarnation, producer_id] = applied.head.producers[producer_id]
        return applied

    def _head_with_producer(self, group: Group, name: StreamName, head: Head, producer_id: str) -> Head:
        """A head of this group, with a producer whose state only the database has."""
        before = group.heads_before[name]
        if before is None or before.incarnation != head.incarnation:
            return head
        loaded = self._head_of(name, producer_id)
        if loaded is None or producer_id not in loaded.producers:
            return head
        return replace(head, producers={**head.producers, producer_id: loaded.producers[producer_id]})

    def _begin(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def _commit(self) -> None:
        try:
            self._connection.execute("COMMIT")
        except sqlite3.OperationalError as exc:
            # A full disk is found out before the transaction's last page is in the log; any other failure of
            # COMMIT may have come after it.
            raise (StoreUnavailable if exc.sqlite_errorcode == sqlite3.SQLITE_FULL else StoreUncertain) from exc

    def _in_thread(self, transact: Callable[[], None], done: Callable[[BaseException | None], None]) -> None:
        future = self._thread.submit(transact)
        future.add_done_callback(
            lambda finished: self._loop.call_soon_threadsafe(self._finished, done, finished.exception())
        )

    def _finished(self, done: Callable[[BaseException | None], None], error: BaseException | None) -> None:
        if error is None:
            done(None)
            self._start()
        else:
            self._rolled_back(done, error)

    def _rolled_back(self, done: Callable[[BaseException | None], None], error: BaseException) -> None:
        """Undo a transaction that failed, and tell who waits for it."""
        log.error("commit_failed", extra={"reason": str(error.__cause__ or error)})
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            log.exception("rollback_failed")
        if isinstance(error, sqlite3.Error):
            unavailable = StoreUnavailable()
            unavailable.__cause__ = error
            error = unavailable
        done(error)
        self._loop.call_soon(self._start)


def _add_batch(making: dict[Incarnation, _RunInMaking], batch: Batch) -> None:
    run = making.setdefault(batch.incarnation, _RunInMaking(batch.start))
    run.ends.append(batch.end)
    run.parts.append(batch.data)
