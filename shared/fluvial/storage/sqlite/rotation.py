"""Rotation: a prefix of an incarnation's hot log moves into a segment file; bytes and offsets stay as they are.

A rotation is due when the hot log fills a segment, or when the stream is closed: `is_rotation_due` is the one rule. It
decides when a commit has added to a hot log, at the start for the hot logs of the last process, and again just before a
segment is written.

The steps of a rotation, and what a crash or a deletion between them leaves:

1. The segment's file is written, on a worker thread. Left: a file that the database does not refer to, an orphan.
2. The cut-over, one transaction: the segment's row is added, the tail and the time of the last append are saved in the
   head's row, and the rows of the hot log are removed. If the stream was deleted meanwhile, no row is added and the
   file is removed at once.

Garbage collection removes the orphans of earlier processes, and no segment is written before it has done so. Otherwise:
a process is killed after step 1. The next one looks for orphans and finds that file. At the same time it rotates the
same prefix of the hot log, into a file of the same name, and cuts over. Then the "orphan" is removed, and its bytes are
lost.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from fluvial.model.head import INCARNATION_BITS, Head, Incarnation
from fluvial.model.names import StreamName
from fluvial.storage.batch_range import BatchRange, concatenate
from fluvial.storage.failures import log_failure
from fluvial.storage.limits import STORE_LIMITS, StoreLimits
from fluvial.storage.observer import UNOBSERVED, StoreObserver
from fluvial.storage.sqlite.group_commit import GroupCommit
from fluvial.storage.sqlite.queries import SQL
from fluvial.storage.sqlite.rows import batch_range_of_row, head_of_row, head_row, segment_row
from fluvial.storage.sqlite.segment_files import SegmentFiles, StoredSegment

log = logging.getLogger(__name__)

#: Incarnations whose hot log's size is kept in memory; the others are measured at their next append.
SIZES_KNOWN_MAX: Final = 20_000

#: Incarnations that wait for rotation; one more is marked again at its next append, or found at the next start.
DUE_MAX: Final = 10_000

#: The pause after a failed rotation, e.g. on a full disk. The hot log keeps the bytes meanwhile.
REST_S: Final = 5.0

_FIRST, _LAST = Incarnation(0), Incarnation(2**INCARNATION_BITS - 1)


@dataclass(slots=True)
class HotLogSize:
    """How much of an incarnation is in its hot log."""

    byte_count: int = 0
    batch_count: int = 0

    def add(self, ranges: list[BatchRange]) -> None:
        """Count batches that were added."""
        for added in ranges:
            self.byte_count += added.end - added.start
            self.batch_count += len(added.ends)

    def subtract(self, moved: "HotLogSize") -> None:
        """Count batches that were moved into a segment."""
        self.byte_count -= moved.byte_count
        self.batch_count -= moved.batch_count

    def fills_segment(self, limits: StoreLimits) -> bool:
        """Whether it is enough for a segment."""
        return self.byte_count >= limits.segment_bytes or self.batch_count >= limits.segment_batches


def is_rotation_due(size: HotLogSize | None, limits: StoreLimits, *, is_closed: bool) -> bool:
    """Whether a hot log of this size moves into a segment: once it fills one, and all of it once the stream is closed.

    A closed stream whose size is not known (None) counts as due, because the rotation measures it again.
    """
    if size is None:
        return is_closed
    return size.fills_segment(limits) or (is_closed and size.batch_count > 0)


def find_due(
    reader: sqlite3.Connection, limits: StoreLimits, first: Incarnation = _FIRST, last: Incarnation = _LAST
) -> Iterator[Incarnation]:
    """The incarnations from `first` to `last` that are due by what the database has. Raises sqlite3.Error."""
    for incarnation, byte_count, batch_count, is_closed in reader.execute(SQL.hot_log_sizes, (first, last)):
        if is_rotation_due(HotLogSize(byte_count, batch_count), limits, is_closed=bool(is_closed)):
            yield Incarnation(incarnation)


class Rotator:
    """One background task that writes segments, one at a time, of the incarnations that are marked as due."""

    def __init__(
        self,
        reader: sqlite3.Connection,
        files: SegmentFiles,
        group_commit: GroupCommit,
        limits: StoreLimits = STORE_LIMITS,
        observer: StoreObserver = UNOBSERVED,
    ) -> None:
        """The task begins with `start`; `on_append` may be called before."""
        self._reader, self._limits, self._observer = reader, limits, observer
        self._files = files
        self._group_commit = group_commit
        self._sizes: dict[Incarnation, HotLogSize] = {}
        self._due: dict[Incarnation, None] = {}
        self._has_work = asyncio.Event()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, due: list[Incarnation], orphans_removed: asyncio.Event) -> None:
        """Begin with the incarnations that the last process left due, after the orphans are removed.

        The garbage collector owns and sets `orphans_removed`. The rotator only waits for it: `stop` has an event of its
        own, so that stopping never says that orphans were removed.
        """
        self._due = dict.fromkeys(due[:DUE_MAX])
        self._has_work.set()
        rotation = self._rotate_until_stopped(orphans_removed)
        self._task = asyncio.get_running_loop().create_task(rotation, name="rotation")

    async def stop(self) -> None:
        """End the task after the segment that it is writing, or at once while it waits."""
        self._stopping.set()
        self._has_work.set()
        if self._task is not None:
            await self._task

    def on_append(self, head: Head, ranges: list[BatchRange]) -> None:
        """Count the batches, perhaps none, that a durable group added to a hot log; mark it if a rotation is due."""
        size = self._sizes.get(head.incarnation)
        if ranges and size is None:
            self._sizes[head.incarnation] = size = self._measure(head, ranges)
        elif size is not None:
            size.add(ranges)
        if is_rotation_due(size, self._limits, is_closed=head.closed and head.tail > head.own_start):
            self.mark_due(head.incarnation)

    def on_deleted(self, dropped: list[Incarnation]) -> None:
        """Forget incarnations that have ended."""
        for incarnation in dropped:
            self._sizes.pop(incarnation, None)
            self._due.pop(incarnation, None)

    def mark_due(self, incarnation: Incarnation) -> None:
        """Let the task rotate the incarnation, if it is still due then."""
        if len(self._due) < DUE_MAX:
            self._due[incarnation] = None
            self._has_work.set()

    def _measure(self, head: Head, ranges: list[BatchRange]) -> HotLogSize:
        """The size of a hot log after `ranges` were added to it."""
        while len(self._sizes) >= SIZES_KNOWN_MAX:
            del self._sizes[next(iter(self._sizes))]
        size = HotLogSize()
        size.add(ranges)
        if ranges[0].start == head.own_start:
            return size  # there is nothing before them
        try:
            row = self._reader.execute(SQL.hot_log_sizes, (head.incarnation, head.incarnation)).fetchone()
        except sqlite3.Error as exc:
            log_failure(log, "hot_log_not_measured", exc, incarnation=f"{head.incarnation:x}")
            return size
        return HotLogSize() if row is None else HotLogSize(row[1], row[2])

    async def _rotate_until_stopped(self, orphans_removed: asyncio.Event) -> None:
        await _first_of(orphans_removed, self._stopping)
        while not self._stopping.is_set():
            await self._has_work.wait()
            self._has_work.clear()
            while self._due and not self._stopping.is_set():
                incarnation = next(iter(self._due))
                del self._due[incarnation]
                try:
                    await self._rotate(incarnation)
                except Exception as exc:  # noqa: BLE001  any error: the other incarnations are rotated all the same
                    log_failure(log, "rotation_failed", exc, incarnation=f"{incarnation:x}")
                    self._due[incarnation] = None
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._stopping.wait(), REST_S)

    async def _rotate(self, incarnation: Incarnation) -> None:
        """Move up to a segment's worth of one hot log into a segment."""
        # While the last segment was written, appends found the log full and marked it again. Now it may be half empty.
        if not list(find_due(self._reader, self._limits, incarnation, incarnation)):
            return
        ranges, moved = list[BatchRange](), HotLogSize()
        for row in self._reader.execute(SQL.hot_ranges_after, (incarnation, -1)):
            ranges.append(batch_range_of_row(row))
            moved.add(ranges[-1:])
            if moved.fills_segment(self._limits):
                break
        if not ranges:
            return
        segment = concatenate(ranges)
        stored = await asyncio.to_thread(self._files.write, incarnation, segment)
        await self._group_commit.submit_work(lambda connection: _cut_over(connection, stored))
        if self._reader.execute(SQL.has_incarnation, (incarnation,)).fetchone() is None:
            await asyncio.to_thread(self._files.remove_all, [stored.key])
        self._observer.on_rotation(moved.byte_count)
        size = self._sizes.get(incarnation)
        if size is not None:
            size.subtract(moved)
        if moved.fills_segment(self._limits):
            self.mark_due(incarnation)
        log.debug(
            "rotated",
            extra={"incarnation": f"{incarnation:x}", "bytes": moved.byte_count},
        )


async def _first_of(*events: asyncio.Event) -> None:
    """Wait until one of the events is set."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _cut_over(connection: sqlite3.Connection, segment: StoredSegment) -> None:
    """Replace the rows of a hot log by a segment's row, within one transaction, unless the incarnation has ended.

    The head is saved because an append writes only the hot log. Without that: the hot log is emptied, the process
    restarts, the head's row still has an old tail, and the next append is given positions that other bytes have.
    """
    incarnation = segment.key.incarnation
    row = connection.execute(SQL.load_head_of, (incarnation,)).fetchone()
    if row is None:
        return
    connection.execute(SQL.save_head, head_row(StreamName(row[0]), head_of_row(row)))
    connection.execute(SQL.add_segment, segment_row(segment))
    connection.execute(SQL.remove_hot_ranges, (incarnation, segment.key.end))
