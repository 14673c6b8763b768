"""The directory: projects as this process knows them, each for a few seconds at most."""

import asyncio
from typing import Final

from cachetools import TTLCache

from fluvial.core.limits import PROJECT_CACHE_S
from fluvial.core.project import Project, ProjectName, is_project_name
from fluvial.stores.projects import Projects
from fluvial.world import World

#: Projects that are remembered, and, by themselves, names that are no project's: whoever makes names up pushes out no
#: project.
PROJECTS_MAX: Final = 1_024
ABSENT_MAX: Final = 4_096

#: How often a server that is open to all looks whether there is a project by now.
OPEN_CACHE_S: Final = 1


class Directory:
    """What is known of projects. Every method raises StoreUnavailable: nobody is let in on a guess."""

    def __init__(self, projects: Projects, world: World, *, closed: bool) -> None:
        """`closed`: streams belong to projects even while there is none."""
        self._projects, self._world = projects, world

        def now_s() -> float:
            return world.now_ms() / 1_000

        self._known: TTLCache[str, Project] = TTLCache(PROJECTS_MAX, PROJECT_CACHE_S, now_s)
        self._absent: TTLCache[str, bool] = TTLCache(ABSENT_MAX, PROJECT_CACHE_S, now_s)
        self._asked: dict[str, asyncio.Future[Project | None]] = {}
        self._is_closed = closed
        self._open_until_ms = 0

    def is_known_to_be_open(self) -> bool:
        """Whether `is_open` need not look."""
        return not self._is_closed and self._world.now_ms() < self._open_until_ms

    async def is_open(self) -> bool:
        """Whether everybody may do everything: until there is a project, and never again."""
        if self._is_closed:
            return False
        now_ms = self._world.now_ms()
        if now_ms >= self._open_until_ms:
            self._is_closed = await self._projects.any_ever()
            self._open_until_ms = now_ms + OPEN_CACHE_S * 1_000
        return not self._is_closed

    def known(self, name: str) -> Project | None:
        """The project of a name, if `find` need not look."""
        return self._known.get(name) if self._is_closed else None

    async def find(self, name: str) -> Project | None:
        """The project of a name, as it was at most PROJECT_CACHE_S ago."""
        known = self.known(name)
        if known is not None or name in self._absent or not is_project_name(name):
            return known
        asked = self._asked.get(name)
        if asked is None:
            asked = self._asked[name] = asyncio.ensure_future(self._read(ProjectName(name)))
            asked.add_done_callback(lambda _done: self._asked.pop(name, None))
        return await asyncio.shield(asked)

    def forget(self, name: str) -> None:
        """Look again at the next request: this process has changed the project."""
        self._known.pop(name, None)
        self._absent.pop(name, None)
        self._asked.pop(name, None)
        self._open_until_ms = 0

    async def _read(self, name: ProjectName) -> Project | None:
        project = await self._projects.get(name)
        if project is None:
            self._absent[name] = True
        else:
            self._known[name] = project
        return project
