"""A server that is alone with a table is killed (kill -9) under publishers: it makes its deliveries good itself.

Nobody reads the table's changes here, and no publication comes after the last kill. So the followers can only get the
rest because the restarted server looks for what it left behind.
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import httpx
import pytest

from tests.aws_local.__main__ import local_aws
from tests.faults.test_kill import (
    FOLLOWERS,
    SHARED,
    TEXT,
    Cluster,
    ProducerWriter,
    check_follower,
    read_all,
)
from tests.support.servers import RunningServer, start_server

WRITERS, ROUNDS = 4, 5


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The variables that name a table and a bucket."""
    environment = dict(os.environ)
    with local_aws() as variables:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield variables


@pytest.mark.slow
def test_killed_server_over_a_table_makes_its_deliveries_good(tmp_path: Path, table: dict[str, str]) -> None:
    """Each follower gets each batch once and in order, soon after the last start."""
    dice = random.Random(7)

    def start() -> RunningServer:
        return start_server(tmp_path / "data", **table)

    cluster = Cluster(start())
    writers = [ProducerWriter(cluster, f"w{number}") for number in range(WRITERS)]
    for path in (SHARED, *(f"/v1/stream/{writer.name}" for writer in writers)):
        assert httpx.put(cluster.server.url + path, headers=TEXT).status_code == 201
    for estuary in FOLLOWERS:
        url = cluster.server.url + SHARED.replace("/v1/stream/", "/v1/estuary/subscribe/")
        assert httpx.post(url, json={"estuaryId": estuary}).status_code == 201
    threads = [Thread(target=writer.run) for writer in writers]
    for thread in threads:
        thread.start()
    try:
        for _ in range(ROUNDS):
            cluster.let_append(lambda: [writer.acknowledged for writer in writers], dice.uniform(0, 1))
            cluster.server.kill()
            cluster.server = start()
        cluster.let_append(lambda: [writer.acknowledged for writer in writers], 0.5)
        cluster.server.kill()
    finally:
        cluster.stopping.set()
        for thread in threads:
            thread.join(30)
    cluster.server = start()
    try:
        url, shared = cluster.server.url, read_all(cluster.server.url, SHARED).split(";")[:-1]
        for writer in writers:
            assert writer.errors == []
            assert writer.acknowledged > ROUNDS
            own = [batch for batch in shared if batch.startswith(f"{writer.name}:")]
            assert own == [f"{writer.name}:{number}" for number in range(len(own))]
            assert writer.acknowledged <= len(own) <= writer.acknowledged + 1
        for estuary in FOLLOWERS:
            check_follower(url, f"/v1/stream/p/{estuary}")
        assert "follow_up" in cluster.server.log
    finally:
        cluster.server.kill()
