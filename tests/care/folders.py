"""A data folder that has something of everything, what it holds as plain values, and flipped bits."""

import sqlite3
from contextlib import closing
from pathlib import Path
from shutil import copytree

import httpx

from fluvial.storage.findings import Finding, Findings, no_progress
from fluvial.storage.sqlite.backup.files import Segments
from fluvial.storage.sqlite.backup.making import Backup
from fluvial.storage.sqlite.backup.manifest import BackupDescription, BackupFile
from fluvial.storage.sqlite.verification.folder import check_folder
from tests.support.program import fluvial
from tests.support.servers import server_in_thread

TEXT = {"Content-Type": "text/plain"}
DESCRIPTION = BackupDescription(version="test", made_at="2026-01-01T00:00:00Z")
TABLES = ("stream", "hot_run", "producer", "follower", "segment", "newest_life")


def find_all(folder: Path) -> list[Finding]:
    """All that a verification of a folder finds."""
    found = list[Finding]()
    check_folder(folder, Findings(found.append))
    return found


def problems_in(folder: Path) -> list[str]:
    """The lines of all problems."""
    return [str(one) for one in find_all(folder) if one.is_problem]


def back_up(source: Path, target: Path, how: Segments = Segments.LINKED) -> list[BackupFile]:
    """Make a backup."""
    return Backup(source, DESCRIPTION, how, no_progress).make(target)


def fill(url: str) -> None:
    """Streams with hot rows and producers, a fork, an estuary, a closed stream in a segment, and a deleted one."""
    stream = f"{url}/v1/stream/p/"
    with httpx.Client() as http:
        for name in ("hot", "closed", "source", "deleted", "ttl"):
            more = {"Stream-TTL": "100000"} if name == "ttl" else {}
            assert http.put(stream + name, headers=TEXT | more).status_code == 201
        http.post(f"{url}/v1/estuary/subscribe/p/source", json={"estuaryId": "estuary"}).raise_for_status()
        for number in range(20):
            for name in ("hot", "closed", "source", "deleted"):
                producer = {"Producer-Id": f"w{number % 3}", "Producer-Epoch": "0", "Producer-Seq": str(number // 3)}
                answer = http.post(stream + name, headers=TEXT | producer, content=b"%s-%d;" % (name.encode(), number))
                answer.raise_for_status()
        http.put(stream + "fork", headers={"Stream-Forked-From": "/v1/stream/p/hot"}).raise_for_status()
        http.post(stream + "fork", headers=TEXT, content=b"of the fork").raise_for_status()
        http.post(stream + "closed", headers={"Stream-Closed": "true"}).raise_for_status()
        http.delete(stream + "deleted").raise_for_status()


def make_full_folder(folder: Path) -> None:
    """A folder as a killed server leaves it, with newer transactions in its write-ahead log; and a project."""
    running = folder.with_name("running")
    with server_in_thread(running) as server:
        fill(server.url)
        while not list(running.glob("segments/*/*.segment")) or count_rows(running, "ended_life"):
            pass
        assert fluvial("project", "create", "p", "--data-dir", str(running)).returncode == 0
        copytree(running, folder)


def count_rows(folder: Path, table: str) -> int:
    """The rows of a table that another process sees."""
    with closing(sqlite3.connect(folder / "fluvial.db")) as connection:
        (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608  a table's name
        return int(count)


def contents(folder: Path) -> dict[str, object]:
    """Everything that a server would find in a folder: all rows, and the bytes of all segments."""
    found: dict[str, object] = {}
    for file, tables in (("fluvial.db", TABLES), ("projects.db", ("project", "usage"))):
        with closing(sqlite3.connect(f"{(folder / file).as_uri()}?mode=ro", uri=True)) as connection:
            found |= {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables}  # noqa: S608  likewise
    found["segments"] = {path.name: path.read_bytes() for path in folder.glob("segments/*/*.segment")}
    return found


def flip(path: Path, bit: int) -> None:
    """Flip one bit of a file."""
    with path.open("r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0] ^ (1 << bit % 8)
        file.seek(bit // 8)
        file.write(bytes([byte]))
