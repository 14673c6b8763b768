"""Rotation: a prefix of a hot log moves into a segment file; bytes and offsets stay as they are."""

import asyncio
import contextlib
import logging
import sqlite3
from dataclasses import dataclass
from typing import Final

from fluvial.model.head import Head, Incarnation
from fluvial.storage.batch_range import BatchRange, concatenate
from fluvial.storage.failures import log_failure
from fluvial.storage.limits import STORE_LIMITS, StoreLimits
from fluvial.storage.sqlite.group_commit import GroupCommit
from fluvial.storage.sqlite.queries import SQL
from fluvial.storage.sqlite.rows import run_of_row
from fluvial.storage.sqlite.segment_files import SegmentFiles, SegmentKey

log = logging.getLogger(__name__)

#: Lives whose hot log's size is known; any other is measured when it next grows.
SIZES_KNOWN_MAX: Final = 20_000

#: Lives that wait for rotation; past it a life is taken up again when it next grows, or at the next start.
DUE_MAX: Final = 10_000

#: After a failure, e.g. a full disk, rotation rests so long: the hot log keeps the bytes meanwhile.
REST_S: Final = 5.0


@dataclass(slots=True)
class _HotSize:
    byte_count: int
    batch_count: int

    def add(self, runs: list[BatchRange]) -> None:
        for run in runs:
            self.byte_count += run.end - run.start
            self.batch_count += len(run.ends)

    def is_full(self, limits: StoreLimits) -> bool:
        return self.byte_count >= limits.segment_bytes or self.batch_count >= limits.segment_batches


class Rotator:
    """One background task that writes segments, one at a time, of the lives that are due."""

    def __init__(
        self,
        reader: sqlite3.Connection,
        files: SegmentFiles,
        group_commit: GroupCommit,
        limits: StoreLimits = STORE_LIMITS,
    ) -> None:
        """Nothing is due until `start`."""
        self._reader, self._limits = reader, limits
        self._files = files
        self._group_commit = group_commit
        self._sizes: dict[Incarnation, _HotSize] = {}
        self._due: dict[Incarnation, None] = {}
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, due: list[Incarnation], orphans_removed: asyncio.Event) -> None:
        """Begin with the lives that are due already, once no file is left that a new one could be taken for."""
        self._due = dict.fromkeys(due[:DUE_MAX])
        self._wake.set()
        rotation = self._rotate_for_ever(orphans_removed)
        self._task = asyncio.get_running_loop().create_task(rotation, name="rotation")

    async def stop(self) -> None:
        """End after the segment that is being written."""
        self._stopping.set()
        self._wake.set()
        if self._task is not None:
            await self._task

    def grown(self, head: Head, runs: list[BatchRange]) -> None:
        """A commit added runs to a stream's hot log, or changed its head only."""
        size = self._sizes.get(head.incarnation)
        if runs and size is None:
            self._sizes[head.incarnation] = size = self._measured(head, runs)
        elif size is not None:
            size.add(runs)
        if (head.closed and head.tail > head.own_start) or (size is not None and size.is_full(self._limits)):
            self._is_due(head.incarnation)

    def forget(self, dropped: list[Incarnation]) -> None:
        """These lives have ended."""
        for incarnation in dropped:
            self._sizes.pop(incarnation, None)
            self._due.pop(incarnation, None)

    def _measured(self, head: Head, runs: list[BatchRange]) -> _HotSize:
        while len(self._sizes) >= SIZES_KNOWN_MAX:
            del self._sizes[next(iter(self._sizes))]
        size = _HotSize(0, 0)
        size.add(runs)
        if runs[0].start == head.own_start:
            return size
        try:
            return _HotSize(*self._reader.execute(SQL.hot_size, (head.incarnation,)).fetchone())
        except sqlite3.Error as exc:
            log_failure(log, "hot_log_not_measured", exc, incarnation=f"{head.incarnation:x}")
            return size

    def _is_due(self, incarnation: Incarnation) -> None:
        if len(self._due) < DUE_MAX:
            self._due[incarnation] = None
            self._wake.set()

    async def _rotate_for_ever(self, orphans_removed: asyncio.Event) -> None:
        await _first_of(orphans_removed, self._stopping)
        while not self._stopping.is_set():
            await self._wake.wait()
            self._wake.clear()
            while self._due and not self._stopping.is_set():
                incarnation = next(iter(self._due))
                del self._due[incarnation]
                try:
                    await self._rotate(incarnation)
                except Exception as exc:  # noqa: BLE001  whatever it is, the other lives' rotation goes on
                    log_failure(log, "rotation_failed", exc, incarnation=f"{incarnation:x}")
                    self._due[incarnation] = None
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._stopping.wait(), REST_S)

    async def _rotate(self, incarnation: Incarnation) -> None:
        """Move what the hot log of one life holds, up to a segment's worth."""
        # Appends that came while the last segment was written found the log full, and may not be so many.
        limits = (self._limits.segment_bytes, self._limits.segment_batches)
        if self._reader.execute(SQL.overfull_life, (incarnation, *limits)).fetchone() is None:
            return
        runs, moved = list[BatchRange](), _HotSize(0, 0)
        for row in self._reader.execute(SQL.hot_runs_after, (incarnation, -1)):
            runs.append(run_of_row(row))
            moved.add(runs[-1:])
            if moved.is_full(self._limits):
                break
        if not runs:
            return
        run = concatenate(runs)
        key = await asyncio.to_thread(self._files.write, incarnation, run)
        await self._group_commit.submit_work(lambda connection: _cut_over(connection, key, len(run.ends)))
        if self._reader.execute(SQL.has_life, (incarnation,)).fetchone() is None:
            await asyncio.to_thread(self._files.remove_all, [key])
        size = self._sizes.get(incarnation)
        if size is not None:
            size.byte_count -= moved.byte_count
            size.batch_count -= moved.batch_count
        if moved.is_full(self._limits):
            self._is_due(incarnation)
        log.debug(
            "rotated",
            extra={"incarnation": f"{incarnation:x}", "bytes": moved.byte_count},
        )


async def _first_of(*events: asyncio.Event) -> None:
    """Wait until one of the events has come."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _cut_over(connection: sqlite3.Connection, key: SegmentKey, batch_count: int) -> None:
    connection.execute(SQL.add_segment, (key.incarnation, key.end, key.start, batch_count))
    connection.execute(SQL.note_tail, (key.end, key.incarnation))
    connection.execute(SQL.cut_hot_runs, (key.incarnation, key.end))
