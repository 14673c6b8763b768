"""One bit is flipped, anywhere: it is found and named, or it is one that no reader of the data ever sees."""

import random
import sqlite3
from pathlib import Path

import pytest

from tests.care.folders import contents, flip, problems_in

#: What a server makes anew when it starts.
UNUSED = ("fluvial.db-shm", "projects.db-shm", "lock")


def data_files(folder: Path) -> list[Path]:
    """The files of a folder whose content counts."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in UNUSED)
    return sorted(path for path in files if path.stat().st_size)


def some_bits(content: bytes, count: int) -> list[int]:
    """Random bits of a file, half of them in bytes that are not zero, which are more often in use."""
    dice, used = random.Random(len(content)), [place for place, byte in enumerate(content) if byte]
    anywhere = [dice.randrange(len(content) * 8) for _ in range(count // 2)]
    return anywhere + [dice.choice(used) * 8 + dice.randrange(8) for _ in range(count // 2)]


@pytest.mark.slow
def test_flipped_bit_of_a_backup_is_always_found_and_named(backup: Path) -> None:
    """In every file, the manifest included."""
    assert problems_in(backup) == []
    for path in data_files(backup):
        content = path.read_bytes()
        for bit in some_bits(content, 60):
            flip(path, bit)
            assert any(str(path.relative_to(backup)) in line for line in problems_in(backup)), (path.name, bit)
            path.write_bytes(content)
    assert problems_in(backup) == []


@pytest.mark.slow
@pytest.mark.parametrize(("state", "count"), [("killed", 12), ("stopped", 160)])
def test_flipped_bit_of_a_data_folder_is_found_and_named_or_changes_nothing(
    state: str, count: int, request: pytest.FixtureRequest
) -> None:
    """What is not reported leaves every row and every byte as it was: free pages, unused bytes, counters of SQLite."""
    folder: Path = request.getfixturevalue(state)
    assert problems_in(folder) == []
    before, found = contents(folder), dict[str, int]()
    for path in data_files(folder):
        content, name = path.read_bytes(), str(path.relative_to(folder))
        for bit in some_bits(content[:300_000], count):
            flip(path, bit)
            problems = problems_in(folder)
            if problems:
                assert any(name in line for line in problems), (name, bit, problems)
                found[name] = found.get(name, 0) + 1
            else:
                assert contents(folder) == before, (name, bit)
            path.write_bytes(content)
    assert len(found) >= 3, found
    assert all(found[name] == count for name in found if name.endswith(".segment"))
    assert contents(folder) == before


def test_flipped_bit_of_an_acknowledged_transaction_in_the_log_is_found(killed: Path) -> None:
    """SQLite itself drops that transaction and all later ones, without a word."""
    log = killed / "fluvial.db-wal"
    flip(log, (32 + 24 + 100) * 8)
    lines = problems_in(killed)
    assert any(line.startswith("problem: fluvial.db-wal: frame 1 is damaged") for line in lines), lines


def test_flipped_salt_of_the_last_transaction_is_found(killed: Path) -> None:
    """Then the frame looks as if it were of an earlier round of the log."""
    log = killed / "fluvial.db-wal"
    content = log.read_bytes()
    salts = content[16:24]
    last = max(
        place
        for place in range(32, len(content) - 4_119, 4_120)
        if content[place + 8 : place + 16] == salts and content[place + 4 : place + 8] != bytes(4)
    )
    flip(log, (last + 9) * 8)
    assert any("is damaged" in line for line in problems_in(killed))


def test_unreadable_database_is_one_problem_and_not_an_error(stopped: Path) -> None:
    """Also one that is no database at all."""
    for name in ("fluvial.db", "projects.db"):
        (stopped / name).write_bytes(b"no database" * 1_000)
        assert any(line.startswith(f"problem: {name}: cannot be read") for line in problems_in(stopped))
        with pytest.raises(sqlite3.Error):
            contents(stopped)
