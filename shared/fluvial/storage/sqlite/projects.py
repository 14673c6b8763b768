"""The SQLite project store: a database of its own in the data folder.

The folder's lock keeps all other processes from the streams' database, but `fluvial project` must work beside a running
server.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from fluvial.model.errors import StartupError, StorageDamaged, StoreUnavailable
from fluvial.model.project import Project, ProjectName
from fluvial.storage.failures import log_failure
from fluvial.storage.sqlite.checksums import add_checksum_function, check_row
from fluvial.storage.sqlite.private_files import create_private_file
from fluvial.storage.sqlite.queries import PROJECT_CHECKSUMS, PROJECT_SCHEMA, PROJECT_SQL

log = logging.getLogger(__name__)

#: The write-ahead log is cut back to this size after a long read has made it grow.
LOG_BYTES_MAX: Final = 4 * 1_048_576

#: How long to wait for another process's change, which takes a few milliseconds.
BUSY_TIMEOUT_S: Final = 5.0

_PROJECT: Final = msgspec.json.Decoder(Project)
_T = TypeVar("_T")


class SqliteProjects:
    """The projects of a data folder. Only the owner of the folder can read the file."""

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
            _add_checksums(self._connection)
        except (OSError, sqlite3.Error) as exc:
            message = f"cannot open {file}: {exc}"
            raise StartupError(message) from exc
        self._lock = asyncio.Lock()

    @property
    def staleness_s_max(self) -> float:
        """See Projects.staleness_s_max: because of the folder's lock, no other process serves its streams."""
        return 0.0

    async def get(self, name: ProjectName) -> Project | None:
        """See Projects.get."""
        rows = await self._fetch(PROJECT_SQL.project, name)
        return _decode(rows[0]) if rows else None

    async def put(self, project: Project) -> bool:
        """See Projects.put."""
        return await self._write(PROJECT_SQL.put_project, project, {"project": msgspec.json.encode(project)})

    async def remove(self, project: Project) -> bool:
        """See Projects.remove."""
        return await self._write(PROJECT_SQL.end_project, project, {})

    async def list_after(self, after: str, count_max: int) -> list[Project]:
        """See Projects.list_after."""
        return [_decode(row) for row in await self._fetch(PROJECT_SQL.projects_after, after, count_max)]

    async def has_had_any(self) -> bool:
        """See Projects.has_had_any."""
        return bool(await self._fetch(PROJECT_SQL.any_project))

    async def add_usage(self, name: ProjectName, day: int, byte_count: int) -> int:
        """See Projects.add_usage."""
        row = {"name": name, "day": day, "byte_count": byte_count}
        total: int = await self._on_thread(lambda: self._connection.execute(PROJECT_SQL.add_usage, row).fetchone()[0])
        return total

    def close(self) -> None:
        """Close the database."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    async def _fetch(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        return await self._on_thread(lambda: self._connection.execute(query, parameters).fetchall())

    async def _write(self, statement: str, project: Project, more: dict[str, object]) -> bool:
        row = {"name": project.name, "life": project.incarnation, "version": project.version, **more}
        return await self._on_thread(lambda: self._connection.execute(statement, row).rowcount) == 1

    async def _on_thread(self, work: Callable[[], _T]) -> _T:
        """Run one statement, its own transaction, on a thread, because it may wait for another process."""
        async with self._lock:
            try:
                return await asyncio.to_thread(work)
            except sqlite3.Error as exc:
                log_failure(log, "projects_unavailable", exc)
                raise StoreUnavailable from exc


def _add_checksums(connection: sqlite3.Connection) -> None:
    """Add the checksums to a database of an older version, which may be open in other processes."""
    connection.execute("BEGIN IMMEDIATE")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        for statement in PROJECT_CHECKSUMS.split(";\n"):
            connection.execute(statement)
        connection.execute("PRAGMA user_version = 1")
    connection.execute("COMMIT")


def _decode(row: tuple[Any, ...]) -> Project:
    try:
        check_row(row, "a project")
        return _PROJECT.decode(row[3])
    except (StorageDamaged, msgspec.DecodeError) as exc:
        log.exception("project_unreadable")
        raise StorageDamaged from exc
