"""The server is killed (kill -9) under load, several times on the same data: no acknowledged batch is lost or doubled.

Each writer has a stream of its own and shares another one with all writers. It repeats a batch with the same producer
headers until it is answered, so every batch must be there exactly once, in its writer's order. A writer without
producer headers repeats nothing: each acknowledged batch must be there once, at the offset of its answer. Estuaries
(fan-in streams) that follow the shared stream get all its bytes, although no publish comes after the last kill.
"""

import random
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import httpx
import pytest

from tests.support.servers import RunningServer, start_server

TEXT = {"Content-Type": "text/plain"}
WRITERS = 6
ROUNDS = 8
SHARED = "/v1/stream/p/shared"
PROGRESS_TIMEOUT_S = 60
FOLLOWERS = [f"follower-{number}" for number in range(5)]


@dataclass
class Cluster:
    """The server that runs now, killed or not."""

    server: RunningServer
    stopping: Event = field(default_factory=Event)

    def let_append(self, counts: Callable[[], Sequence[int]], seconds: float) -> None:
        """Wait until each count of acknowledged appends has grown, however slow the machine is; then for a while."""
        before, deadline_s = counts(), time.monotonic() + PROGRESS_TIMEOUT_S
        while any(now <= then for now, then in zip(counts(), before, strict=True)):
            assert time.monotonic() < deadline_s, "appends are acknowledged no more"
            self.stopping.wait(0.02)
        self.stopping.wait(seconds)

    def try_to(self, request: Callable[[str], httpx.Response]) -> httpx.Response | None:
        """The answer; None when the server was killed before it."""
        try:
            return request(self.server.url)
        except httpx.TransportError:
            self.stopping.wait(0.05)  # the next server needs the processor to start
            return None


@dataclass
class ProducerWriter:
    """Appends numbered batches to its own and the shared stream, and repeats each until it is answered."""

    cluster: Cluster
    name: str
    acknowledged: int = 0
    errors: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Write until the test stops the writers."""
        with httpx.Client(timeout=5) as http:
            while not self.cluster.stopping.is_set():
                for path in (f"/v1/stream/{self.name}", SHARED):
                    if not self.append(http, path):
                        return
                self.acknowledged += 1

    def append(self, http: httpx.Client, path: str) -> bool:
        """Send one batch until it is answered; False when the test ended before."""
        seq = str(self.acknowledged)
        headers = {**TEXT, "Producer-Id": self.name, "Producer-Epoch": "0", "Producer-Seq": seq}
        body = f"{self.name}:{seq};".encode()
        while not self.cluster.stopping.is_set():
            answer = self.cluster.try_to(lambda url: http.post(url + path, content=body, headers=headers))
            if answer is None:
                continue
            if answer.status_code not in {200, 204}:
                self.errors.append(f"{answer.status_code} {answer.text}")
            return True
        return False


@dataclass
class PlainWriter:
    """Appends without producer headers, never twice, and records the offset of each answer."""

    cluster: Cluster
    path: str = "/v1/stream/plain"
    acknowledged: list[tuple[str, str]] = field(default_factory=list)
    number: int = 0

    def run(self) -> None:
        """Write until the test stops the writers."""
        with httpx.Client(timeout=5) as http:
            while not self.cluster.stopping.is_set():
                body = f"plain:{self.number};"
                self.number += 1
                answer = self.cluster.try_to(
                    lambda url, body=body: http.post(url + self.path, content=body.encode(), headers=TEXT)  # type: ignore[misc]
                )
                if answer is not None and answer.status_code == 204:
                    self.acknowledged.append((body, answer.headers["stream-next-offset"]))


def read_all(url: str, path: str) -> str:
    """All bytes of a stream."""
    data, offset = "", "-1"
    while True:
        page = httpx.get(url + path, params={"offset": offset})
        assert page.status_code == 200, page.text
        data, offset = data + page.text, page.headers["stream-next-offset"]
        if "stream-up-to-date" in page.headers:
            return data


@pytest.mark.slow
def test_killed_server_loses_and_doubles_no_acknowledged_batch(tmp_path: Path) -> None:
    """At the end all streams are read and compared with the answers that the writers got."""
    folder, dice = tmp_path / "data", random.Random(7)
    cluster = Cluster(start_server(folder))
    writers = [ProducerWriter(cluster, f"w{number}") for number in range(WRITERS)]
    plain = PlainWriter(cluster)
    for path in (SHARED, plain.path, *(f"/v1/stream/{writer.name}" for writer in writers)):
        assert httpx.put(cluster.server.url + path, headers=TEXT).status_code == 201
    for estuary in FOLLOWERS:
        url = cluster.server.url + SHARED.replace("/v1/stream/", "/v1/estuary/subscribe/")
        assert httpx.post(url, json={"estuaryId": estuary}).status_code == 201
    threads = [Thread(target=run) for run in (plain.run, *(writer.run for writer in writers))]
    for thread in threads:
        thread.start()
    try:
        for _ in range(ROUNDS):
            cluster.let_append(lambda: acknowledged_counts(writers, plain), dice.uniform(0, 1))
            cluster.server.kill()
            cluster.server = start_server(folder)
        cluster.let_append(lambda: acknowledged_counts(writers, plain), 0.5)
    finally:
        cluster.stopping.set()
        for thread in threads:
            thread.join(30)
    cluster.server.kill()
    check_database(folder)
    cluster.server = start_server(folder)
    try:
        check_history(cluster.server.url, writers, plain)
        for estuary in FOLLOWERS:
            check_follower(cluster.server.url, f"/v1/stream/p/{estuary}")
    finally:
        cluster.server.kill()


def acknowledged_counts(writers: Sequence[ProducerWriter], plain: PlainWriter) -> list[int]:
    """How many appends of each writer were acknowledged."""
    return [len(plain.acknowledged), *(writer.acknowledged for writer in writers)]


def check_follower(url: str, path: str) -> None:
    """Wait until a follower has the bytes of the shared stream."""
    expected, data, offset = read_all(url, SHARED), "", "-1"
    while len(data) < len(expected):
        page = httpx.get(url + path, params={"offset": offset, "live": "long-poll"}, timeout=30)
        assert page.status_code == 200, "no more bytes were delivered"
        data, offset = data + page.text, page.headers["stream-next-offset"]
    assert data == expected


def check_database(folder: Path) -> None:
    """Let SQLite check its file."""
    connection = sqlite3.connect(folder / "fluvial.db")
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def check_history(url: str, writers: list[ProducerWriter], plain: PlainWriter) -> None:
    """Compare the stored batches with the acknowledged ones."""
    shared = read_all(url, SHARED).split(";")[:-1]
    for writer in writers:
        assert writer.errors == []
        assert writer.acknowledged > ROUNDS
        for batches in (read_all(url, f"/v1/stream/{writer.name}").split(";")[:-1], shared):
            own = [batch for batch in batches if batch.startswith(f"{writer.name}:")]
            assert own == [f"{writer.name}:{number}" for number in range(len(own))]
            assert writer.acknowledged <= len(own) <= writer.acknowledged + 1
    data = read_all(url, plain.path)
    assert len(plain.acknowledged) > ROUNDS
    for body, offset in plain.acknowledged:
        end = int(offset.split("_")[1])
        assert data[end - len(body) : end] == body
        assert data.count(body) == 1
