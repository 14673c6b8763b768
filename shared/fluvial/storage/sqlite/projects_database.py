"""The projects' database: one of its own in the data folder, beside that of the streams. It has the signing keys, too.

The folder's lock keeps all other processes from the streams' database, but `fluvial project` must work beside a running
server.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from fluvial.model.errors import StartupError, StoreUnavailable
from fluvial.storage.failures import log_failure
from fluvial.storage.sqlite.checksums import add_checksum_function
from fluvial.storage.sqlite.private_files import create_private_file
from fluvial.storage.sqlite.queries import PROJECT_SCHEMA, PROJECT_SCHEMA_STEPS

log = logging.getLogger(__name__)

#: The write-ahead log is cut back to this size after a long read has made it grow.
LOG_BYTES_MAX: Final = 4 * 1_048_576

#: How long to wait for another process's change, which takes a few milliseconds.
BUSY_TIMEOUT_S: Final = 5.0

_T = TypeVar("_T")


class ProjectsDatabase:
    """The database of a data folder. Only the owner of the folder can read the file."""

    def __init__(self, folder: Path) -> None:
        """Open the database, which is created if it does not exist. Raises StartupError."""
        file = folder / "projects.db"
        try:
            create_private_file(file)
            self._connection = sqlite3.connect(
                file, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES_MAX}")
            add_checksum_function(self._connection)
            self._connection.executescript(PROJECT_SCHEMA)
            _upgrade(self._connection)
        except (OSError, sqlite3.Error) as exc:
            message = f"cannot open {file}: {exc}"
            raise StartupError(message) from exc
        self._lock = asyncio.Lock()

    def close(self) -> None:
        """Close the database."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    async def fetch(self, query: str, parameters: Mapping[str, object] | tuple[object, ...]) -> list[tuple[Any, ...]]:
        """The rows of a statement. Raises StoreUnavailable."""
        return await self._on_thread(lambda: self._connection.execute(query, parameters).fetchall())

    async def write(self, statement: str, parameters: Mapping[str, object]) -> bool:
        """Whether a statement has changed a row. Raises StoreUnavailable."""
        return await self._on_thread(lambda: self._connection.execute(statement, parameters).rowcount) == 1

    async def _on_thread(self, work: Callable[[], _T]) -> _T:
        """Run one statement, its own transaction, on a thread, because it may wait for another process."""
        async with self._lock:
            try:
                return await asyncio.to_thread(work)
            except sqlite3.Error as exc:
                log_failure(log, "projects_unavailable", exc)
                raise StoreUnavailable from exc


def _upgrade(connection: sqlite3.Connection) -> None:
    """Bring a database of an older version to this one's; it may be open in other processes."""
    connection.execute("BEGIN IMMEDIATE")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for step, script in PROJECT_SCHEMA_STEPS:
        if step > version:
            for statement in script.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {step}")
    connection.execute("COMMIT")
