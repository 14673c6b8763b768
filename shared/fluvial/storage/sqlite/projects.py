"""Projects in a database of their own in the data folder.

Of their own, because the folder's lock keeps every other process from the streams' database, and `fluvial project`
must be able to work beside a running server.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from fluvial.model.errors import StartupError, StorageDamaged, StoreUnavailable
from fluvial.model.project import Project, ProjectName
from fluvial.storage.failures import log_failure
from fluvial.storage.sqlite.private_files import make_file
from fluvial.storage.sqlite.queries import PROJECT_SCHEMA, PROJECT_SQL

log = logging.getLogger(__name__)

#: A log that has grown under somebody's long read is cut back to this.
LOG_BYTES_MAX: Final = 4 * 1_048_576

#: How long another process's change is waited for; each takes a few milliseconds.
BUSY_TIMEOUT_S: Final = 5.0

_PROJECT: Final = msgspec.json.Decoder(Project)
_T = TypeVar("_T")


class SqliteProjects:
    """One process's view of a folder's projects; only the owner of the folder can read the file."""

    def __init__(self, folder: Path) -> None:
        """Open them. Raises StartupError when that cannot be done."""
        file = folder / "projects.db"
        try:
            make_file(file)
            self._connection = sqlite3.connect(
                file, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES_MAX}")
            self._connection.executescript(PROJECT_SCHEMA)
        except (OSError, sqlite3.Error) as exc:
            message = f"cannot open {file}: {exc}"
            raise StartupError(message) from exc
        self._turn = asyncio.Lock()

    @property
    def lag_s(self) -> float:
        """See Projects.lag_s: the folder's lock sees to it that no other process serves its streams."""
        return 0.0

    async def get(self, name: ProjectName) -> Project | None:
        """See Projects.get."""
        rows = await self._rows(PROJECT_SQL.project, name)
        return _decoded(rows[0][0]) if rows else None

    async def put(self, project: Project) -> bool:
        """See Projects.put."""
        return await self._changed(PROJECT_SQL.put_project, project, {"project": msgspec.json.encode(project)})

    async def remove(self, project: Project) -> bool:
        """See Projects.remove."""
        return await self._changed(PROJECT_SQL.end_project, project, {})

    async def listed(self, after: str, count_max: int) -> list[Project]:
        """See Projects.listed."""
        return [_decoded(row[0]) for row in await self._rows(PROJECT_SQL.projects_after, after, count_max)]

    async def any_ever(self) -> bool:
        """See Projects.any_ever."""
        return bool(await self._rows(PROJECT_SQL.any_project))

    async def add_usage(self, name: ProjectName, day: int, byte_count: int) -> int:
        """See Projects.add_usage."""
        row = {"name": name, "day": day, "byte_count": byte_count}
        total: int = await self._on_thread(lambda: self._connection.execute(PROJECT_SQL.add_usage, row).fetchone()[0])
        return total

    def close(self) -> None:
        """Let go of the file."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    async def _rows(self, query: str, *parameters: object) -> list[tuple[bytes]]:
        return await self._on_thread(lambda: self._connection.execute(query, parameters).fetchall())

    async def _changed(self, statement: str, project: Project, more: dict[str, object]) -> bool:
        row = {"name": project.name, "life": project.life, "version": project.version, **more}
        return await self._on_thread(lambda: self._connection.execute(statement, row).rowcount) == 1

    async def _on_thread(self, work: Callable[[], _T]) -> _T:
        """Do one statement, which is a transaction by itself; on a thread, for it may wait for another process."""
        async with self._turn:
            try:
                return await asyncio.to_thread(work)
            except sqlite3.Error as exc:
                log_failure(log, "projects_unavailable", exc)
                raise StoreUnavailable from exc


def _decoded(encoded: bytes) -> Project:
    try:
        return _PROJECT.decode(encoded)
    except msgspec.DecodeError as exc:
        log.exception("project_unreadable")
        raise StorageDamaged from exc
