"""Group commit: commits that arrive together become one transaction with one fsync; then all are answered.

One transaction runs at a time. The sequence:

1. A commit arrives. It waits in the queue while a transaction runs.
2. The transaction ends. All waiting commits, up to a limit, become the next group. The event loop evaluates them in the
   order of their calls, each on the heads that the earlier ones leave. The first ones are evaluated on durable heads,
   because no transaction runs and so no head changes.
3. The group's changes are written and committed as one transaction (see `transaction_writer`).
4. `on_durable` makes the new heads visible to readers, and then every commit of the group gets its answer. When the
   transaction failed, the answer of every commit is the error, of rejections, too.

A rejection waits for the end of its group's transaction, too, although it writes nothing. It may have been evaluated on
an earlier commit of its own group. If it were answered at once: a producer's first try of a batch is in the group; its
retry, in the same group, is answered as a duplicate, so the producer drops the batch; then the COMMIT fails or the
process is killed. The producer was told that its batch is stored, and the batch is lost.

`group_changes` holds what a group changes. Background jobs (rotation, garbage collection, followers) and checkpoints
take turns with the groups.
"""

import asyncio
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from fluvial.model.commit import Commit, Outcome
from fluvial.model.errors import StoreError, StoreUnavailable
from fluvial.model.names import StreamName
from fluvial.storage.limits import STORE_LIMITS, StoreLimits
from fluvial.storage.observer import UNOBSERVED, StoreObserver
from fluvial.storage.sqlite.checkpoints import Checkpoints
from fluvial.storage.sqlite.group_changes import GroupChanges, LoadHead
from fluvial.storage.sqlite.queries import SQL
from fluvial.storage.sqlite.transaction_writer import (
    Transaction,
    TransactionError,
    TransactionWriter,
    Work,
    unavailable,
)

log = logging.getLogger(__name__)

#: The commits of one group: enough to share an fsync, and so few that their evaluation holds up the loop only briefly.
#: StoreLimits has the bytes of a group, and those of the queue.
GROUP_COMMITS_MAX: Final = 4_096

#: The commits of the queue; more are answered with a 503 at once.
PENDING_COMMITS_MAX: Final = 65_536

#: About how many pages a background job adds to the write-ahead log.
_WORK_PAGES: Final = 64


@dataclass(frozen=True, slots=True)
class _Pending:
    """A commit in the queue."""

    name: StreamName
    commit: Commit
    byte_count: int
    answer: asyncio.Future[Outcome]


class _Size(Enum):
    """How much a background job writes."""

    FEW_ROWS = auto()
    ANY = auto()


class GroupCommit:
    """The queue in front of the database's one writer."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        load_head: LoadHead,
        on_durable: Callable[[GroupChanges], None],
        limits: StoreLimits = STORE_LIMITS,
        observer: StoreObserver = UNOBSERVED,
    ) -> None:
        """`connection` is for this object alone. `on_durable` is called with each durable group, before its answers."""
        self._limits, self._observer = limits, observer
        (self._newest_born_us,) = connection.execute(SQL.newest_birth).fetchone()
        self._load_head = load_head
        self._on_durable = on_durable
        self._loop = asyncio.get_running_loop()
        self._pending: deque[_Pending] = deque()
        self._pending_bytes = 0
        self._work: deque[tuple[Work, asyncio.Future[None], _Size]] = deque()
        self._is_work_next = False
        self._is_busy = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_closed = self._is_full = False
        self._checkpoints = Checkpoints(self._start_soon)
        self._writer = TransactionWriter(connection, self._on_transaction_finished, observer)

    def submit(self, name: StreamName, commit: Commit, byte_count: int) -> asyncio.Future[Outcome]:
        """Queue a commit. Its outcome comes once its group is durable.

        Raises StoreUnavailable when the queue is full, and once the store is closing.
        """
        if self._is_closed:
            raise StoreUnavailable
        was_full, self._is_full = self._is_full, False
        if (
            len(self._pending) >= PENDING_COMMITS_MAX
            or self._pending_bytes + byte_count > self._limits.pending_bytes_max
        ):
            self._is_full = True
            if not was_full:
                log.warning("queue_full", extra={"waiting": len(self._pending), "bytes": self._pending_bytes})
            raise StoreUnavailable
        answer: asyncio.Future[Outcome] = self._loop.create_future()
        self._pending.append(_Pending(name, commit, byte_count, answer))
        self._pending_bytes += byte_count
        self._start_soon()
        return answer

    def submit_work(self, work: Work) -> asyncio.Future[None]:
        """Queue the statements of a background job, as a transaction of their own between two groups.

        Raises StoreUnavailable when the queue is full, and once the store is closing.
        """
        return self._submit(work, _Size.ANY)

    def submit_rows(self, work: Work) -> asyncio.Future[None]:
        """The same for a few rows that a caller waits for: the loop may write them, as those of a small group.

        Raises as `submit_work` does.
        """
        return self._submit(work, _Size.FEW_ROWS)

    def _submit(self, work: Work, size: "_Size") -> asyncio.Future[None]:
        if self._is_closed or len(self._work) >= self._limits.pending_work_max:
            raise StoreUnavailable
        answer: asyncio.Future[None] = self._loop.create_future()
        self._work.append((work, answer, size))
        self._start_soon()
        return answer

    async def close(self) -> None:
        """Accept nothing more, answer everything in the queue, then stop the writer."""
        self._is_closed = True
        await self._idle.wait()
        self._checkpoints.close()
        self._writer.close()

    def _start_soon(self) -> None:
        """Start a transaction, unless one runs. Not at once: calls of the same turn of the loop become one group."""
        if not self._is_busy:
            self._is_busy = True
            self._idle.clear()
            self._loop.call_soon(self._start_next)

    def _start_next(self) -> None:
        """Start a checkpoint that is due, else a group or a background job in turn; without any, become idle."""
        if self._checkpoints.is_due:
            self._checkpoints.begin()
            self._writer.run_checkpoint(self._on_checkpoint_end)
        elif self._work and (self._is_work_next or not self._pending):
            self._is_work_next = False
            self._start_work()
        elif self._pending:
            self._is_work_next = True
            self._start_group()
        else:
            self._is_busy = False
            self._idle.set()

    def _on_checkpoint_end(self, is_complete: bool) -> None:  # noqa: FBT001  the only argument of a callback
        self._checkpoints.finish(is_complete=is_complete)
        self._start_next()

    def _on_transaction_finished(self, transaction: Transaction) -> None:
        self._checkpoints.add(transaction.page_count)
        self._start_next()

    def _start_work(self) -> None:
        work, answer, size = self._work.popleft()

        def on_end(error: TransactionError | None) -> None:
            if answer.done():
                return
            if error is None:
                answer.set_result(None)
            else:
                answer.set_exception(error)

        transaction = Transaction(work, on_end, _WORK_PAGES)
        if size is _Size.FEW_ROWS:
            self._writer.run(transaction, byte_count=0, commit_count=1)
        else:
            self._writer.run_on_thread(transaction)

    def _take_group(self) -> tuple[list[_Pending], int]:
        """Take the commits of the next group off the queue, in the order of their calls; and their bytes."""
        taken, byte_count = list[_Pending](), 0
        while self._pending and len(taken) < GROUP_COMMITS_MAX:
            if taken and byte_count + self._pending[0].byte_count > self._limits.group_bytes_max:
                break
            taken.append(self._pending.popleft())
            byte_count += taken[-1].byte_count
        self._pending_bytes -= byte_count
        return taken, byte_count

    def _start_group(self) -> None:
        taken, byte_count = self._take_group()
        began = time.perf_counter()
        changes = GroupChanges(self._load_head, self._newest_born_us)
        outcomes = [self._evaluate(changes, pending) for pending in taken]
        self._newest_born_us = changes.newest_born_us

        def on_end(error: TransactionError | None) -> None:
            try:
                if error is None:
                    if changes.heads:
                        self._observer.on_group(len(taken), time.perf_counter() - began)
                    self._on_durable(changes)
            finally:  # the commits are durable, so they are answered even when `on_durable` fails
                for pending, outcome in zip(taken, outcomes, strict=True):
                    _answer(pending.answer, error or outcome)

        if not changes.heads:  # only rejections, all evaluated on durable heads
            on_end(None)
            self._loop.call_soon(self._start_next)
            return
        self._writer.run(Transaction(changes.write, on_end, changes.page_count), byte_count, len(taken))

    def _evaluate(self, changes: GroupChanges, pending: _Pending) -> Outcome | Exception:
        try:
            return changes.evaluate(pending.name, pending.commit)
        except StoreError as exc:
            return exc
        except Exception as exc:  # the other commits of the group are evaluated all the same
            log.exception("commit_not_judged", extra={"stream": pending.name})
            return unavailable(exc)


def _answer(future: asyncio.Future[Outcome], outcome: Outcome | Exception) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
