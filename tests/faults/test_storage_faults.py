"""A full disk, damaged files and a busy database: the streams concerned get a 5xx, all others are served."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from fluvial.model.commit import Applied, Commit, Outcome
from fluvial.model.errors import StorageDamaged, StoreUnavailable
from fluvial.model.head import Head
from fluvial.model.lifetime import SlidingTtl
from fluvial.model.names import StreamName
from fluvial.operations.open_read import load_head_and_renew
from fluvial.storage.renewals import Renewals
from fluvial.wire.response import store_error_response
from tests.faults.test_failing_commits import FailingConnection
from tests.support.clocks import START_MS
from tests.support.commands import NAME, OTHER, append_commit, close_commit, create_commit, delete_commit, stamp
from tests.support.rigs import SqliteRig, eventually

LARGE = b"x" * 3_000_000


async def test_append_to_a_full_disk_is_a_503_and_loses_nothing(
    rig: SqliteRig, caplog: pytest.LogCaptureFixture
) -> None:
    """It writes nothing, and reads go on; appends are applied again once there is room."""
    await rig.store.apply(NAME, create_commit(body=b"kept"))
    writer = rig.store._writer
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count = {pages + 10}")
    for data in (b"y" * 100_000, LARGE):
        with pytest.raises(StoreUnavailable) as failed:
            await rig.store.apply(NAME, append_commit(data))
        answer = store_error_response(failed.value)
        assert (answer.status, dict(answer.headers)[b"retry-after"]) == (503, b"1")
    head = await rig.store.head(NAME)
    assert head is not None
    assert (await rig.store.read(NAME, head, 0, 100)).data == b"kept"
    assert "commit_failed" in caplog.text
    writer.execute("PRAGMA max_page_count = 1000000")
    outcome = await rig.store.apply(NAME, append_commit(b"more"))
    assert isinstance(outcome, Applied)
    await rig.reopen()
    head = await rig.store.head(NAME)
    assert head is not None
    assert (await rig.store.read(NAME, head, 0, 100)).data == b"keptmore"


async def test_stream_is_read_when_its_renewal_fails(rig: SqliteRig, caplog: pytest.LogCaptureFixture) -> None:
    """For example on a full disk, which readers do not write to."""
    await rig.store.apply(NAME, create_commit(body=b"kept", lifetime=SlidingTtl(100)))
    rig.still.time.advance(50_000)
    rig.wrap_connection(lambda connection: FailingConnection(connection, ["UPDATE"]))
    head = await load_head_and_renew(rig.store, rig.still.clock(), NAME)
    assert isinstance(head, Head)
    assert (await rig.store.read(NAME, head, 0, 100)).data == b"kept"
    assert "not_renewed" in caplog.text


async def test_read_does_not_wait_for_a_lock_of_another_process(rig: SqliteRig) -> None:
    """A long backup, for example: one renewal for all reads goes on after their answers, for the last of them."""
    await rig.store.apply(NAME, create_commit(body=b"kept", lifetime=SlidingTtl(100)))
    other = sqlite3.connect(rig.folder / "fluvial.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    clock = rig.still.clock()
    async with asyncio.timeout(5):  # the writer waits ten seconds for the lock
        for _ in range(20):
            rig.still.time.advance(5_000)
            assert isinstance(await load_head_and_renew(rig.store, clock, NAME), Head)
            assert rig.store._renewals.count <= 1
    other.execute("ROLLBACK")
    other.close()
    await eventually(lambda: rig.store._renewals.count == 0, rig.let_pass)
    head = await rig.store.head(NAME)
    assert head is not None
    assert head.live_until_ms == SlidingTtl(100).deadline_ms(rig.still.time.now_ms)


async def test_failed_renewal_is_tried_again(rig: SqliteRig, caplog: pytest.LogCaptureFixture) -> None:
    """A stream that is read must not expire because the disk was full for a moment."""
    store = rig.store
    await store.apply(NAME, create_commit(lifetime=SlidingTtl(100)))
    renewals = Renewals(store.apply, pause_s=0.001)
    rig.wrap_connection(lambda connection: FailingConnection(connection, ["UPDATE"] * 3))
    await renewals.renew(NAME, START_MS + 50_000)
    await eventually(lambda: renewals.count == 0, lambda: asyncio.sleep(0.001))
    head = await store.head(NAME)
    assert head is not None
    assert head.live_until_ms == SlidingTtl(100).deadline_ms(START_MS + 50_000)
    assert caplog.text.count("not_renewed") == 3


async def test_renewals_past_their_limit_are_left_to_later_reads(caplog: pytest.LogCaptureFixture) -> None:
    """All reads meanwhile log one line."""
    may_apply, renewed = asyncio.Event(), list[StreamName]()

    async def apply(name: StreamName, _commit: Commit) -> Outcome:
        await may_apply.wait()
        renewed.append(name)
        return Applied(None)

    renewals = Renewals(apply, wait_s=0.001, count_max=1)
    for name in (NAME, OTHER, OTHER):
        await renewals.renew(name, START_MS)
    may_apply.set()
    await eventually(lambda: renewals.count == 0, lambda: asyncio.sleep(0))
    await renewals.renew(OTHER, START_MS)
    await eventually(lambda: renewals.count == 0, lambda: asyncio.sleep(0))
    assert renewed == [NAME, OTHER]
    assert [record.message for record in caplog.records] == ["not_renewed"]


async def test_closed_renewals_try_nothing_more(rig: SqliteRig) -> None:
    """A renewal between two tries does not delay the close, and no read begins another one."""
    renewals = Renewals(rig.store.apply, pause_s=1_000)
    await rig.store.apply(NAME, create_commit(lifetime=SlidingTtl(100)))
    rig.wrap_connection(lambda connection: FailingConnection(connection, ["UPDATE"]))
    await renewals.renew(NAME, START_MS + 50_000)
    assert renewals.count == 1
    await asyncio.wait_for(renewals.close(), 10)
    await renewals.renew(NAME, START_MS + 50_000)
    assert renewals.count == 0


async def create_segment_file(rig: SqliteRig) -> Path:
    """Create a closed stream and wait for its segment; the segment's file."""
    await rig.store.apply(NAME, create_commit(body=b"first,"))
    await rig.store.apply(NAME, append_commit(b"second,"))
    await rig.store.apply(NAME, close_commit())
    await eventually(lambda: rig.query("SELECT count(*) FROM segment") == [(1,)], rig.let_pass)
    await rig.reopen()
    [path] = rig.folder.glob("segments/*/*.segment")
    return path


def truncate(path: Path) -> None:
    """Remove the last bytes."""
    path.write_bytes(path.read_bytes()[:-3])


def flip_a_byte(path: Path) -> None:
    """Change one bit of the bytes."""
    content = bytearray(path.read_bytes())
    content[8] ^= 4
    path.write_bytes(content)


def flip_an_end(path: Path) -> None:
    """Change one bit of the batch ends."""
    content = bytearray(path.read_bytes())
    content[-20] ^= 4
    path.write_bytes(content)


def empty(path: Path) -> None:
    """Remove all bytes."""
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [Path.unlink, truncate, empty, flip_a_byte, flip_an_end])
async def test_read_of_a_damaged_segment_is_a_500(
    rig: SqliteRig, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    """A log line names the file, other streams are served, and the damaged one can be deleted."""
    path = await create_segment_file(rig)
    damage(path)
    await rig.store.apply(OTHER, create_commit(2, body=b"fine"))
    damaged, fine = await rig.store.head(NAME), await rig.store.head(OTHER)
    assert damaged is not None
    assert fine is not None
    with pytest.raises(StorageDamaged) as failed:
        await rig.store.read(NAME, damaged, 0, 100)
    assert store_error_response(failed.value).status == 500
    assert "bytes_unreadable" in caplog.text
    assert (await rig.store.read(NAME, fine, 0, 100)).data == b"fine"
    assert isinstance(await rig.store.apply(NAME, delete_commit()), Applied)


async def test_batch_beside_a_damaged_one_is_read(rig: SqliteRig) -> None:
    """A read checks the batches that it returns, and no others."""
    flip_a_byte(await create_segment_file(rig))
    head = await rig.store.head(NAME)
    assert head is not None
    assert (await rig.store.read(NAME, head, 0, 6)).data == b"first,"
    with pytest.raises(StorageDamaged):
        await rig.store.read(NAME, head, 6, 100)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE hot_run SET data = 'xept'",
        "UPDATE hot_run SET end_offset = end_offset + 1",
        "UPDATE hot_run SET checksum = 0",
    ],
)
async def test_read_of_a_damaged_hot_log_is_a_500(
    rig: SqliteRig, caplog: pytest.LogCaptureFixture, statement: str
) -> None:
    """Other streams are served, and the log says where the damage is."""
    await rig.store.apply(NAME, create_commit(body=b"kept"))
    await rig.store.apply(OTHER, create_commit(2, body=b"fine"))
    change(rig, f"{statement} WHERE incarnation = 1")
    await rig.reopen()
    damaged, fine = await rig.store.head(NAME), await rig.store.head(OTHER)
    assert damaged is not None
    assert fine is not None
    with pytest.raises(StorageDamaged) as failed:
        await rig.store.read(NAME, damaged, 0, 100)
    assert store_error_response(failed.value).status == 500
    [record] = [record for record in caplog.records if record.message == "bytes_unreadable"]
    assert record.__dict__["reason"] == "the checksum of the hot log of 1 at 0 is wrong"
    assert (await rig.store.read(OTHER, fine, 0, 100)).data == b"fine"


async def test_damaged_hot_log_is_not_rotated(rig: SqliteRig, caplog: pytest.LogCaptureFixture) -> None:
    """A segment would give the damage a valid checksum."""
    await rig.store.apply(NAME, create_commit(body=b"kept"))
    change(rig, "UPDATE hot_run SET data = 'xept'")
    await rig.store.apply(NAME, close_commit())
    await eventually(lambda: "rotation_failed" in caplog.text, rig.let_pass)
    assert rig.query("SELECT count(*) FROM segment") == [(0,)]


async def test_append_of_a_damaged_producer_is_refused(rig: SqliteRig) -> None:
    """Otherwise a repeat could count as new."""
    await rig.store.apply(NAME, create_commit())
    await rig.store.apply(NAME, append_commit(producer=stamp()))
    change(rig, "UPDATE producer SET seq = 7")
    await rig.reopen()
    with pytest.raises(StorageDamaged):
        await rig.store.apply(NAME, append_commit(producer=stamp(seq=1)))


async def test_damaged_head_does_not_become_valid_by_an_append(rig: SqliteRig) -> None:
    """The head in memory is saved whole, and so the row is mended rather than sealed with the damage."""
    await rig.store.apply(NAME, create_commit())
    change(rig, "UPDATE stream SET config = replace(config, 'plain', 'plaiN')")
    await rig.store.apply(NAME, append_commit(producer=stamp()))
    await rig.reopen()
    head = await rig.store.head(NAME)
    assert head is not None
    assert head.content_type == "text/plain"


def change(rig: SqliteRig, statement: str) -> None:
    """Change a row behind the server's back."""
    with closing(sqlite3.connect(rig.folder / "fluvial.db")) as connection:
        assert connection.execute(statement).rowcount == 1
        connection.commit()


async def test_stream_with_a_damaged_head_is_a_503(rig: SqliteRig, caplog: pytest.LogCaptureFixture) -> None:
    """Commits of other streams are applied."""
    await rig.store.apply(NAME, create_commit(body=b"x"))
    await rig.store.apply(OTHER, create_commit(2))
    connection = sqlite3.connect(rig.folder / "fluvial.db")
    connection.execute("UPDATE stream SET config = 'nonsense' WHERE name = ?", (NAME,))
    connection.commit()
    connection.close()
    await rig.reopen()
    with pytest.raises(StoreUnavailable):
        await rig.store.head(NAME)
    with pytest.raises(StoreUnavailable):
        await rig.store.apply(NAME, append_commit())
    assert isinstance(await rig.store.apply(OTHER, append_commit()), Applied)
    assert "head_unreadable" in caplog.text


async def test_commit_waits_off_the_loop_for_a_lock_of_another_process(rig: SqliteRig) -> None:
    """A backup, for example, holds the database's lock for a moment. Then the commit is applied."""
    await rig.store.apply(NAME, create_commit())
    other = sqlite3.connect(rig.folder / "fluvial.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    answer = rig.store._group_commit.submit(NAME, append_commit(b"x"), 1)
    for _ in range(10):
        assert await rig.store.head(StreamName("another")) is None
    assert not answer.done()
    other.execute("ROLLBACK")
    other.close()
    assert isinstance(await answer, Applied)


async def test_commits_go_on_when_the_hot_log_cannot_be_measured(rig: SqliteRig) -> None:
    """Rotation measures it after a commit, on the reading connection."""
    await rig.store.apply(NAME, create_commit())
    rig.store._rotator._reader = sqlite3.connect(":memory:")
    rig.store._rotator._sizes.clear()
    for _ in range(3):
        assert isinstance(await rig.store.apply(NAME, append_commit(b"x")), Applied)
    rig.store._rotator._reader = rig.store._reader
