"""Projects in a database of their own in the data folder.

Of their own, because the folder's lock keeps every other process from the streams' database, and `fluvial project`
must be able to work beside a running server.
"""

import asyncio
import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from fluvial.core.errors import StartupRefused, StorageDamaged, StoreUnavailable
from fluvial.core.project import Project, ProjectName
from fluvial.stores.sqlite.database import make_folder

log = logging.getLogger(__name__)

#: How long another process's change is waited for; each takes a few milliseconds.
BUSY_TIMEOUT_S: Final = 5.0

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS project (
    name    TEXT    NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    project BLOB    -- as JSON; NULL once it has ended
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS usage (
    name       TEXT    NOT NULL PRIMARY KEY,
    day        INTEGER NOT NULL, -- since 1970
    byte_count INTEGER NOT NULL
) WITHOUT ROWID;
"""

#: Puts a version in the place of the one before; of a name that is free, the first.
_PUT: Final = """
INSERT INTO project (name, version, project)
SELECT :name, :version, :project WHERE :version = 1 OR EXISTS (SELECT 1 FROM project WHERE name = :name)
ON CONFLICT (name) DO UPDATE SET version = :version, project = :project
 WHERE CASE WHEN project.project IS NULL THEN 0 ELSE project.version END = :version - 1
"""

_ADD_USAGE: Final = """
INSERT INTO usage (name, day, byte_count) VALUES (:name, :day, :byte_count)
ON CONFLICT (name) DO UPDATE SET day = :day,
    byte_count = :byte_count + CASE WHEN usage.day = :day THEN usage.byte_count ELSE 0 END
RETURNING byte_count
"""

_PROJECT: Final = msgspec.json.Decoder(Project)
_T = TypeVar("_T")


class SqliteProjects:
    """One process's view of a folder's projects; only the owner of the folder can read the file."""

    def __init__(self, folder: Path) -> None:
        """Open them. Raises StartupRefused when that cannot be done."""
        file = folder / "projects.db"
        try:
            os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
            self._connection = sqlite3.connect(
                file, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as exc:
            message = f"cannot open {file}: {exc}"
            raise StartupRefused(message) from exc
        self._turn = asyncio.Lock()

    async def get(self, name: ProjectName) -> Project | None:
        """See Projects.get."""
        rows = await self._rows("SELECT project FROM project WHERE name = ? AND project IS NOT NULL", name)
        return _decoded(rows[0][0]) if rows else None

    async def put(self, project: Project) -> bool:
        """See Projects.put."""
        row = {"name": project.name, "version": project.version, "project": msgspec.json.encode(project)}
        return await self._changed(_PUT, row)

    async def remove(self, project: Project) -> bool:
        """See Projects.remove."""
        row = {"name": project.name, "version": project.version}
        ended = "UPDATE project SET project = NULL WHERE name = :name AND version = :version AND project IS NOT NULL"
        return await self._changed(ended, row)

    async def listed(self, after: str, count_max: int) -> list[Project]:
        """See Projects.listed."""
        query = "SELECT project FROM project WHERE name > ? AND project IS NOT NULL ORDER BY name LIMIT ?"
        return [_decoded(row[0]) for row in await self._rows(query, after, count_max)]

    async def any_ever(self) -> bool:
        """See Projects.any_ever."""
        return bool(await self._rows("SELECT 1 FROM project LIMIT 1"))

    async def add_usage(self, name: ProjectName, day: int, byte_count: int) -> int:
        """See Projects.add_usage."""
        row = {"name": name, "day": day, "byte_count": byte_count}
        total: int = await self._on_thread(lambda: self._connection.execute(_ADD_USAGE, row).fetchone()[0])
        return total

    def close(self) -> None:
        """Let go of the file."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    async def _rows(self, query: str, *parameters: object) -> list[tuple[bytes]]:
        return await self._on_thread(lambda: self._connection.execute(query, parameters).fetchall())

    async def _changed(self, statement: str, row: dict[str, object]) -> bool:
        return await self._on_thread(lambda: self._connection.execute(statement, row).rowcount) == 1

    async def _on_thread(self, work: Callable[[], _T]) -> _T:
        """Do one statement, which is a transaction by itself; on a thread, for it may wait for another process."""
        async with self._turn:
            try:
                return await asyncio.to_thread(work)
            except sqlite3.Error as exc:
                log.exception("projects_unavailable")
                raise StoreUnavailable from exc


def open_sqlite_projects(folder: Path) -> SqliteProjects:
    """The projects of a data folder, which is made if need be. Raises StartupRefused."""
    make_folder(folder)
    return SqliteProjects(folder)


def _decoded(encoded: bytes) -> Project:
    try:
        return _PROJECT.decode(encoded)
    except msgspec.DecodeError as exc:
        log.exception("project_unreadable")
        raise StorageDamaged from exc
