"""Rotation, garbage collection, migrations and segment files of the SQLite store, seen in its data folder."""

import asyncio
import errno
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fluvial.model.commit import Applied
from fluvial.model.head import Incarnation
from fluvial.model.lifetime import ExpiresAt, SlidingTtl
from fluvial.model.limits import SEGMENT_BATCHES, SEGMENT_BYTES
from fluvial.storage.batch_range import BatchRange
from fluvial.storage.limits import StoreLimits
from fluvial.storage.sqlite.checksums import row_checksum
from fluvial.storage.sqlite.database import connect, migrate, migrations, preallocate_log
from fluvial.storage.sqlite.garbage_collection import GarbageCollector
from fluvial.storage.sqlite.queries import SQL
from fluvial.storage.sqlite.rotation import HotLogSize, Rotator, is_rotation_due
from fluvial.storage.sqlite.segment_files import SegmentFiles, SegmentKey
from fluvial.storage.sqlite.store import open_sqlite_store
from tests.support.clocks import START_MS, FixedClock
from tests.support.commands import NAME, OTHER, append_commit, close_commit, create_commit, delete_commit
from tests.support.rigs import SqliteRig, eventually, sqlite_rig

FIRST = Incarnation(1)


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[SqliteRig]:
    """A SQLite store whose segments have eight batches."""
    async with sqlite_rig(tmp_path / "small", StoreLimits(segment_batches=8)) as opened:
        yield opened


async def hot_batches(rig: SqliteRig, count: int) -> None:
    """Wait until the hot log has this many batches."""
    query = "SELECT coalesce(sum(batch_count), 0) FROM hot_run"
    await eventually(lambda: rig.query(query) == [(count,)], rig.let_pass)


def segments(rig: SqliteRig) -> list[tuple[object, ...]]:
    """The start, the end and the batches of every segment."""
    return rig.query("SELECT start_offset, end_offset, batch_count FROM segment ORDER BY end_offset")


async def read_all(rig: SqliteRig) -> bytes:
    """All bytes of the stream, read page by page."""
    head = await rig.store.head(NAME)
    assert head is not None
    position, data = 0, b""
    while position < head.tail:
        page = await rig.store.read(NAME, head, position, 100_000)
        data, position = data + page.data, page.end
    return data


async def test_hot_log_of_a_thousand_batches_becomes_a_segment(rig: SqliteRig) -> None:
    """Bytes and offsets stay the same, before and after a restart."""
    await rig.store.apply(NAME, create_commit())
    expected = b""
    for number in range(SEGMENT_BATCHES + 5):
        expected += b"%d," % number
        await rig.store.apply(NAME, append_commit(b"%d," % number))
    await hot_batches(rig, 5)
    [(start, end, batch_count)] = segments(rig)
    assert (start, batch_count) == (0, SEGMENT_BATCHES)
    assert await read_all(rig) == rig.raw_bytes(FIRST) == expected
    await rig.reopen()
    assert await read_all(rig) == expected
    head = await rig.store.head(NAME)
    assert head is not None
    assert (await rig.store.read(NAME, head, int(str(end)), 1)).data == b"1000,"
    assert (await rig.store.read(NAME, head, 2, 3)).data == b"1,"


async def test_hot_log_of_four_mebibytes_becomes_a_segment(rig: SqliteRig) -> None:
    """Even when it is one batch."""
    await rig.store.apply(NAME, create_commit())
    await rig.store.apply(NAME, append_commit(b"a" * SEGMENT_BYTES))
    await rig.store.apply(NAME, append_commit(b"b"))
    await eventually(lambda: len(segments(rig)) == 1, rig.let_pass)
    assert await read_all(rig) == b"a" * SEGMENT_BYTES + b"b"


@pytest.mark.parametrize("is_closed", [False, True], ids=["open", "closed"])
@pytest.mark.parametrize(
    ("size", "is_due_when_open", "is_due_when_closed"),
    [
        (HotLogSize(9, 2), False, True),
        (HotLogSize(10, 2), True, True),
        (HotLogSize(9, 3), True, True),
        (HotLogSize(0, 0), False, False),
        (None, False, True),
    ],
    ids=["partly filled", "enough bytes", "enough batches", "empty", "unknown"],
)
def test_rotation_is_due_for_a_full_hot_log_or_a_closed_stream(
    size: HotLogSize | None,
    *,
    is_due_when_open: bool,
    is_due_when_closed: bool,
    is_closed: bool,
) -> None:
    """A segment here has ten bytes or three batches."""
    limits = StoreLimits(segment_bytes=10, segment_batches=3)
    expected = is_due_when_closed if is_closed else is_due_when_open
    assert is_rotation_due(size, limits, is_closed=is_closed) is expected


async def test_tail_is_right_after_a_restart_before_and_after_rotation(small: SqliteRig) -> None:
    """An append does not write the head's row: the hot log tells the tail, and after a rotation the row does."""
    await small.store.apply(NAME, create_commit())
    for count in range(1, 20):
        await small.store.apply(NAME, append_commit(b"x"))
        await small.reopen()
        head = await small.store.head(NAME)
        assert head is not None
        assert head.tail == count
        assert await read_all(small) == b"x" * count
    assert small.query("SELECT tail FROM stream") > [(0,)]


async def test_time_of_the_last_append_is_right_after_a_restart_before_and_after_rotation(small: SqliteRig) -> None:
    """An append writes it with its batch; a rotation moves that of its last batch to the head's row."""
    await small.store.apply(NAME, create_commit())
    for count in range(1, 20):
        await small.store.apply(NAME, append_commit(now_ms=START_MS + count))
        await small.reopen()
        head = await small.store.head(NAME)
        assert head is not None
        assert head.appended_ms == START_MS + count
    await hot_batches(small, 3)
    assert small.query("SELECT appended_ms FROM stream") == [(START_MS + 16,)]
    await small.store.apply(NAME, close_commit(now_ms=START_MS + 90))
    await hot_batches(small, 0)
    await small.reopen()
    closed = await small.store.head(NAME)
    assert closed is not None
    assert closed.appended_ms == START_MS + 19


async def test_readers_see_every_byte_while_a_stream_rotates(small: SqliteRig) -> None:
    """Two readers read the whole stream again and again, without the cache."""
    await small.store.apply(NAME, create_commit())
    written, is_writing, rounds = bytearray(), True, 0

    async def write() -> None:
        nonlocal is_writing
        for number in range(400):
            written.extend(b"%d," % number)
            await small.store.apply(NAME, append_commit(b"%d," % number))
        is_writing = False

    async def read() -> None:
        nonlocal rounds
        while is_writing:
            small.store._ranges.clear()
            data = await read_all(small)
            assert data == bytes(written[: len(data)])
            rounds += 1
            await asyncio.sleep(0)

    await asyncio.gather(write(), read(), read())
    assert await read_all(small) == bytes(written)
    assert rounds > 3
    assert len(segments(small)) > 3


async def test_closed_stream_moves_whole_into_segments(rig: SqliteRig) -> None:
    """Into as many as it needs, also when the last process was closed before that."""
    await rig.store.apply(NAME, create_commit())
    for _ in range(3):
        await rig.store.apply(NAME, append_commit(b"x" * (SEGMENT_BYTES // 2 + 1)))
    await rig.store.apply(NAME, close_commit())
    await rig.reopen()
    await hot_batches(rig, 0)
    assert len(await read_all(rig)) == 3 * (SEGMENT_BYTES // 2 + 1)


async def test_garbage_collection_deletes_all_rows_and_files_of_a_deleted_stream(rig: SqliteRig) -> None:
    """Those of its hot log, its segments and its producers."""
    await rig.store.apply(NAME, create_commit())
    for number in range(SEGMENT_BATCHES + 5):
        await rig.store.apply(NAME, append_commit(b"%d," % number))
    await hot_batches(rig, 5)
    assert isinstance(await rig.store.apply(NAME, delete_commit()), Applied)
    await eventually(lambda: rig.query("SELECT * FROM ended_life") == [], rig.let_pass)
    for table in ("stream", "hot_run", "segment", "producer"):
        assert rig.query(f"SELECT * FROM {table}") == []  # noqa: S608  a constant above
    assert list(rig.folder.glob("segments/*/*")) == []


async def test_expired_stream_is_deleted_without_a_request(rig: SqliteRig) -> None:
    """Its head and its hot log."""
    await rig.store.apply(NAME, create_commit(body=b"x", lifetime=SlidingTtl(1)))
    rig.still.time.advance(5_000)
    await rig.reopen()
    await eventually(lambda: rig.query("SELECT * FROM stream") == [], rig.let_pass)
    await eventually(lambda: rig.query("SELECT * FROM hot_run") == [], rig.let_pass)


async def test_stream_whose_deadline_is_before_1970_is_deleted(rig: SqliteRig) -> None:
    """A client may create a stream that has expired already."""
    await rig.store.apply(NAME, create_commit(lifetime=ExpiresAt(-315_619_200_000, "1960-01-01T00:00:00Z")))
    rig.store._collector.collect_soon()
    await eventually(lambda: rig.query("SELECT name FROM stream") == [], rig.let_pass)


async def test_unreadable_segment_folder_stops_rotation_but_not_expiry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It may have an orphan with the name of a new segment; expired streams are ended all the same."""
    folder = tmp_path / "data" / "segments" / "01"
    folder.mkdir(parents=True)
    (folder.parent / "no").write_text("a file, not a folder")

    def unreadable(_files: SegmentFiles, listed: Path) -> list[SegmentKey]:
        raise OSError(errno.EIO, "I/O error", str(listed))

    monkeypatch.setattr(SegmentFiles, "keys_in", unreadable)
    async with sqlite_rig(tmp_path / "data") as rig:
        await rig.store.apply(NAME, create_commit(lifetime=ExpiresAt(0, "1970-01-01T00:00:00Z")))
        rig.store._collector.collect_soon()
        await eventually(lambda: rig.query("SELECT name FROM stream") == [], rig.let_pass)
        assert not rig.store._collector.orphans_removed.is_set()
    assert "segments_not_listed" in caplog.text


async def test_stopped_rotator_does_not_set_orphans_removed(tmp_path: Path) -> None:
    """It stops while it waits for that event, which the garbage collector owns."""
    async with sqlite_rig(tmp_path / "data") as rig:
        store, orphans_removed = rig.store, asyncio.Event()
        rotator = Rotator(store._reader, store._files, store._group_commit)
        rotator.start([], orphans_removed)
        await asyncio.wait_for(rotator.stop(), 10)
        assert not orphans_removed.is_set()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), sqlite3.OperationalError("full")])
async def test_failed_rotation_logs_one_line_without_traceback(
    rig: SqliteRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """On a full disk it is tried every five seconds; a traceback each time would hide everything else."""

    def full(_files: SegmentFiles, *_: object) -> SegmentKey:
        raise error

    monkeypatch.setattr(SegmentFiles, "write", full)
    await rig.store.apply(NAME, create_commit(body=b"x" * SEGMENT_BYTES))
    await eventually(lambda: "rotation_failed" in caplog.text, rig.let_pass)
    [record] = [one for one in caplog.records if one.message == "rotation_failed"]
    assert record.exc_info is None
    assert "full" in record.reason or "No space left" in record.reason  # type: ignore[attr-defined]


async def test_garbage_collection_goes_on_after_an_incarnation_that_fails(
    rig: SqliteRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An unexpected error is logged with its traceback."""
    collect = type(rig.store._collector)._collect

    async def failing(collector: GarbageCollector, incarnation: Incarnation) -> None:
        if incarnation == 1:
            raise KeyError
        await collect(collector, incarnation)

    monkeypatch.setattr(GarbageCollector, "_collect", failing)
    for number, name in enumerate((NAME, OTHER), 1):
        await rig.store.apply(name, create_commit(number, body=b"x"))
        await rig.store.apply(name, delete_commit())
    await eventually(lambda: rig.query("SELECT incarnation FROM ended_life") == [(1,)], rig.let_pass)
    assert "KeyError" in caplog.text


async def test_orphans_of_a_crash_are_removed_before_the_first_rotation(rig: SqliteRig) -> None:
    """A complete segment file that the database does not refer to, and an incomplete one; an unknown file stays.

    The complete one has the name that the next rotation writes. Removed later, it would take the new segment's bytes.
    """
    await rig.store.apply(NAME, create_commit(body=b"x" * SEGMENT_BYTES))
    await eventually(lambda: len(segments(rig)) == 1, rig.let_pass)
    [path] = rig.folder.glob("segments/*/*.segment")
    content = path.read_bytes()
    await rig.store.close()
    connection = sqlite3.connect(rig.folder / "fluvial.db")
    row = (FIRST, SEGMENT_BYTES, 0, 1, None, b"x" * SEGMENT_BYTES, START_MS)
    connection.execute("DELETE FROM segment")
    connection.execute("INSERT INTO hot_run VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row, row_checksum(*row)))
    connection.commit()
    connection.close()
    incomplete, unknown = path.with_suffix(".partial"), path.parent / "._notes"
    incomplete.write_bytes(b"half")
    unknown.write_bytes(b"not ours")
    assert path.read_bytes() == content
    rig.store = await open_sqlite_store(rig.folder, rig.still.clock())
    await eventually(lambda: len(segments(rig)) == 1, rig.let_pass)
    assert await read_all(rig) == b"x" * SEGMENT_BYTES
    assert path.read_bytes() == content
    assert not incomplete.exists()
    assert unknown.exists()


async def test_close_makes_all_submitted_commits_durable(tmp_path: Path) -> None:
    """The next process finds them."""
    store = await open_sqlite_store(tmp_path / "data", FixedClock().clock())
    await store.apply(NAME, create_commit())
    answers = [store._group_commit.submit(NAME, append_commit(b"x"), 1) for _ in range(100)]
    await store.close()
    assert all(isinstance(answer.result(), Applied) for answer in answers)
    again = await open_sqlite_store(tmp_path / "data", FixedClock().clock())
    head = await again.head(NAME)
    assert head is not None
    assert head.tail == 100
    await again.close()


#: The schema whose rows have checksums.
CHECKSUMS_SINCE = 8


@pytest.mark.parametrize("version", [number for number, _ in migrations()[:-1]])
async def test_data_of_every_older_schema_is_migrated(tmp_path: Path, version: int) -> None:
    """The old stream is there, and takes appends and a close."""
    folder = tmp_path / "data"
    folder.mkdir()
    connection = connect(folder / "fluvial.db")
    for number, script in migrations()[:version]:
        connection.executescript(f"{script}; PRAGMA user_version = {number};")
    config = b'{"content_type":"text/plain"}'
    connection.execute(
        "INSERT INTO stream (name, incarnation, config, tail, closed, stream_seq, references_, soft_deleted, "
        "producer_count) VALUES (?, 1, ?, 5, 0, 'seq', 0, 0, 1)",
        (NAME, config),
    )
    connection.execute(
        "INSERT INTO hot_run (incarnation, end_offset, start_offset, batch_count, ends, data) "
        "VALUES (1, 5, 0, 1, NULL, ?)",
        (b"older",),
    )
    connection.execute("INSERT INTO producer (incarnation, producer_id, epoch, seq) VALUES (1, 'p', 3, 4)")
    if version >= CHECKSUMS_SINCE:
        for statement in dict(migrations())[CHECKSUMS_SINCE].split(";"):
            if "UPDATE" in statement:
                connection.execute(statement)
    connection.close()
    store = await open_sqlite_store(folder, FixedClock().clock())
    older = await store.head(NAME)
    assert older is not None
    assert (older.tail, older.appended_ms) == (5, None)
    await store.apply(NAME, append_commit(b"newer"))
    await store.apply(NAME, close_commit())
    head = await store.head(NAME)
    assert head is not None
    assert head.appended_ms == START_MS
    assert (await store.read(NAME, head, 0, 100)).data == b"oldernewer"
    assert (head.stream_seq, head.producer_count, head.closed) == ("seq", 1, True)
    await store.close()


def test_second_migration_changes_nothing(tmp_path: Path) -> None:
    """The schema's version says which steps are done."""
    connection = connect(tmp_path / "fluvial.db")
    migrate(connection)
    before = connection.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
    migrate(connection)
    assert connection.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall() == before
    connection.close()


def test_segment_file_returns_only_the_batches_asked_for(tmp_path: Path) -> None:
    """The batch ends after the data say where they are."""
    (tmp_path / "segments").mkdir()
    files = SegmentFiles(tmp_path / "segments")
    segment = files.write(FIRST, BatchRange(10, (13, 15, 20), b"aaabbccccc"))
    assert files.read(segment, 13, 3) == BatchRange(13, (15,), b"bb")
    assert files.read(segment, 10, 100) == BatchRange(10, (13, 15, 20), b"aaabbccccc")
    assert files.read(segment, 15, 1) == BatchRange(15, (20,), b"ccccc")
    assert [files.keys_in(folder) for folder in files.folders()] == [[segment.key]]


def test_failed_segment_write_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk gets no fuller."""

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    files = SegmentFiles(tmp_path / "segments")
    key = files.write(FIRST, BatchRange(0, (1,), b"a")).key
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        files.write(FIRST, BatchRange(1, (2,), b"b"))
    assert [path.name for path in files.path_of(key).parent.iterdir()] == [files.path_of(key).name]


async def test_orphan_that_cannot_be_removed_does_not_stop_rotation(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once."""
    orphan = tmp_path / "data" / "segments" / "01" / f"{1:016x}-{0:016d}-{9:016d}.segment"
    for folder in (orphan, orphan.with_suffix(".partial")):
        folder.mkdir(parents=True)
    async with sqlite_rig(tmp_path / "data") as rig:
        await rig.store.apply(NAME, create_commit(body=b"x", incarnation=2))
        await rig.store.apply(NAME, close_commit())
        await eventually(lambda: segments(rig) != [], rig.let_pass)
    assert caplog.text.count("file_left") == 2


def test_expired_streams_are_found_through_the_index(tmp_path: Path) -> None:
    """The query does not look at streams without a deadline."""
    connection = connect(tmp_path / "fluvial.db")
    migrate(connection)
    [*_, plan] = connection.execute("EXPLAIN QUERY PLAN " + SQL.expired_names, (9, 0, "", 5)).fetchall()
    assert "stream_by_deadline ((live_until_ms,name)>(?,?) AND live_until_ms<?)" in plan[-1]
    connection.close()


def test_store_opens_on_a_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The write-ahead log cannot have its full size, which readers do not need."""
    connection = connect(tmp_path / "fluvial.db")
    migrate(connection)
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    preallocate_log(connection)
    assert not connection.in_transaction
    assert "log_not_preallocated" in caplog.text
    connection.close()
