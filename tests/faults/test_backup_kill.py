"""Backups are made under full write load; they and the server are killed (kill -9) at random moments.

Each complete backup has every append that was acknowledged before the backup began, each once and in order, and is
verified. A killed backup leaves nothing that looks like a backup, and the next one to the same place succeeds. Streams
are also closed and deleted all the time, so that segments are made, and removed while a backup links them.
"""

import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import httpx
import pytest

from fluvial.model.names import StreamName
from fluvial.storage.sqlite.store import SqliteStore
from tests.care.folders import problems_in
from tests.faults.test_kill import TEXT, Cluster, ProducerWriter
from tests.support.folders import with_store
from tests.support.program import fluvial
from tests.support.servers import start_server

CLOSED = {**TEXT, "Stream-Closed": "true"}
WRITERS = 4
ROUNDS = 11
SERVER_KILLS = (3, 7)


@dataclass
class Deleter:
    """Makes streams that move into a segment at once, and deletes them again."""

    cluster: Cluster
    deleted: int = 0

    def run(self) -> None:
        """Make and delete until the test stops the writers."""
        with httpx.Client(timeout=5) as http:
            number = 0
            while not self.cluster.stopping.is_set():
                path = f"/v1/stream/gone-{number}"
                self.cluster.try_to(lambda url, path=path: http.put(url + path, headers=CLOSED, content=b"x" * 9_000))  # type: ignore[misc]
                before = f"/v1/stream/gone-{number - 5}"
                answer = self.cluster.try_to(lambda url, before=before: http.delete(url + before))  # type: ignore[misc]
                self.deleted += answer is not None and answer.status_code == 204
                number += 1


def start_backup(source: Path, target: Path) -> subprocess.Popen[bytes]:
    """Begin a backup in a process of its own."""
    command = [sys.executable, "-m", "fluvial", "backup", str(target), "--data-dir", str(source)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@pytest.mark.slow
def test_backup_under_load_has_every_append_that_was_acknowledged_before(tmp_path: Path) -> None:
    """Some backups are killed; every one that appears is complete, and so is the data folder at the end."""
    folder, dice = tmp_path / "data", random.Random(7)
    cluster = Cluster(start_server(folder))
    writers = [ProducerWriter(cluster, f"w{number}") for number in range(WRITERS)]
    deleter = Deleter(cluster)
    for path in ("/v1/stream/p/shared", *(f"/v1/stream/{writer.name}" for writer in writers)):
        assert httpx.put(cluster.server.url + path, headers=TEXT).status_code == 201
    threads = [Thread(target=run) for run in (deleter.run, *(writer.run for writer in writers))]
    for thread in threads:
        thread.start()
    complete = list[tuple[Path, dict[str, int]]]()
    killed_count = 0
    try:
        for number in range(ROUNDS):
            target = tmp_path / f"backup-{len(complete)}"
            acknowledged = {writer.name: writer.acknowledged for writer in writers}
            with start_backup(folder, target) as backup:
                if number in SERVER_KILLS:
                    cluster.stopping.wait(dice.uniform(0.2, 0.8))
                    cluster.server.kill()
                    cluster.server = start_server(folder)
                elif number % 2:
                    while backup.poll() is None and not target.with_name(f"{target.name}.partial").exists():
                        pass
                    cluster.stopping.wait(dice.choice((0.0, 0.0, 0.01, 0.03)))
                    backup.kill()
                backup.wait(60)
                assert backup.stderr is not None
                assert backup.returncode in {0, -9}, backup.stderr.read()
            killed_count += not target.exists()
            if target.exists():
                complete.append((target, acknowledged))
    finally:
        cluster.stopping.set()
        for thread in threads:
            thread.join(30)
        cluster.server.kill()
    assert len(complete) >= 4, "the test is to see complete backups"
    assert killed_count, "and killed ones"
    assert deleter.deleted > ROUNDS
    assert problems_in(folder) == []
    for backup_folder, acknowledged in complete:
        check_backup(backup_folder, tmp_path / f"restored-{backup_folder.name}", acknowledged)


def check_backup(backup: Path, restored: Path, acknowledged: dict[str, int]) -> None:
    """Verify a backup, restore it, verify that, and read all that must be in it."""
    assert problems_in(backup) == []
    assert fluvial("restore", str(backup), "--data-dir", str(restored)).returncode == 0
    assert problems_in(restored) == []

    async def read(store: SqliteStore) -> dict[str, str]:
        return {name: await read_all(store, name) for name in (*acknowledged, "p/shared")}

    data = with_store(restored, read)
    for name, count in acknowledged.items():
        own = data[name].split(";")[:-1]
        assert own == [f"{name}:{number}" for number in range(len(own))]
        assert len(own) >= count
        shared = [batch for batch in data["p/shared"].split(";") if batch.startswith(f"{name}:")]
        assert shared == [f"{name}:{number}" for number in range(len(shared))]
        assert len(shared) >= count
    assert problems_in(restored) == []


async def read_all(store: SqliteStore, name: str) -> str:
    """All bytes of a stream."""
    head, position, data = await store.head(StreamName(name)), 0, b""
    assert head is not None
    while position < head.tail:
        page = await store.read(StreamName(name), head, position, 1_000_000)
        assert page.start == position
        data, position = data + page.data, page.end
    return data.decode()
