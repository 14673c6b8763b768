"""Data folders as a server that has ended leaves them, made without one."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from fluvial.clock import Clock
from fluvial.model.names import StreamName
from fluvial.model.plan import plan_create
from fluvial.storage.sqlite.store import SqliteStore, open_sqlite_store
from tests.support.commands import create_command

T = TypeVar("T")


def in_folder(folder: Path, work: Callable[[SqliteStore], Awaitable[T]]) -> T:
    """Do something with the store of a folder, which is closed again then."""

    async def done() -> T:
        store = await open_sqlite_store(folder, Clock())
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(done())


def make_folder(folder: Path, *names: str) -> None:
    """A folder with streams of text, each of which says its name."""

    async def made(store: SqliteStore) -> None:
        clock = Clock()
        for name in names:
            command = create_command(name=StreamName(name), body=name.encode())
            await store.apply(command.name, plan_create(command, clock.new_incarnation(), clock.now_ms()))

    in_folder(folder, made)
