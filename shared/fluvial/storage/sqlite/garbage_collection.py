"""Collection: expired streams end, and what ended lives leave behind is deleted, a little at a time."""

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

#: How often expired streams are looked for; what a client sees does not depend on it.
SWEEP_INTERVAL_S: Final = 10.0

#: What one step takes: each is a transaction between two group commits.
EXPIRED_PER_STEP: Final = 200
LIVES_PER_STEP: Final = 100
ROWS_PER_STEP: Final = 1_000

#: Before every deadline that SQLite can store: a stream may have been made with one long past.
DEADLINE_MIN: Final = -(2**63)

Apply = Callable[[StreamName, Commit], Awaitable[Outcome]]


class GarbageCollector:
    """One background task that ends what has expired and deletes what has ended."""

    def __init__(
        self,
        apply: Apply,
        now_ms: Callable[[], int],
        reader: sqlite3.Connection,
        files: SegmentFiles,
        group_commit: GroupCommit,
    ) -> None:
        """Nothing happens until `start`."""
        self._apply = apply
        self._now_ms = now_ms
        self._reader = reader
        self._files = files
        self._group_commit = group_commit
        self._due = asyncio.Event()
        self._stopping = False
        self.orphans_removed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin with what the last process left behind."""
        self._task = asyncio.get_running_loop().create_task(self._collect_for_ever(), name="collection")

    def wake(self) -> None:
        """A life has just ended."""
        self._due.set()

    async def stop(self) -> None:
        """End after the step at hand; the rest is for the next process."""
        self._stopping = True
        self._due.set()
        if self._task is not None:
            await self._task

    async def _collect_for_ever(self) -> None:
        while not self._stopping:
            try:
                if not self.orphans_removed.is_set() and await self._remove_orphans():
                    self.orphans_removed.set()
                await self._end_expired()
                await self._collect_ended()
            except Exception as exc:  # noqa: BLE001  whatever it is, the next round may do better
                log_failure(log, "collection_failed", exc)
                self._due.clear()
            if not self._stopping:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._due.wait(), SWEEP_INTERVAL_S)

    async def _remove_orphans(self) -> bool:
        """Delete segment files that a crash left between their writing and their first mention; whether that is done.

        No segment may be written meanwhile: it has a file before anything mentions it.
        """
        is_done = True
        for folder in await asyncio.to_thread(self._files.folders):
            if self._stopping:
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
        """End what has run out; what cannot be ended is left for the next round."""
        last, now_ms = (DEADLINE_MIN, ""), self._now_ms()
        while not self._stopping:
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
        """Delete what is left of ended lives; what cannot be deleted is left for the next round."""
        self._due.clear()
        last_life = -1
        while not self._stopping:
            found = self._reader.execute(SQL.ended_lives, (last_life, LIVES_PER_STEP))
            lives = [Incarnation(row[0]) for row in found]
            for incarnation in lives:
                try:
                    await self._collect(incarnation)
                except Exception as exc:  # noqa: BLE001  whatever it is, the other lives' collection goes on
                    log_failure(log, "collection_failed", exc, incarnation=f"{incarnation:x}")
            if len(lives) < LIVES_PER_STEP:
                return
            last_life = lives[-1]

    async def _collect(self, incarnation: Incarnation) -> None:
        """Delete one ended life: first the files, then the rows that lead to them."""
        found = self._reader.execute(SQL.segments_of, (incarnation, ROWS_PER_STEP)).fetchall()
        while found and not self._stopping:
            keys = [SegmentKey(incarnation, start, end) for start, end in found]
            await asyncio.to_thread(self._files.remove_all, keys)
            await self._group_commit.submit_work(partial(_remove_segments, keys))
            found = self._reader.execute(SQL.segments_of, (incarnation, ROWS_PER_STEP)).fetchall()
        removed = [0 if found else ROWS_PER_STEP]
        while max(removed) >= ROWS_PER_STEP and not self._stopping:
            await self._group_commit.submit_work(lambda connection: _remove_some_rows(connection, incarnation, removed))


def _remove_segments(keys: list[SegmentKey], connection: sqlite3.Connection) -> None:
    connection.executemany(SQL.remove_segment, [(key.incarnation, key.end) for key in keys])


def _remove_some_rows(connection: sqlite3.Connection, incarnation: Incarnation, removed: list[int]) -> None:
    """Delete one step's worth; `removed` tells how many rows of each kind that was."""
    statements = (SQL.remove_some_hot_runs, SQL.remove_some_producers, SQL.remove_some_followers)
    removed[:] = [connection.execute(statement, (incarnation, ROWS_PER_STEP)).rowcount for statement in statements]
    if max(removed) < ROWS_PER_STEP:
        connection.execute(SQL.remove_ended_life, (incarnation,))
