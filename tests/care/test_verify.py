"""`fluvial verify`: what it finds besides flipped bits, and how it says so."""

import fcntl
import sqlite3
from contextlib import closing
from pathlib import Path
from threading import Timer

import httpx
import pytest

from fluvial.storage.findings import Finding, Findings
from fluvial.storage.sqlite.checksums import add_checksum_function
from fluvial.storage.sqlite.database import FolderLock, connect, migrations
from fluvial.storage.sqlite.projects import SqliteProjects
from fluvial.storage.sqlite.verification.write_ahead_log import check_logs
from tests.care.folders import TEXT, back_up, find_all, flip, problems_in
from tests.support.program import assert_command_failed, assert_usage_error, fluvial
from tests.support.servers import running_server


def change(folder: Path, statement: str, file: str = "fluvial.db") -> None:
    """Change a database behind the server's back; statements may call `row_checksum`."""
    with closing(sqlite3.connect(folder / file)) as connection:
        add_checksum_function(connection)
        assert connection.execute(statement).rowcount >= 1
        connection.commit()


def test_sound_folder_is_ok(killed: Path) -> None:
    """The totals say what was checked, and the status is 0."""
    ran = fluvial("verify", str(killed))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert f"ok: data folder {killed}: " in ran.stdout
    assert "6 streams" in ran.stdout
    assert "1 segments" in ran.stdout
    assert ran.stdout.endswith("0 problems, 0 notes\n")


def test_problem_is_one_line_and_exit_status_1(killed: Path) -> None:
    """The line has the file, the stream and the offset."""
    [segment] = killed.glob("segments/*/*.segment")
    content = bytearray(segment.read_bytes())
    content[50] ^= 1
    segment.write_bytes(content)
    ran = fluvial("verify", "--data-dir", str(killed))
    [line] = [line for line in ran.stdout.splitlines() if line.startswith("problem:")]
    assert line.startswith(f"problem: {segment.relative_to(killed)}: the checksum is wrong of 1 of 20 batches")
    assert "; stream p/closed; offset " in line
    assert line.endswith("_0000000000000045")
    assert (ran.returncode, ran.stderr) == (1, "")
    assert f"damaged: data folder {killed}" in ran.stdout


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("DELETE FROM hot_run WHERE start_offset = 0", "are missing; stream"),
        ("DELETE FROM segment", "to the tail are missing; stream p/closed"),
        ("DELETE FROM producer WHERE producer_id = 'w0'", "producers, and its head says 3"),
        ("DELETE FROM stream WHERE name = 'p/fork'", "belongs to no stream"),
        ("DELETE FROM stream WHERE name = 'p/hot'", "inherits the bytes from position 0"),
        ("DELETE FROM newest_life", "the latest birth"),
        ("UPDATE producer SET seq = seq + 1", "the checksum of a row of producer"),
        ("UPDATE stream SET closed = 1 WHERE name = 'p/hot'", "fluvial.db: the checksum of a row of stream (p/hot"),
        ("UPDATE hot_run SET checksum = 0 WHERE start_offset = 0", "the checksum of a row of hot_run"),
    ],
)
def test_rows_that_do_not_agree_are_problems(killed: Path, statement: str, expected: str) -> None:
    """Each row that is gone or changed shows in another one, or in its checksum."""
    change(killed, statement)
    assert any(expected in line for line in problems_in(killed)), problems_in(killed)


def test_segment_that_is_missing_or_cut_short_is_a_problem(killed: Path) -> None:
    """With the stream that it is of."""
    [segment] = killed.glob("segments/*/*.segment")
    segment.write_bytes(segment.read_bytes()[:-1])
    assert any("bytes instead of" in line and "stream p/closed" in line for line in problems_in(killed))
    segment.unlink()
    assert any("No such file" in line and "stream p/closed" in line for line in problems_in(killed))


def test_unexpected_files_are_notes(killed: Path) -> None:
    """A killed process may leave some; the operator may have others."""
    [segment] = killed.glob("segments/*/*.segment")
    for name in ("notes.txt", f"segments/{segment.parent.name}/{'0' * 16}-{'0' * 16}-{9:016d}.segment"):
        (killed / name).write_text("")
    segment.with_suffix(".partial").write_text("")
    (killed / "segments" / "what").write_text("")
    notes = [str(one) for one in find_all(killed)]
    assert [line.partition(":")[0] for line in notes] == ["note"] * 4
    assert any("of no stream" in line for line in notes)
    assert any("is not finished" in line for line in notes)


def test_missing_projects_are_a_problem(killed: Path) -> None:
    """Without them, the data would be an open server's."""
    (killed / "projects.db").unlink()
    assert any("everybody may use the streams" in line for line in problems_in(killed))


def test_changed_project_is_a_problem(killed: Path) -> None:
    """Its secret, for example, in a row that is still JSON; and a project under another name."""
    change(killed, "UPDATE project SET project = replace(project, 'secret', 'Secret')", "projects.db")
    assert any("the checksum of a row of project" in line for line in problems_in(killed))
    change(killed, "UPDATE project SET name = 'q', checksum = row_checksum('q', life, version, project)", "projects.db")
    assert any("problem: projects.db: the project q" in line for line in problems_in(killed))


def test_older_schema_is_noted(tmp_path: Path) -> None:
    """Its rows have no checksums; a schema of a newer version is a problem."""
    with closing(connect(tmp_path / "fluvial.db")) as connection:
        for number, script in migrations()[:-1]:
            connection.executescript(f"{script}; PRAGMA user_version = {number};")
    SqliteProjects(tmp_path).close()
    assert any("not checked" in str(one) for one in find_all(tmp_path))
    assert problems_in(tmp_path) == []
    with closing(connect(tmp_path / "fluvial.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    assert any("schema 99" in line for line in problems_in(tmp_path))


@pytest.mark.medium
def test_folder_of_a_running_server_is_verified(tmp_path: Path) -> None:
    """And backed up, by a path with a link in it, too."""
    with running_server(tmp_path / "data") as server:
        httpx.put(f"{server.url}/v1/stream/a", headers=TEXT, content=b"x").raise_for_status()
        assert problems_in(tmp_path / "data") == []
        back_up(tmp_path / "data", tmp_path / "backup")
    assert problems_in(tmp_path / "backup") == []


def test_log_that_changes_because_a_server_has_started_is_not_judged(killed: Path) -> None:
    """The start may come while the log is read."""
    flip(killed / "fluvial.db-wal", (32 + 24 + 100) * 8)
    found, locks = list[Finding](), list[FolderLock]()

    def start(*_: object) -> None:
        if not locks:
            locks.append(FolderLock(killed))

    check_logs(killed, ("fluvial.db",), Findings(found.append, start))
    assert found == []
    locks[0].release()
    check_logs(killed, ("fluvial.db",), Findings(found.append))
    assert len(found) == 1


def test_server_starts_while_a_command_asks_whether_one_runs(tmp_path: Path) -> None:
    """The command holds the lock for a moment."""
    (tmp_path / "lock").touch()
    with (tmp_path / "lock").open("rb") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        answered = Timer(0.03, lambda: fcntl.flock(asking, fcntl.LOCK_UN))
        answered.start()
        FolderLock(tmp_path).release()
        answered.join()


def test_verify_of_nothing_is_a_usage_error(tmp_path: Path) -> None:
    """A folder without data, memory, and a folder for a table."""
    assert_usage_error(fluvial("verify", str(tmp_path)), "no fluvial data", str(tmp_path))
    assert_usage_error(fluvial("verify", "--store", "memory"), "memory")
    assert_usage_error(fluvial("verify", str(tmp_path), "--store", "dynamodb"), "DIR is for --store sqlite")


def test_unreachable_table_is_one_line() -> None:
    """The table is read before the verification begins."""
    endpoint = ("--endpoint-url", "http://127.0.0.1:1", "--region", "eu-central-1")
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    assert_command_failed(fluvial("verify", "--store", "dynamodb", *endpoint, **keys), "cannot be read")
