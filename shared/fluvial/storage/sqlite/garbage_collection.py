"""Garbage collection: expired streams are ended, and the files and rows of ended incarnations are deleted.

Every step is small, because its rows are a transaction between two group commits. Each round begins with the orphans
that a killed process left, until they are removed once; see `rotation` for why rotation waits for that.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from fluvial.model.commit import Commit, Outcome
from fluvial.model.head import Incarnation
from fluvial.model.names import StreamName
from fluvial.model.plan import plan_expiry
from fluvial.storage.failures import log_failure
from fluvial.storage.sqlite.group_commit import GroupCommit
from fluvial.storage.sqlite.queries import SQL
from fluvial.storage.sqlite.segment_files import SegmentFiles, SegmentKey

log = logging.getLogger(__name__)

#: The pause between two rounds. Clients see an expired stream as absent at once, whatever this is.
SWEEP_INTERVAL_S: Final = 10.0

#: The most that one query returns, and the most rows of a table that one transaction deletes.
EXPIRED_PER_STEP: Final = 200
ENDED_PER_STEP: Final = 100
ROWS_PER_STEP: Final = 1_000

#: At or before every deadline that SQLite can store. A client may create a stream whose deadline is long past.
DEADLINE_MIN: Final = -(2**63)

Apply = Callable[[StreamName, Commit], Awaitable[Outcome]]


class GarbageCollector:
    """One background task that ends expired streams and deletes ended incarnations."""

    def __init__(
        self,
        apply: Apply,
        now_ms: Callable[[], int],
        reader: sqlite3.Connection,
        files: SegmentFiles,
        group_commit: GroupCommit,
    ) -> None:
        """`apply` ends expired streams, as a client's commit would. The task begins with `start`."""
        self._apply = apply
        self._now_ms = now_ms
        self._reader = reader
        self._files = files
        self._group_commit = group_commit
        self._has_work = asyncio.Event()
        self._is_stopping = False
        self.orphans_removed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin with the orphans and ended incarnations that the last process left."""
        self._task = asyncio.get_running_loop().create_task(self._collect_until_stopped(), name="collection")

    def collect_soon(self) -> None:
        """Begin a round now, e.g. because incarnations have ended."""
        self._has_work.set()

    async def stop(self) -> None:
        """End after the step that is under way; the next process does the rest."""
        self._is_stopping = True
        self._has_work.set()
        if self._task is not None:
            await self._task

    async def _collect_until_stopped(self) -> None:
        while not self._is_stopping:
            try:
                if not self.orphans_removed.is_set() and await self._remove_orphans():
                    self.orphans_removed.set()
                await self._end_expired()
                await self._collect_ended()
            except Exception as exc:  # noqa: BLE001  any error: the next round tries again
                log_failure(log, "collection_failed", exc)
                self._has_work.clear()
            if not self._is_stopping:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._has_work.wait(), SWEEP_INTERVAL_S)

    async def _remove_orphans(self) -> bool:
        """Delete segment files that the database does not refer to; whether all folders were looked through.

        No segment may be written meanwhile: its file is there before the database refers to it, as an orphan's is.
        """
        is_done = True
        for folder in await asyncio.to_thread(self._files.folders):
            if self._is_stopping:
                return False
            try:
                keys = await asyncio.to_thread(self._files.keys_in, folder)
            except OSError as exc:
                log_failure(log, "segments_not_listed", exc, folder=folder.name)
                is_done = False
                continue
            orphans = [key for key in keys if not self._is_used(key)]
            await asyncio.to_thread(self._files.remove_orphans, orphans)
        return is_done

    def _is_used(self, key: SegmentKey) -> bool:
        return self._reader.execute(SQL.has_segment, (key.incarnation, key.end, key.start)).fetchone() is not None

    async def _end_expired(self) -> None:
        """End the streams that have expired; the next round tries again those that cannot be ended now."""
        last, now_ms = (DEADLINE_MIN, ""), self._now_ms()
        while not self._is_stopping:
            found = self._reader.execute(SQL.expired_names, (now_ms, *last, EXPIRED_PER_STEP)).fetchall()
            names = [StreamName(row[1]) for row in found]
            ends = (self._apply(name, plan_expiry(now_ms)) for name in names)
            for outcome in await asyncio.gather(*ends, return_exceptions=True):
                if isinstance(outcome, Exception):
                    log_failure(log, "expiry_failed", outcome)
            if len(names) < EXPIRED_PER_STEP:
                return
            last = found[-1]

    async def _collect_ended(self) -> None:
        """Delete ended incarnations; the next round tries again those that cannot be deleted now."""
        self._has_work.clear()
        last = -1
        while not self._is_stopping:
            found = self._reader.execute(SQL.ended_incarnations, (last, ENDED_PER_STEP))
            ended = [Incarnation(row[0]) for row in found]
            for incarnation in ended:
                try:
                    await self._collect(incarnation)
                except Exception as exc:  # noqa: BLE001  any error: the other incarnations are collected all the same
                    log_failure(log, "collection_failed", exc, incarnation=f"{incarnation:x}")
            if len(ended) < ENDED_PER_STEP:
                return
            last = ended[-1]

    async def _collect(self, incarnation: Incarnation) -> None:
        """Delete one ended incarnation: first the files, then the rows that refer to them.

        A crash in between leaves rows, and the next process finds the incarnation by them.
        """
        found = self._reader.execute(SQL.segments_of, (incarnation, ROWS_PER_STEP)).fetchall()
        while found and not self._is_stopping:
            keys = [SegmentKey(incarnation, start, end) for start, end in found]
            await asyncio.to_thread(self._files.remove_all, keys)
            await self._group_commit.submit_work(partial(_remove_segments, keys))
            found = self._reader.execute(SQL.segments_of, (incarnation, ROWS_PER_STEP)).fetchall()
        removed = [0 if found else ROWS_PER_STEP]
        while max(removed) >= ROWS_PER_STEP and not self._is_stopping:
            await self._group_commit.submit_work(lambda connection: _remove_some_rows(connection, incarnation, removed))


def _remove_segments(keys: list[SegmentKey], connection: sqlite3.Connection) -> None:
    connection.executemany(SQL.remove_segment, [(key.incarnation, key.end) for key in keys])


def _remove_some_rows(connection: sqlite3.Connection, incarnation: Incarnation, removed: list[int]) -> None:
    """Delete some rows of each table, and at last that of the incarnation. `removed` is set to the numbers of rows."""
    statements = (SQL.remove_some_hot_ranges, SQL.remove_some_producers, SQL.remove_some_followers)
    removed[:] = [connection.execute(statement, (incarnation, ROWS_PER_STEP)).rowcount for statement in statements]
    if max(removed) < ROWS_PER_STEP:
        connection.execute(SQL.remove_ended_incarnation, (incarnation,))
