"""Data folders as a stopped server leaves them, made without starting one."""

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


def with_store(folder: Path, work: Callable[[SqliteStore], Awaitable[T]]) -> T:
    """Open the store of a folder, run `work` on it, and close it."""

    async def open_and_work() -> T:
        store = await open_sqlite_store(folder, Clock())
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(open_and_work())


def create_data_folder(folder: Path, *names: str) -> None:
    """Make a data folder with text streams whose content is their own name."""

    async def create_streams(store: SqliteStore) -> None:
        clock = Clock()
        for name in names:
            command = create_command(name=StreamName(name), body=name.encode())
            await store.apply(command.name, plan_create(command, clock.new_incarnation(), clock.now_ms()))

    with_store(folder, create_streams)
