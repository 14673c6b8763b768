"""SqliteStore: heads and recent batches in a database, old batches in segment files, all behind the contract."""

import asyncio
import contextlib
import logging
import sqlite3
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
from cachetools import LRUCache
from msgspec.structs import replace

from fluvial.clock import Clock
from fluvial.model.commit import Commit, Outcome, added_byte_count
from fluvial.model.errors import StartupError, StorageDamaged, StoreUnavailable, StreamVanished
from fluvial.model.followers import Follower
from fluvial.model.head import Head, Incarnation, ProducerState, Span
from fluvial.model.names import HIGHEST, StreamName
from fluvial.model.page import Page
from fluvial.storage.batch_range import BatchRange, concatenate, read_ranges
from fluvial.storage.failures import log_failure
from fluvial.storage.limits import STORE_LIMITS, StoreLimits
from fluvial.storage.notifier import HeadNotifier, has_changed
from fluvial.storage.projects import Projects
from fluvial.storage.renewals import Renewals
from fluvial.storage.sqlite.database import DATABASE, connect, open_database, open_folder
from fluvial.storage.sqlite.garbage_collection import GarbageCollector
from fluvial.storage.sqlite.group import Group
from fluvial.storage.sqlite.group_commit import GroupCommit
from fluvial.storage.sqlite.projects import SqliteProjects
from fluvial.storage.sqlite.queries import SQL
from fluvial.storage.sqlite.rotation import Rotator
from fluvial.storage.sqlite.rows import Row, follower_of_row, follower_row, head_of_row, run_of_row
from fluvial.storage.sqlite.segment_files import SegmentFiles, SegmentKey

log = logging.getLogger(__name__)

#: Heads are a few hundred bytes each, and so are four producers; names that nothing is at are remembered, too.
HEADS_CACHED_MAX: Final = 20_000
PRODUCERS_PER_SHARE: Final = 4

#: Recent batches and pages that were read lately, by the position where they begin.
RUN_CACHE_BYTES: Final = 64 * 1_048_576

#: What a run costs in memory besides its bytes.
_RUN_OVERHEAD_BYTES: Final = 256
_BATCH_OVERHEAD_BYTES: Final = 40

_RunKey = tuple[Incarnation, int]


class SqliteStore:
    """One process's streams in one data folder. Made by `open_sqlite_store`, on the loop that will use it."""

    def __init__(self, folder: Path, clock: Clock, limits: StoreLimits = STORE_LIMITS) -> None:
        """Open the folder. Raises StartupError when that cannot be done, e.g. because another process has it."""
        with contextlib.ExitStack() as opened:
            self._lock = open_folder(folder)
            opened.callback(self._lock.release)
            self._writer = open_database(folder / DATABASE)
            opened.callback(self._writer.close)
            try:
                self._reader = connect(folder / DATABASE)
                opened.callback(self._reader.close)
                self._files = SegmentFiles(folder / "segments")
                projects = SqliteProjects(folder)
                opened.callback(projects.close)
                overfull = overfull_lives(self._reader, limits)
            except (OSError, sqlite3.Error) as exc:
                raise StartupError(f"cannot open the data in {folder}: {exc}") from exc
            opened.pop_all()
        self.projects: Projects = projects
        self._close_projects = projects.close
        self._heads: LRUCache[StreamName, Head | None] = LRUCache(HEADS_CACHED_MAX, getsizeof=_shares)
        self._runs: LRUCache[_RunKey, BatchRange] = LRUCache(RUN_CACHE_BYTES, getsizeof=_memory_bytes)
        self._notifier = HeadNotifier()
        self._group_commit = GroupCommit(self._writer, self._durable_head, self._landed, limits)
        self._renewals = Renewals(self.apply)
        self._rotator = Rotator(self._reader, self._files, self._group_commit, limits)
        self._collector = GarbageCollector(self.apply, clock.now_ms, self._reader, self._files, self._group_commit)
        self._collector.start()
        self._rotator.start(overfull, self._collector.orphans_removed)

    async def apply(self, name: StreamName, commit: Commit) -> Outcome:
        """See Store.apply."""
        return await self._group_commit.submit(name, commit, added_byte_count(commit))

    async def renew(self, name: StreamName, now_ms: int) -> None:
        """See Store.renew."""
        await self._renewals.renew(name, now_ms)

    async def head(self, name: StreamName) -> Head | None:
        """See Store.head."""
        try:
            return self._heads[name]
        except KeyError:
            return self._load_head(name)

    async def read(self, name: StreamName, head: Head, start: int, byte_count_max: int) -> Page:  # noqa: ARG002  a life is enough here
        """See Store.read: from the cache, else from the hot log on the loop, else from a file on a thread."""
        runs = await read_ranges(head, start, byte_count_max, partial(self._run_at, head))
        whole = concatenate(runs)
        if len(runs) > 1 and whole.start >= head.own_start:
            self._remember(head.incarnation, whole)
        return Page(whole.start, whole.end, whole.data, whole.ends)

    async def wait(self, name: StreamName, seen: Head, timeout_s: float) -> Head | None:
        """See Store.wait."""
        head = await self.head(name)
        if has_changed(head, seen):
            return head
        try:
            return await self._notifier.wait(name, timeout_s)
        except TimeoutError:
            return await self.head(name)

    async def names(self, prefix: str, after: str, count_max: int) -> list[StreamName]:
        """See Store.names."""
        return [StreamName(row[0]) for row in self._rows(SQL.names_after, prefix, after, prefix + HIGHEST, count_max)]

    async def undelivered(self, after: str, count_max: int) -> list[StreamName]:
        """See UndeliveredIndex.undelivered."""
        return [StreamName(row[0]) for row in self._rows(SQL.undelivered, after, count_max)]

    async def add_follower(self, source: Incarnation, follower: Follower) -> None:
        """See Store.add_follower."""
        row = follower_row(source, follower)
        await self._group_commit.submit_work(lambda connection: _run(connection, SQL.add_follower, row))

    async def remove_follower(self, source: Incarnation, follower: Follower) -> None:
        """See Store.remove_follower."""
        row = (source, follower.estuary, follower.subscription)
        await self._group_commit.submit_work(lambda connection: _run(connection, SQL.remove_follower, row))

    async def followers(self, source: Incarnation, after: str, count_max: int) -> list[Follower]:
        """See Store.followers."""
        return [follower_of_row(row) for row in self._rows(SQL.followers_after, source, after, count_max)]

    async def follower(self, source: Incarnation, estuary: StreamName) -> Follower | None:
        """See Store.follower."""
        rows = self._rows(SQL.follower, source, estuary)
        return follower_of_row(rows[0]) if rows else None

    async def close(self) -> None:
        """See Store.close."""
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._lock.release)
            stack.callback(self._writer.close)
            stack.callback(self._reader.close)
            stack.callback(self._close_projects)
            stack.push_async_callback(self._group_commit.close)
            stack.push_async_callback(self._rotator.stop)
            stack.push_async_callback(self._collector.stop)
            stack.push_async_callback(self._renewals.close)

    def _rows(self, statement: str, *parameters: object) -> list[Row]:
        try:
            return self._reader.execute(statement, parameters).fetchall()
        except sqlite3.Error as exc:
            log_failure(log, "rows_unreadable", exc)
            raise StoreUnavailable from exc

    def _load_head(self, name: StreamName) -> Head | None:
        try:
            row = self._reader.execute(SQL.load_head, (name,)).fetchone()
            head = None if row is None else head_of_row(row)
        except (sqlite3.Error, msgspec.DecodeError) as exc:
            log_failure(log, "head_unreadable", exc, stream=name)
            raise StoreUnavailable from exc
        self._heads[name] = head
        return head

    def _durable_head(self, name: StreamName, producer_id: str | None) -> Head | None:
        """The head as the database has it, with the state of one producer if it has any."""
        try:
            head = self._heads[name]
        except KeyError:
            head = self._load_head(name)
        if producer_id is None or head is None or producer_id in head.producers:
            return head
        if head.producer_count == len(head.producers):
            return head
        row = self._reader.execute(SQL.load_producer, (head.incarnation, producer_id)).fetchone()
        if row is None:
            return head
        return replace(head, producers={**head.producers, producer_id: ProducerState(*row)})

    def _landed(self, group: Group) -> None:
        """Let everybody see a group that is durable now."""
        self._heads.update(group.heads)  # before anything else can fail: the next group is judged on them
        for name, head in group.heads.items():
            before = group.heads_before[name]
            if self._notifier.has_waiters(name) and (before is None or has_changed(head, before)):
                if head is not None:  # the readers that wake now all ask for the same bytes
                    for run in group.runs.get(head.incarnation, []):
                        self._remember(head.incarnation, run)
                self._notifier.notify(name, head)
        for head in group.heads.values():
            if head is not None:
                self._rotator.grown(head, group.runs.get(head.incarnation, []))
        if group.dropped:
            self._rotator.forget(group.dropped)
            self._collector.wake()

    def _remember(self, incarnation: Incarnation, run: BatchRange) -> None:
        if _memory_bytes(run) <= self._runs.maxsize:
            self._runs[incarnation, run.start] = run

    async def _run_at(self, head: Head, span: Span, position: int, byte_count_max: int) -> BatchRange:
        """A run of the span's life that has `position`, and as much after it as is at hand."""
        incarnation = span.incarnation
        cached = self._runs.get((incarnation, position))
        if cached is not None:
            return cached
        try:
            run = self._hot_run(incarnation, position, byte_count_max)
            if run is not None:
                run = run.cut(position, run.end, byte_count_max)
                self._remember(incarnation, run)
                return run
            row = self._reader.execute(SQL.segment_after, (incarnation, position)).fetchone()
            if row is not None and row[0] <= position:
                key = SegmentKey(incarnation, row[0], row[1])
                run = await asyncio.to_thread(self._files.read, key, row[2], position, byte_count_max)
                self._remember(incarnation, run)
                return run
            goes_on = self._reader.execute(SQL.has_life, (incarnation,)).fetchone()
        except sqlite3.Error as exc:
            log_failure(log, "hot_log_unreadable", exc, incarnation=f"{incarnation:x}")
            raise StorageDamaged from exc
        except StorageDamaged as exc:
            if not self._reader.execute(SQL.has_life, (incarnation,)).fetchone():
                raise StreamVanished from exc
            log.error("segment_unreadable", extra={"incarnation": f"{incarnation:x}", "reason": str(exc)})  # noqa: TRY400  its message says all
            raise
        if goes_on is None:
            raise StreamVanished
        log.error(
            "bytes_missing",
            extra={"incarnation": f"{incarnation:x}", "position": position, "tail": head.tail},
        )
        raise StorageDamaged

    def _hot_run(self, incarnation: Incarnation, position: int, byte_count_max: int) -> BatchRange | None:
        """The hot log's batches around and after `position`, until they are enough; None when it begins later."""
        runs, end_max = list[BatchRange](), position + byte_count_max
        for row in self._reader.execute(SQL.hot_runs_after, (incarnation, position)):
            if not runs and row[0] > position:
                return None
            runs.append(run_of_row(row))
            if runs[-1].end >= end_max:
                break
        return concatenate(runs) if runs else None


def overfull_lives(reader: sqlite3.Connection, limits: StoreLimits) -> list[Incarnation]:
    """Lives that a rotation was due for when the last process ended."""
    rows = reader.execute(SQL.overfull_lives, (limits.segment_bytes, limits.segment_batches))
    return [Incarnation(row[0]) for row in rows]


def _shares(head: Head | None) -> int:
    return 1 if head is None else 1 + (len(head.producers) + len(head.cursors)) // PRODUCERS_PER_SHARE


def _run(connection: sqlite3.Connection, statement: str, row: Row) -> None:
    connection.execute(statement, row)


def _memory_bytes(run: BatchRange) -> int:
    return len(run.data) + _BATCH_OVERHEAD_BYTES * len(run.ends) + _RUN_OVERHEAD_BYTES


async def open_sqlite_store(folder: Path, clock: Clock, limits: StoreLimits = STORE_LIMITS) -> SqliteStore:
    """The store of a data folder. Raises StartupError."""
    return SqliteStore(folder, clock, limits)
