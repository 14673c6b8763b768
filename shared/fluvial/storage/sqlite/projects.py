"""The SQLite project store."""

import logging
from pathlib import Path
from typing import Any, Final

import msgspec

from fluvial.model.errors import StorageDamaged
from fluvial.model.project import Project, ProjectName
from fluvial.storage.sqlite.checksums import check_row
from fluvial.storage.sqlite.projects_database import ProjectsDatabase
from fluvial.storage.sqlite.queries import PROJECT_SQL
from fluvial.storage.sqlite.signing_keys import SqliteSigningKeys

log = logging.getLogger(__name__)

_PROJECT: Final = msgspec.json.Decoder(Project)


class SqliteProjects:
    """The projects of a data folder, and in the same database its signing keys."""

    def __init__(self, folder: Path) -> None:
        """Open the database, which is created if it does not exist. Raises StartupError."""
        self._database = ProjectsDatabase(folder)
        self.signing_keys = SqliteSigningKeys(self._database)

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
        [(total,)] = await self._database.fetch(PROJECT_SQL.add_usage, row)
        return int(total)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    async def _fetch(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        return await self._database.fetch(query, parameters)

    async def _write(self, statement: str, project: Project, more: dict[str, object]) -> bool:
        row = {"name": project.name, "life": project.incarnation, "version": project.version, **more}
        return await self._database.write(statement, row)


def _decode(row: tuple[Any, ...]) -> Project:
    try:
        check_row(row, "a project")
        return _PROJECT.decode(row[3])
    except (StorageDamaged, msgspec.DecodeError) as exc:
        log.exception("project_unreadable")
        raise StorageDamaged from exc
