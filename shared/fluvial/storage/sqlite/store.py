"""SqliteStore: the store of one process, on one disk.

Heads and recent batches (the hot log) are in a database, old batches in segment files. All writes go through
`group_commit`. Reads use a second connection, which sees every durable transaction and never waits for the writer.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Sequence
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
from fluvial.model.head import Head, Incarnation, ProducerStamp, ProducerState, Span
from fluvial.model.names import HIGHEST, StreamName
from fluvial.model.page import Page
from fluvial.storage.batch_range import BatchRange, concatenate, read_ranges
from fluvial.storage.failures import log_failure
from fluvial.storage.limits import STORE_LIMITS, StoreLimits
from fluvial.storage.notifier import HeadNotifier, has_changed
from fluvial.storage.observer import UNOBSERVED, StoreObserver, StoreSize
from fluvial.storage.projects import Projects
from fluvial.storage.renewals import Renewals
from fluvial.storage.signing_keys import SigningKeys
from fluvial.storage.sqlite.checkpoints import overwrite_log
from fluvial.storage.sqlite.database import DATABASE, connect, open_database, open_folder
from fluvial.storage.sqlite.folder_size import check_free_bytes, measure_folder
from fluvial.storage.sqlite.garbage_collection import GarbageCollector
from fluvial.storage.sqlite.group_changes import GroupChanges
from fluvial.storage.sqlite.group_commit import GroupCommit
from fluvial.storage.sqlite.projects import SqliteProjects
from fluvial.storage.sqlite.queries import SQL
from fluvial.storage.sqlite.rotation import Rotator, find_due
from fluvial.storage.sqlite.rows import (
    Row,
    batch_range_of_row,
    follower_of_row,
    follower_row,
    head_of_row,
    producer_of_row,
    segment_of_row,
)
from fluvial.storage.sqlite.segment_files import SegmentFiles
from fluvial.storage.sqlite.subscriptions import SqliteSubscriptions
from fluvial.storage.subscriptions import ChangeListener, Subscriptions

log = logging.getLogger(__name__)

#: The weight of all cached heads. A head weighs 1, a few hundred bytes, and 1 more for every four producers or cursors.
#: A name without a stream is cached, too, and weighs 1.
HEAD_CACHE_WEIGHT: Final = 20_000
PRODUCERS_PER_WEIGHT: Final = 4

#: Recently written and recently read batch ranges, by their incarnation and start.
RANGE_CACHE_BYTES: Final = 64 * 1_048_576

#: The heads that one query loads: other requests are served between two queries.
HEADS_PER_QUERY: Final = 100

#: The memory of a cached range besides its bytes.
_RANGE_OVERHEAD_BYTES: Final = 256
_BATCH_OVERHEAD_BYTES: Final = 40

_RangeKey = tuple[Incarnation, int]


class SqliteStore:
    """One process's streams in one data folder. `open_sqlite_store` makes it, on the event loop that will use it."""

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        limits: StoreLimits = STORE_LIMITS,
        observer: StoreObserver = UNOBSERVED,
    ) -> None:
        """Take the folder's lock, open its databases and start the background tasks. Raises StartupError."""
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
                due = list(find_due(self._reader, limits))
            except (OSError, sqlite3.Error) as exc:
                raise StartupError(f"cannot open the data in {folder}: {exc}") from exc
            opened.pop_all()
        self.projects: Projects = projects
        self.signing_keys: SigningKeys = projects.signing_keys
        self._folder, self._limits = folder, limits
        self._close_projects = projects.close
        self._heads: LRUCache[StreamName, Head | None] = LRUCache(HEAD_CACHE_WEIGHT, getsizeof=_head_weight)
        self._ranges: LRUCache[_RangeKey, BatchRange] = LRUCache(RANGE_CACHE_BYTES, getsizeof=_memory_bytes)
        self._notifier = HeadNotifier()
        self._group_commit = GroupCommit(self._writer, self._durable_head, self._on_durable, limits, observer)
        self.subscriptions: Subscriptions = SqliteSubscriptions(self._reader, self._group_commit)
        self._listener: ChangeListener | None = None
        self._renewals = Renewals(self.apply)
        self._rotator = Rotator(self._reader, self._files, self._group_commit, limits, observer)
        self._collector = GarbageCollector(self.apply, clock.now_ms, self._reader, self._files, self._group_commit)
        self._collector.start()
        self._rotator.start(due, self._collector.orphans_removed)

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

    async def read(self, name: StreamName, head: Head, start: int, byte_count_max: int) -> Page:  # noqa: ARG002  the head is enough here
        """See Store.read: from the cache, else from the hot log on the loop, else from a file on a thread."""
        ranges = await read_ranges(head, start, byte_count_max, partial(self._load_range, head))
        whole = concatenate(ranges)
        if len(ranges) > 1 and whole.start >= head.own_start:
            self._cache_range(head.incarnation, whole)
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
        return [
            StreamName(row[0]) for row in self._fetch_rows(SQL.names_after, prefix, after, prefix + HIGHEST, count_max)
        ]

    async def heads(self, names: Sequence[StreamName]) -> list[Head | None]:
        """See Store.heads. They are not cached: a list of many streams must not evict the heads that writers need."""
        found = dict[str, Head]()
        for first in range(0, len(names), HEADS_PER_QUERY):
            asked = msgspec.json.encode(names[first : first + HEADS_PER_QUERY]).decode()
            try:
                found |= {row[0]: head_of_row(row) for row in self._fetch_rows(SQL.load_heads, asked)}
            except (StorageDamaged, msgspec.DecodeError) as exc:
                log_failure(log, "head_unreadable", exc)
                raise StoreUnavailable from exc
            await asyncio.sleep(0)
        return [found.get(name) for name in names]

    async def producers(self, head: Head, count_max: int) -> list[ProducerStamp]:
        """See Store.producers."""
        return [producer_of_row(row) for row in self._fetch_rows(SQL.producers_of, head.incarnation, count_max)]

    async def undelivered(self, after: str, count_max: int) -> list[StreamName]:
        """See UndeliveredIndex.undelivered."""
        return [StreamName(row[0]) for row in self._fetch_rows(SQL.undelivered_names, after, count_max)]

    def listen(self, listener: ChangeListener) -> None:
        """See SubscriptionStore.listen."""
        self._listener = listener

    async def add_follower(self, source: Incarnation, follower: Follower) -> None:
        """See Store.add_follower."""
        row = follower_row(source, follower)
        await self._group_commit.submit_work(lambda connection: _execute(connection, SQL.add_follower, row))

    async def remove_follower(self, source: Incarnation, follower: Follower) -> None:
        """See Store.remove_follower."""
        row = (source, follower.estuary, follower.subscription)
        await self._group_commit.submit_work(lambda connection: _execute(connection, SQL.remove_follower, row))

    async def followers(self, source: Incarnation, after: str, count_max: int) -> list[Follower]:
        """See Store.followers."""
        return [follower_of_row(row) for row in self._fetch_rows(SQL.followers_after, source, after, count_max)]

    async def follower(self, source: Incarnation, estuary: StreamName) -> Follower | None:
        """See Store.follower."""
        rows = self._fetch_rows(SQL.load_follower, source, estuary)
        return follower_of_row(rows[0]) if rows else None

    async def measure(self) -> StoreSize:
        """See MeasuredStore.measure."""
        return await asyncio.to_thread(measure_folder, self._folder)

    async def probe_write(self) -> None:
        """See WriteProbe.probe_write: it takes its turn with the groups, and is fsynced as they are."""
        await asyncio.to_thread(check_free_bytes, self._folder, self._limits.free_disk_bytes_min)
        await self._group_commit.submit_work(overwrite_log)

    async def close(self) -> None:
        """See Store.close. From the last line to the first: those that submit transactions stop before the writer."""
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._lock.release)
            stack.callback(self._writer.close)
            stack.callback(self._reader.close)
            stack.callback(self._close_projects)
            stack.push_async_callback(self._group_commit.close)
            stack.push_async_callback(self._rotator.stop)
            stack.push_async_callback(self._collector.stop)
            stack.push_async_callback(self._renewals.close)

    def _fetch_rows(self, statement: str, *parameters: object) -> list[Row]:
        try:
            return self._reader.execute(statement, parameters).fetchall()
        except sqlite3.Error as exc:
            log_failure(log, "rows_unreadable", exc)
            raise StoreUnavailable from exc

    def _load_head(self, name: StreamName) -> Head | None:
        try:
            row = self._reader.execute(SQL.load_head, (name,)).fetchone()
            head = None if row is None else head_of_row(row)
        except (sqlite3.Error, StorageDamaged, msgspec.DecodeError) as exc:
            log_failure(log, "head_unreadable", exc, stream=name)
            raise StoreUnavailable from exc
        self._heads[name] = head
        return head

    def _durable_head(self, name: StreamName, producer_id: str | None) -> Head | None:
        """The head as the database has it, with the state of one producer if that has any; see LoadHead."""
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
        stamp = producer_of_row(row)
        return replace(head, producers={**head.producers, producer_id: ProducerState(stamp.epoch, stamp.seq)})

    def _on_durable(self, changes: GroupChanges) -> None:
        """Make a durable group visible: to later calls, to live reads and to the background tasks."""
        # First, because the rest may fail: the next group is evaluated on these heads.
        self._heads.update(changes.heads)
        for name, head in changes.heads.items():
            before = changes.heads_before[name]
            if self._notifier.has_waiters(name) and (before is None or has_changed(head, before)):
                if head is not None:  # all the readers that are notified ask for the same bytes
                    for added in changes.ranges.get(head.incarnation, []):
                        self._cache_range(head.incarnation, added)
                self._notifier.notify(name, head)
        for name, head in changes.heads.items():
            if self._listener is not None:
                self._listener(name, changes.heads_before[name], head)
            if head is not None:
                self._rotator.on_append(head, changes.ranges.get(head.incarnation, []))
        if changes.dropped:
            self._rotator.on_deleted(changes.dropped)
            self._collector.collect_soon()

    def _cache_range(self, incarnation: Incarnation, cached: BatchRange) -> None:
        if _memory_bytes(cached) <= self._ranges.maxsize:
            self._ranges[incarnation, cached.start] = cached

    async def _load_range(self, head: Head, span: Span, position: int, byte_count_max: int) -> BatchRange:
        """See LoadRange. The hot log is asked before the segments, because batches move from it to them.

        Asked the other way round, a rotation between the two queries would hide the batches from both.
        """
        incarnation = span.incarnation
        cached = self._ranges.get((incarnation, position))
        if cached is not None:
            return cached
        try:
            found = self._load_hot_range(incarnation, position, byte_count_max)
            if found is not None:
                found = found.cut(position, found.end, byte_count_max)
                self._cache_range(incarnation, found)
                return found
            row = self._reader.execute(SQL.segment_after, (incarnation, position)).fetchone()
            if row is not None and row[2] <= position:
                found = await asyncio.to_thread(self._files.read, segment_of_row(row), position, byte_count_max)
                self._cache_range(incarnation, found)
                return found
            incarnation_row = self._reader.execute(SQL.has_incarnation, (incarnation,)).fetchone()
        except sqlite3.Error as exc:
            log_failure(log, "hot_log_unreadable", exc, incarnation=f"{incarnation:x}")
            raise StorageDamaged from exc
        except StorageDamaged as exc:
            if not self._reader.execute(SQL.has_incarnation, (incarnation,)).fetchone():
                raise StreamVanished from exc
            log.error("bytes_unreadable", extra={"incarnation": f"{incarnation:x}", "reason": str(exc)})  # noqa: TRY400  the message says everything
            raise
        if incarnation_row is None:
            raise StreamVanished
        log.error(
            "bytes_missing",
            extra={"incarnation": f"{incarnation:x}", "position": position, "tail": head.tail},
        )
        raise StorageDamaged

    def _load_hot_range(self, incarnation: Incarnation, position: int, byte_count_max: int) -> BatchRange | None:
        """The hot log's batches around `position` and after it, about `byte_count_max`; None when it begins later."""
        ranges, end_max = list[BatchRange](), position + byte_count_max
        for row in self._reader.execute(SQL.hot_ranges_after, (incarnation, position)):
            if not ranges and row[2] > position:
                return None
            ranges.append(batch_range_of_row(row))
            if ranges[-1].end >= end_max:
                break
        return concatenate(ranges) if ranges else None


def _head_weight(head: Head | None) -> int:
    return 1 if head is None else 1 + (len(head.producers) + len(head.cursors)) // PRODUCERS_PER_WEIGHT


def _execute(connection: sqlite3.Connection, statement: str, row: Row) -> None:
    connection.execute(statement, row)


def _memory_bytes(cached: BatchRange) -> int:
    return len(cached.data) + _BATCH_OVERHEAD_BYTES * len(cached.ends) + _RANGE_OVERHEAD_BYTES


async def open_sqlite_store(
    folder: Path, clock: Clock, limits: StoreLimits = STORE_LIMITS, observer: StoreObserver = UNOBSERVED
) -> SqliteStore:
    """Open the store of a data folder on the running event loop. Raises StartupError."""
    return SqliteStore(folder, clock, limits, observer)
