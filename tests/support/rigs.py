"""Stores to test, each with a back door that looks behind the contract."""

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fluvial.core.head import Incarnation
from fluvial.core.names import StreamName
from fluvial.stores.contract import Store
from fluvial.stores.memory import MemoryStore
from fluvial.stores.sqlite.store import SqliteStore, open_sqlite_store
from tests.support.commands import delete_commit
from tests.support.worlds import StillWorld


class Rig(Protocol):
    """A store under test."""

    still: StillWorld

    @property
    def store(self) -> Store:
        """The store that is open now."""
        ...

    async def reopen(self) -> None:
        """Close the store and open it again, where that means anything."""
        ...

    def raw_bytes(self, incarnation: Incarnation) -> bytes:
        """All stored bytes of a life, read behind the store's back; empty when nothing is kept of it."""
        ...


@dataclass
class MemoryRig:
    """The memory store; reopening it does nothing."""

    store: MemoryStore = field(default_factory=MemoryStore)
    still: StillWorld = field(default_factory=StillWorld)

    async def reopen(self) -> None:
        """Memory has no other side."""

    def raw_bytes(self, incarnation: Incarnation) -> bytes:
        """The log's batches."""
        log = self.store._logs.get(incarnation)
        return b"".join(log.batches) if log else b""


@dataclass
class SqliteRig:
    """The SQLite store in a folder of its own."""

    folder: Path
    store: SqliteStore
    still: StillWorld

    async def reopen(self) -> None:
        """What a restart does."""
        await self.store.close()
        self.store = await open_sqlite_store(self.folder, self.still.world())

    def query(self, statement: str, *parameters: object) -> list[tuple[object, ...]]:
        """Rows, as another process would see them."""
        connection = sqlite3.connect(self.folder / "fluvial.db")
        try:
            return connection.execute(statement, parameters).fetchall()
        finally:
            connection.close()

    def raw_bytes(self, incarnation: Incarnation) -> bytes:
        """The segment files' data, then the hot log's rows."""
        data = b""
        segments = "SELECT start_offset, end_offset FROM segment WHERE incarnation = ? ORDER BY end_offset"
        for start, end in self.query(segments, incarnation):
            [path] = self.folder.glob(f"segments/*/{incarnation:016x}-{start:016d}-{end:016d}.segment")
            data += path.read_bytes()[: int(str(end)) - int(str(start))]
        runs = "SELECT data FROM hot_run WHERE incarnation = ? ORDER BY end_offset"
        return data + b"".join(bytes(row[0]) for row in self.query(runs, incarnation))  # type: ignore[call-overload]


@asynccontextmanager
async def memory_rig(_folder: Path) -> AsyncIterator[MemoryRig]:
    """A memory store."""
    yield MemoryRig()


@asynccontextmanager
async def sqlite_rig(folder: Path) -> AsyncIterator[SqliteRig]:
    """A SQLite store that is closed at the end."""
    still = StillWorld()
    rig = SqliteRig(folder, await open_sqlite_store(folder, still.world()), still)
    try:
        yield rig
    finally:
        await rig.store.close()


RIGS: dict[str, Callable[[Path], AbstractAsyncContextManager[Rig]]] = {"memory": memory_rig, "sqlite": sqlite_rig}


async def pump(rig: SqliteRig) -> None:
    """Give the background a turn: a commit that changes nothing."""
    await rig.store.apply(StreamName("nobody"), delete_commit())


async def eventually(holds: Callable[[], bool], step: Callable[[], Awaitable[object]], tries: int = 2_000) -> None:
    """Take steps until something holds that the background brings about."""
    for _ in range(tries):
        if holds():
            return
        await step()
    raise AssertionError("it never came about")
