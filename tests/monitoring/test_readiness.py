"""Readiness: `/ready` says whether an append would be stored, and cannot be used to wear out the disk."""

import asyncio
import errno
import resource
import sqlite3
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest

from fluvial import __version__
from fluvial.model.errors import RequestError, StoreUnavailable, StoreUncertain
from fluvial.server.readiness import FRESH_S, Readiness
from fluvial.storage.limits import STORE_LIMITS
from fluvial.storage.memory import MemoryStore
from tests.support.rigs import SqliteRig, sqlite_rig
from tests.support.servers import running_server, server_in_thread


@dataclass
class ProbedStore(MemoryStore):
    """A store whose probes a test decides about."""

    errors: list[Exception] = field(default_factory=list)
    probe_count: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        super().__init__()
        self.gate.set()

    async def probe_write(self) -> None:
        """Wait for the test, and fail as it says."""
        self.probe_count += 1
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)


@dataclass
class Monotonic:
    """A clock that a test moves."""

    now_s: float = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now_s


async def test_probes_of_one_second_are_one_write() -> None:
    """However many clients ask at the same time or one after the other."""
    store, clock = ProbedStore(), Monotonic()
    readiness = Readiness(store, monotonic_s=clock)
    store.gate.clear()
    asking = [asyncio.create_task(readiness.check()) for _ in range(100)]
    await asyncio.sleep(0)
    store.gate.set()
    await asyncio.gather(*asking)
    await readiness.check()
    assert store.probe_count == 1
    clock.now_s += FRESH_S
    await readiness.check()
    assert store.probe_count == 2


@pytest.mark.parametrize("error", [StoreUnavailable(), StoreUncertain()])
async def test_failed_write_is_not_ready_until_one_succeeds(error: Exception) -> None:
    """The error is the one that an append gets; it is remembered as long as a success."""
    store, clock = ProbedStore(errors=[error]), Monotonic()
    readiness = Readiness(store, monotonic_s=clock)
    for _ in range(2):
        with pytest.raises(type(error)):
            await readiness.check()
    clock.now_s += FRESH_S
    await readiness.check()
    assert store.probe_count == 2


async def test_unforeseen_error_is_not_ready() -> None:
    """And does not end the probing."""
    store, clock = ProbedStore(errors=[ValueError("?")]), Monotonic()
    readiness = Readiness(store, monotonic_s=clock)
    with pytest.raises(StoreUnavailable):
        await readiness.check()
    clock.now_s += FRESH_S
    await readiness.check()


async def test_store_that_hangs_is_not_ready_and_is_asked_once() -> None:
    """Until it answers."""
    store = ProbedStore()
    store.gate.clear()
    readiness = Readiness(store, patience_s=0.01)
    for _ in range(3):
        with pytest.raises(RequestError, match="has not answered for"):
            await readiness.check()
    assert store.probe_count == 1
    store.gate.set()
    await readiness.check()


async def test_stopping_server_is_not_ready() -> None:
    """Load balancers should send its clients elsewhere."""
    with pytest.raises(RequestError, match="stopping") as caught:
        await Readiness(ProbedStore(), is_stopping=lambda: True).check()
    assert caught.value.status == 503


async def test_read_only_server_is_ready_without_a_write() -> None:
    """It is while it can read."""
    store = ProbedStore(errors=[StoreUnavailable()])
    await Readiness(store, is_read_only=True).check()
    assert store.probe_count == 0


async def test_store_that_cannot_write_is_not_ready(rig: SqliteRig) -> None:
    """The probe takes the way of an append, which needs a page that is not there."""
    await rig.store.probe_write()
    rig.store._writer.execute("PRAGMA query_only = ON")  # SQLite refuses to write, as it does on a full disk
    with pytest.raises(StoreUnavailable) as caught:
        await rig.store.probe_write()
    assert isinstance(caught.value.__cause__, sqlite3.Error)
    rig.store._writer.execute("PRAGMA query_only = OFF")
    await rig.store.probe_write()


async def test_disk_with_hardly_anything_free_is_not_ready(tmp_path: Path) -> None:
    """Large appends may fail on it already, before the small write of a probe does."""
    async with sqlite_rig(tmp_path / "data", replace(STORE_LIMITS, free_disk_bytes_min=2**62)) as rig:
        with pytest.raises(StoreUnavailable) as caught:
            await rig.store.probe_write()
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC


async def test_log_says_once_why_the_server_is_not_ready(caplog: pytest.LogCaptureFixture) -> None:
    """However often it is asked, and when it is ready again."""
    store, clock = ProbedStore(errors=[StoreUnavailable(), StoreUnavailable()]), Monotonic()
    readiness = Readiness(store, monotonic_s=clock)
    with caplog.at_level("INFO", "fluvial.server.readiness"):
        for _ in range(4):
            with suppress(StoreUnavailable):
                await readiness.check()
            clock.now_s += FRESH_S
    assert [record.message for record in caplog.records] == ["not_ready", "ready_again"]


def wait_for_status(url: str, status: int, patience_s: float = 10) -> httpx.Response:
    """Ask until the answer has the status; a probe's result lasts a second."""
    deadline = time.monotonic() + patience_s
    with httpx.Client() as http:
        while True:
            answer = http.get(url)
            if answer.status_code == status:
                return answer
            assert time.monotonic() < deadline, answer.text


@pytest.mark.medium
def test_server_whose_disk_takes_nothing_is_healthy_but_not_ready_until_it_does_again(tmp_path: Path) -> None:
    """The kernel refuses each write to a file, as it does on a full disk."""
    with running_server(tmp_path / "data") as server:
        unlimited = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        assert httpx.get(server.url + "/ready").status_code == 200
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (1, unlimited[1]))
        refused = wait_for_status(server.url + "/ready", 503)
        assert refused.json()["error"]["code"] in {"store_unavailable", "store_uncertain"}
        assert httpx.put(server.url + "/v1/stream/a").status_code == 503
        assert httpx.get(server.url + "/health").status_code == 200
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, unlimited)
        wait_for_status(server.url + "/ready", 200)
        assert httpx.put(server.url + "/v1/stream/a").status_code == 201


def test_ready_and_health_answer_get_and_head_without_a_token(tmp_path: Path) -> None:
    """Also behind a CDN whose secret the request lacks; health tells the version."""
    options = ("--cdn-secret", "s" * 32, "--access", "projects")
    with server_in_thread(tmp_path / "data", *options) as server, httpx.Client(base_url=server.url) as http:
        assert http.get("/metrics").status_code == 403
        assert http.get("/ready").json() == {"status": "ready", "writes": True}
        assert http.get("/health").json() == {"status": "ok", "version": __version__, "liveReads": 0}
        for path in ("/ready", "/health"):
            got, asked = http.get(path), http.head(path)
            assert (asked.status_code, asked.content) == (200, b"")
            assert asked.headers["content-length"] == got.headers["content-length"]
