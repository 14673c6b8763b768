"""`fluvial backup` and `fluvial restore`: a whole backup or none, and never into a place that has something."""

import sqlite3
from contextlib import closing
from pathlib import Path
from shutil import copytree

import pytest

from fluvial.model.errors import StartupError
from fluvial.storage.findings import no_progress
from fluvial.storage.sqlite.backup import files
from fluvial.storage.sqlite.backup.files import Segments, new_folder
from fluvial.storage.sqlite.backup.making import Backup
from fluvial.storage.sqlite.backup.manifest import MANIFEST, ManifestDamaged, decode_manifest
from tests.care.folders import DESCRIPTION, back_up, contents, flip, problems_in
from tests.support.program import assert_command_failed, assert_usage_error, fluvial


def test_restored_backup_has_everything(killed: Path, tmp_path: Path) -> None:
    """Also what was only in the write-ahead logs; the files are private, and the segment is a link."""
    assert fluvial("backup", str(tmp_path / "b"), "--data-dir", str(killed)).stdout.startswith("backed up")
    [segment] = tmp_path.glob("b/segments/*/*.segment")
    assert segment.stat().st_nlink == 2
    ran = fluvial("restore", str(tmp_path / "b"), "--data-dir", str(tmp_path / "r"))
    assert f"into {tmp_path / 'r'}" in ran.stdout
    assert contents(tmp_path / "r") == contents(killed)
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.glob("r/**/*"))
    assert segment.stat().st_nlink == 2
    assert fluvial("verify", str(tmp_path / "b")).returncode == fluvial("verify", str(tmp_path / "r")).returncode == 0
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [
        "fluvial.db",
        MANIFEST,
        "projects.db",
        "segments",
    ]


def test_copied_segments_are_no_links(killed: Path, tmp_path: Path) -> None:
    """As on another file system, where a link fails."""
    ran = fluvial("backup", str(tmp_path / "b"), "--copy", "--data-dir", str(killed))
    assert ran.returncode == 0
    [segment] = tmp_path.glob("b/segments/*/*.segment")
    assert segment.stat().st_nlink == 1


def test_file_system_without_links_gets_copies(killed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the link is no error of the backup."""

    def fail(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", fail)
    back_up(killed, tmp_path / "b")
    assert problems_in(tmp_path / "b") == []


def test_backup_into_an_existing_folder_is_refused(killed: Path, tmp_path: Path) -> None:
    """And into the data folder itself, and of a folder without data."""
    (tmp_path / "b").mkdir()
    assert_command_failed(fluvial("backup", str(tmp_path / "b"), "--data-dir", str(killed)), "exists")
    assert_command_failed(fluvial("backup", str(killed / "b"), "--data-dir", str(killed)), "in the data folder")
    assert_usage_error(fluvial("backup", str(tmp_path / "c"), "--data-dir", str(tmp_path / "none")), "no fluvial data")
    assert_usage_error(fluvial("backup", str(tmp_path / "c"), "--store", "memory"), "memory")
    assert_usage_error(fluvial("backup", str(tmp_path / "c"), "--store", "dynamodb"), "point-in-time recovery")


def test_killed_backup_is_cleaned_up_by_the_next(killed: Path, tmp_path: Path) -> None:
    """What a killed one leaves is not a backup, and is in nobody's way; the files of others stay."""
    partial = tmp_path / "b.partial"
    copytree(killed / "segments", partial / "segments")
    (partial / "fluvial.db").write_bytes(b"half")
    assert_command_failed(fluvial("restore", str(partial), "--data-dir", str(tmp_path / "r")), "not a backup")
    back_up(killed, tmp_path / "b")
    assert problems_in(tmp_path / "b") == []
    assert not partial.exists()
    partial.mkdir()
    (partial / "notes.txt").write_text("mine")
    with pytest.raises(StartupError, match=r"files of others: notes\.txt"):
        new_folder(tmp_path / "b").__enter__()
    assert (partial / "notes.txt").read_text() == "mine"


def test_two_backups_to_one_place_do_not_disturb_each_other(killed: Path, tmp_path: Path) -> None:
    """The second one fails, and the first one's files stay."""
    with new_folder(tmp_path / "b") as folder:
        (folder / "fluvial.db").write_text("first")
        with pytest.raises(StartupError, match="another process is writing"):
            back_up(killed, tmp_path / "b")
    assert (tmp_path / "b" / "fluvial.db").read_text() == "first"


def test_failed_backup_leaves_nothing(killed: Path, tmp_path: Path) -> None:
    """A segment that is missing although its stream is there is an error."""
    [segment] = killed.glob("segments/*/*.segment")
    segment.unlink()
    with pytest.raises(StartupError, match="a segment is missing"):
        back_up(killed, tmp_path / "b")
    assert list(tmp_path.glob("b*")) == []


def test_stream_that_is_deleted_during_a_backup_is_not_in_it(
    killed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its segment is gone when it is to be linked: the backup takes a newer state, in which the stream has ended."""
    real = files.link_or_copy

    def delete_first(source: Path, target: Path, how: Segments) -> None:
        if source.exists():
            with closing(sqlite3.connect(killed / "fluvial.db")) as connection:
                connection.execute("DELETE FROM stream WHERE name = 'p/closed'")
                connection.commit()
            source.unlink()
        real(source, target, how)

    monkeypatch.setattr("fluvial.storage.sqlite.backup.making.link_or_copy", delete_first)
    Backup(killed, DESCRIPTION, Segments.LINKED, no_progress).make(tmp_path / "b")
    with closing(sqlite3.connect(f"{(tmp_path / 'b' / 'fluvial.db').as_uri()}?immutable=1", uri=True)) as connection:
        assert connection.execute("SELECT name FROM stream WHERE name = 'p/closed'").fetchall() == []
    assert list(tmp_path.glob("b/segments/*/*")) == []


def test_backup_of_a_damaged_log_is_refused(killed: Path, tmp_path: Path) -> None:
    """It would lack transactions that were acknowledged."""
    flip(killed / "fluvial.db-wal", (32 + 24 + 100) * 8)
    assert_command_failed(
        fluvial("backup", str(tmp_path / "b"), "--data-dir", str(killed)), "fluvial.db-wal: frame 1 is damaged"
    )
    assert list(tmp_path.glob("b*")) == []


def test_restore_needs_an_empty_place_and_a_sound_backup(backup: Path, killed: Path, tmp_path: Path) -> None:
    """A failed restore leaves nothing."""
    assert_command_failed(fluvial("restore", str(backup), "--data-dir", str(killed)), "not empty")
    (tmp_path / "empty").mkdir()
    assert fluvial("restore", str(backup), "--data-dir", str(tmp_path / "empty")).returncode == 0
    content = bytearray((backup / "fluvial.db").read_bytes())
    content[5_000] ^= 1
    (backup / "fluvial.db").write_bytes(content)
    assert_command_failed(fluvial("restore", str(backup), "--data-dir", str(tmp_path / "r")), "not what was backed up")
    (backup / MANIFEST).write_bytes((backup / MANIFEST).read_bytes()[:-1])
    assert_command_failed(fluvial("restore", str(backup), "--data-dir", str(tmp_path / "r")), "manifest is damaged")
    (backup / "projects.db").unlink()
    assert list(tmp_path.glob("r*")) == []


def test_file_that_is_not_in_the_manifest_is_a_problem(backup: Path) -> None:
    """Also one that SQLite would read, such as a log."""
    (backup / "fluvial.db-wal").write_bytes(b"")
    (backup / "projects.db").unlink()
    lines = problems_in(backup)
    assert "problem: fluvial.db-wal: is not in the manifest" in lines
    assert any(line.startswith("problem: projects.db: cannot be read") for line in lines)


@pytest.mark.parametrize("content", [b"", b"\n", b"{}\n", b"{}\n{}\n", b"nonsense\n\n\n"])
def test_manifest_is_exactly_what_was_written(content: bytes) -> None:
    """Anything else is damage."""
    with pytest.raises(ManifestDamaged):
        decode_manifest(content)


def test_verification_of_a_backup_makes_no_files(backup: Path) -> None:
    """SQLite would make a log beside the database."""
    before = {path: path.stat().st_mtime_ns for path in backup.rglob("*")}
    assert problems_in(backup) == []
    assert {path: path.stat().st_mtime_ns for path in backup.rglob("*")} == before


def test_place_that_cannot_be_replaced_is_refused_before_anything_is_copied(
    backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mount point, as the volume of a container is."""
    (tmp_path / "volume").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "volume")
    ran = fluvial("restore", str(backup), "--data-dir", str(tmp_path / "volume"))
    assert_command_failed(ran, "is a mount point", "restore into a folder in it")
    assert fluvial("restore", str(backup), "--data-dir", str(tmp_path / "volume" / "data")).returncode == 0


def test_backup_stays_one(backup: Path, killed: Path) -> None:
    """No server starts on it, and no other backup is made within it."""
    assert_command_failed(fluvial("serve", "--port", "0", "--data-dir", str(backup)), "is a backup", "fluvial restore")
    assert_command_failed(fluvial("backup", str(backup / "b"), "--data-dir", str(killed)), "is in another backup")
    assert problems_in(backup) == []


def test_error_of_the_system_is_told_without_its_number(killed: Path) -> None:
    """With the path that it is about."""
    ran = fluvial("backup", "/proc/b", "--data-dir", str(killed))
    assert_command_failed(ran, "No such file or directory: /proc/b.partial")
    assert "Errno" not in ran.stderr
