"""What happens in the background of the embedded store, seen in its folder."""

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
from fluvial.storage.sqlite import rotation
from fluvial.storage.sqlite.database import connect, migrate, migrations, preallocate_log
from fluvial.storage.sqlite.garbage_collection import GarbageCollector
from fluvial.storage.sqlite.queries import SQL
from fluvial.storage.sqlite.segment_files import SegmentFiles, SegmentKey
from fluvial.storage.sqlite.store import open_sqlite_store
from tests.support.clocks import FixedClock
from tests.support.commands import NAME, OTHER, append_commit, close_commit, create_commit, delete_commit
from tests.support.rigs import SqliteRig, eventually, sqlite_rig

LIFE = Incarnation(1)


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[SqliteRig]:
    """A SQLite store whose segments have eight batches."""
    async with sqlite_rig(tmp_path / "small", StoreLimits(segment_batches=8)) as opened:
        yield opened


async def hot_batches(rig: SqliteRig, count: int) -> None:
    """Wait until so many batches are in the hot log."""
    query = "SELECT coalesce(sum(batch_count), 0) FROM hot_run"
    await eventually(lambda: rig.query(query) == [(count,)], rig.let_pass)


def segments(rig: SqliteRig) -> list[tuple[object, ...]]:
    """Where the segments begin and end."""
    return rig.query("SELECT start_offset, end_offset, batch_count FROM segment ORDER BY end_offset")


async def all_bytes(rig: SqliteRig) -> bytes:
    """The stream, read page by page."""
    head = await rig.store.head(NAME)
    assert head is not None
    position, data = 0, b""
    while position < head.tail:
        page = await rig.store.read(NAME, head, position, 100_000)
        data, position = data + page.data, page.end
    return data


async def test_a_thousand_batches_become_a_segment(rig: SqliteRig) -> None:
    """Bytes and offsets stay as they were, in memory and after a restart."""
    await rig.store.apply(NAME, create_commit())
    expected = b""
    for number in range(SEGMENT_BATCHES + 5):
        expected += b"%d," % number
        await rig.store.apply(NAME, append_commit(b"%d," % number))
    await hot_batches(rig, 5)
    [(start, end, batch_count)] = segments(rig)
    assert (start, batch_count) == (0, SEGMENT_BATCHES)
    assert await all_bytes(rig) == rig.raw_bytes(LIFE) == expected
    await rig.reopen()
    assert await all_bytes(rig) == expected
    head = await rig.store.head(NAME)
    assert head is not None
    assert (await rig.store.read(NAME, head, int(str(end)), 1)).data == b"1000,"
    assert (await rig.store.read(NAME, head, 2, 3)).data == b"1,"


async def test_four_mebibytes_become_a_segment(rig: SqliteRig) -> None:
    """However few batches they are."""
    await rig.store.apply(NAME, create_commit())
    await rig.store.apply(NAME, append_commit(b"a" * SEGMENT_BYTES))
    await rig.store.apply(NAME, append_commit(b"b"))
    await eventually(lambda: len(segments(rig)) == 1, rig.let_pass)
    assert await all_bytes(rig) == b"a" * SEGMENT_BYTES + b"b"


async def test_a_tail_is_known_wherever_the_bytes_are(small: SqliteRig) -> None:
    """An append writes no head; after a restart the hot log tells the tail, and once that has been moved, the head."""
    await small.store.apply(NAME, create_commit())
    for count in range(1, 20):
        await small.store.apply(NAME, append_commit(b"x"))
        await small.reopen()
        head = await small.store.head(NAME)
        assert head is not None
        assert head.tail == count
        assert await all_bytes(small) == b"x" * count
    assert small.query("SELECT tail FROM stream") > [(0,)]


async def test_readers_see_every_byte_while_a_stream_rotates(small: SqliteRig) -> None:
    """The whole stream in a loop, from wherever it is by then, past the cache."""
    await small.store.apply(NAME, create_commit())
    landed, is_writing, rounds = bytearray(), True, 0

    async def write() -> None:
        nonlocal is_writing
        for number in range(400):
            landed.extend(b"%d," % number)
            await small.store.apply(NAME, append_commit(b"%d," % number))
        is_writing = False

    async def read() -> None:
        nonlocal rounds
        while is_writing:
            small.store._runs.clear()
            data = await all_bytes(small)
            assert data == bytes(landed[: len(data)])
            rounds += 1
            await asyncio.sleep(0)

    await asyncio.gather(write(), read(), read())
    assert await all_bytes(small) == bytes(landed)
    assert rounds > 3
    assert len(segments(small)) > 3


async def test_a_closed_stream_leaves_the_hot_log(rig: SqliteRig) -> None:
    """All of it, in as many segments as it needs, also when that was left over from the last process."""
    await rig.store.apply(NAME, create_commit())
    for _ in range(3):
        await rig.store.apply(NAME, append_commit(b"x" * (SEGMENT_BYTES // 2 + 1)))
    await rig.store.apply(NAME, close_commit())
    await rig.reopen()
    await hot_batches(rig, 0)
    assert len(await all_bytes(rig)) == 3 * (SEGMENT_BYTES // 2 + 1)


async def test_an_ended_life_leaves_nothing_behind(rig: SqliteRig) -> None:
    """Neither rows nor files, once it is collected."""
    await rig.store.apply(NAME, create_commit())
    for number in range(SEGMENT_BATCHES + 5):
        await rig.store.apply(NAME, append_commit(b"%d," % number))
    await hot_batches(rig, 5)
    assert isinstance(await rig.store.apply(NAME, delete_commit()), Applied)
    await eventually(lambda: rig.query("SELECT * FROM ended_life") == [], rig.let_pass)
    for table in ("stream", "hot_run", "segment", "producer"):
        assert rig.query(f"SELECT * FROM {table}") == []  # noqa: S608  a constant above
    assert list(rig.folder.glob("segments/*/*")) == []


async def test_an_expired_stream_is_collected_without_being_asked_for(rig: SqliteRig) -> None:
    """Also one whose deadline is the beginning of time."""
    await rig.store.apply(NAME, create_commit(body=b"x", lifetime=SlidingTtl(1)))
    rig.still.time.advance(5_000)
    await rig.reopen()
    await eventually(lambda: rig.query("SELECT * FROM stream") == [], rig.let_pass)
    await eventually(lambda: rig.query("SELECT * FROM hot_run") == [], rig.let_pass)


async def test_a_stream_that_had_expired_long_before_it_began_is_collected(rig: SqliteRig) -> None:
    """A deadline may lie before 1970."""
    await rig.store.apply(NAME, create_commit(lifetime=ExpiresAt(-315_619_200_000, "1960-01-01T00:00:00Z")))
    rig.store._collector.wake()
    await eventually(lambda: rig.query("SELECT name FROM stream") == [], rig.let_pass)


async def test_a_folder_that_cannot_be_listed_holds_up_rotation_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A new segment could be taken for what is in it; expired streams end all the same."""
    folder = tmp_path / "data" / "segments" / "01"
    folder.mkdir(parents=True)
    (folder.parent / "no").write_text("a plain file is none")

    def unreadable(_files: SegmentFiles, listed: Path) -> list[SegmentKey]:
        raise OSError(errno.EIO, "I/O error", str(listed))

    monkeypatch.setattr(SegmentFiles, "keys_in", unreadable)
    async with sqlite_rig(tmp_path / "data") as rig:
        await rig.store.apply(NAME, create_commit(lifetime=ExpiresAt(0, "1970-01-01T00:00:00Z")))
        rig.store._collector.wake()
        await eventually(lambda: rig.query("SELECT name FROM stream") == [], rig.let_pass)
        assert not rig.store._collector.orphans_removed.is_set()
    assert "segments_not_listed" in caplog.text


async def test_rotation_that_is_stopped_says_nothing_of_the_orphans(tmp_path: Path) -> None:
    """It ends, though they were never removed; and whoever waits for that is not told that they were."""
    async with sqlite_rig(tmp_path / "data") as rig:
        store, orphans_removed = rig.store, asyncio.Event()
        rotator = rotation.Rotator(store._reader, store._files, store._group_commit)
        rotator.start([], orphans_removed)
        await asyncio.wait_for(rotator.stop(), 10)
        assert not orphans_removed.is_set()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), sqlite3.OperationalError("full")])
async def test_a_full_disk_is_one_line_of_the_log(
    rig: SqliteRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """Rotation tries every five seconds; a traceback each time would hide all else."""

    def full(_files: SegmentFiles, *_: object) -> SegmentKey:
        raise error

    monkeypatch.setattr(SegmentFiles, "write", full)
    await rig.store.apply(NAME, create_commit(body=b"x" * SEGMENT_BYTES))
    await eventually(lambda: "rotation_failed" in caplog.text, rig.let_pass)
    [record] = [one for one in caplog.records if one.message == "rotation_failed"]
    assert record.exc_info is None
    assert "full" in record.reason or "No space left" in record.reason  # type: ignore[attr-defined]


async def test_a_life_that_cannot_be_collected_holds_up_no_other(
    rig: SqliteRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is wrong with it; an error that nobody has foreseen keeps its traceback."""
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


async def test_what_a_crash_left_is_cleared_away_before_anything_is_rotated(rig: SqliteRig) -> None:
    """A finished file that nothing mentions, an unfinished one, and a stranger's file, which stays.

    The finished one has the very name that the next rotation will write, so it must go first.
    """
    await rig.store.apply(NAME, create_commit(body=b"x" * SEGMENT_BYTES))
    await eventually(lambda: len(segments(rig)) == 1, rig.let_pass)
    [path] = rig.folder.glob("segments/*/*.segment")
    content = path.read_bytes()
    await rig.store.close()
    connection = sqlite3.connect(rig.folder / "fluvial.db")
    row = (LIFE, SEGMENT_BYTES, 0, 1, None, b"x" * SEGMENT_BYTES)
    connection.execute("DELETE FROM segment")
    connection.execute("INSERT INTO hot_run VALUES (?, ?, ?, ?, ?, ?)", row)
    connection.commit()
    connection.close()
    unfinished, stranger = path.with_suffix(".partial"), path.parent / "._notes"
    unfinished.write_bytes(b"half")
    stranger.write_bytes(b"not ours")
    assert path.read_bytes() == content
    rig.store = await open_sqlite_store(rig.folder, rig.still.clock())
    await eventually(lambda: len(segments(rig)) == 1, rig.let_pass)
    assert await all_bytes(rig) == b"x" * SEGMENT_BYTES
    assert path.read_bytes() == content
    assert not unfinished.exists()
    assert stranger.exists()


async def test_closing_waits_for_what_was_begun(tmp_path: Path) -> None:
    """What is submitted before the close is durable after it."""
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


@pytest.mark.parametrize("version", [number for number, _ in migrations()])
async def test_data_of_every_older_version_is_taken_over(tmp_path: Path, version: int) -> None:
    """From the oldest schema on: what was written with it is there, and everything new works."""
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
    connection.execute("INSERT INTO hot_run VALUES (1, 5, 0, 1, NULL, ?)", (b"older",))
    connection.execute("INSERT INTO producer VALUES (1, 'p', 3, 4)")
    connection.close()
    store = await open_sqlite_store(folder, FixedClock().clock())
    await store.apply(NAME, append_commit(b"newer"))
    await store.apply(NAME, close_commit())
    head = await store.head(NAME)
    assert head is not None
    assert (await store.read(NAME, head, 0, 100)).data == b"oldernewer"
    assert (head.stream_seq, head.producer_count, head.closed) == ("seq", 1, True)
    await store.close()


def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    """The version says what is done already."""
    connection = connect(tmp_path / "fluvial.db")
    migrate(connection)
    before = connection.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
    migrate(connection)
    assert connection.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall() == before
    connection.close()


def test_a_segment_file_is_read_in_part(tmp_path: Path) -> None:
    """Batches are found through the ends that stand behind the data."""
    (tmp_path / "segments").mkdir()
    files = SegmentFiles(tmp_path / "segments")
    key = files.write(LIFE, BatchRange(10, (13, 15, 20), b"aaabbccccc"))
    assert files.read(key, 3, 13, 3) == BatchRange(13, (15,), b"bb")
    assert files.read(key, 3, 10, 100) == BatchRange(10, (13, 15, 20), b"aaabbccccc")
    assert files.read(key, 3, 15, 1) == BatchRange(15, (20,), b"ccccc")
    assert [files.keys_in(folder) for folder in files.folders()] == [[key]]


def test_a_segment_that_cannot_be_written_leaves_no_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk may be full: it is left no fuller than it was."""

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    files = SegmentFiles(tmp_path / "segments")
    key = files.write(LIFE, BatchRange(0, (1,), b"a"))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        files.write(LIFE, BatchRange(1, (2,), b"b"))
    assert [path.name for path in files.path_of(key).parent.iterdir()] == [files.path_of(key).name]


async def test_a_file_that_cannot_be_removed_does_not_stop_the_upkeep(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged; rotation and collection go on."""
    stray = tmp_path / "data" / "segments" / "01" / f"{1:016x}-{0:016d}-{9:016d}.segment"
    for folder in (stray, stray.with_suffix(".partial")):
        folder.mkdir(parents=True)
    async with sqlite_rig(tmp_path / "data") as rig:
        await rig.store.apply(NAME, create_commit(body=b"x", incarnation=2))
        await rig.store.apply(NAME, close_commit())
        await eventually(lambda: segments(rig) != [], rig.let_pass)
    assert caplog.text.count("file_left") == 2


def test_what_has_expired_is_found_by_its_deadline(tmp_path: Path) -> None:
    """However many streams there are that have none."""
    connection = connect(tmp_path / "fluvial.db")
    migrate(connection)
    [*_, plan] = connection.execute("EXPLAIN QUERY PLAN " + SQL.expired_names, (9, 0, "", 5)).fetchall()
    assert "stream_by_deadline ((live_until_ms,name)>(?,?) AND live_until_ms<?)" in plan[-1]
    connection.close()


def test_a_full_disk_does_not_keep_a_server_from_starting(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It has no room for the whole log, but readers need none."""
    connection = connect(tmp_path / "fluvial.db")
    migrate(connection)
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    preallocate_log(connection)
    assert not connection.in_transaction
    assert "log_not_preallocated" in caplog.text
    connection.close()
