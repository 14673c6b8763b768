"""The directory: projects as this process knows them, each for a few seconds at most."""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Final

from cachetools import LRUCache

from fluvial.clock import Clock
from fluvial.model.limits import PROJECT_CACHE_S
from fluvial.model.project import Project, ProjectName, is_project_name
from fluvial.storage.projects import Projects

#: Projects that are remembered, and, by themselves, names that are no project's: whoever makes names up pushes out no
#: project.
PROJECTS_MAX: Final = 1_024
ABSENT_MAX: Final = 4_096

#: How often a server that is open to all looks whether there is a project by now.
OPEN_CACHE_S: Final = 1
_NEVER_MS: Final = -(2**62)


@dataclass(frozen=True, slots=True)
class _Known:
    """What was told of a name when it was asked for."""

    project: Project | None
    at_ms: int


class ProjectCache:
    """What is known of projects. Every method raises StoreUnavailable: nobody is let in on a guess."""

    def __init__(self, projects: Projects, clock: Clock, *, closed: bool) -> None:
        """`closed`: streams belong to projects even while there is none."""
        self._projects, self._clock = projects, clock

        self._known: LRUCache[str, _Known] = LRUCache(PROJECTS_MAX)
        self._absent: LRUCache[str, _Known] = LRUCache(ABSENT_MAX)
        self._asked: dict[str, asyncio.Future[Project | None]] = {}
        self._is_closed = closed
        self._looked_at_ms = _NEVER_MS
        self._forgotten = 0

    def is_known_to_be_open(self) -> bool:
        """Whether `is_open` need not look."""
        return not self._is_closed and 0 <= self._clock.now_ms() - self._looked_at_ms < OPEN_CACHE_S * 1_000

    async def is_open(self) -> bool:
        """Whether everybody may do everything: until there is a project, and never again.

        Answers of the store may overtake each other: one that is late opens nothing, and what was asked before this
        process changed something is not relied on by anybody else.
        """
        if not self._is_closed and not self.is_known_to_be_open():
            now_ms, forgotten = self._clock.now_ms(), self._forgotten
            if await self._projects.has_had_any():
                self._is_closed = True
            elif forgotten == self._forgotten:
                self._looked_at_ms = now_ms
        return not self._is_closed

    def known(self, name: str) -> Project | None:
        """The project of a name, if `find` need not look."""
        known = self._known.get(name)
        return known.project if self._is_closed and known is not None and self._is_fresh(known) else None

    async def find(self, name: str) -> Project | None:
        """The project of a name, as it was at most PROJECT_CACHE_S ago; one that is ending is there no more."""
        known = self._known.get(name) or self._absent.get(name)
        if known is not None and self._is_fresh(known):
            return known.project
        if not is_project_name(name):
            return None
        asked = self._asked.get(name)
        if asked is None:
            asked = self._asked[name] = asyncio.ensure_future(self._projects.get(ProjectName(name)))
            asked.add_done_callback(partial(self._told, name, self._clock.now_ms()))
        project = await asyncio.shield(asked)
        return None if project is None or project.is_ending else project

    def forget(self, name: str) -> None:
        """Look again at the next request: this process has changed the project. What is being asked tells the past."""
        self._known.pop(name, None)
        self._absent.pop(name, None)
        self._asked.pop(name, None)
        self._looked_at_ms = _NEVER_MS
        self._forgotten += 1

    def _told(self, name: str, asked_at_ms: int, asked: asyncio.Future[Project | None]) -> None:
        """Keep an answer, unless the project was forgotten since it was asked for."""
        if self._asked.get(name) is not asked:
            return
        del self._asked[name]
        if not asked.cancelled() and asked.exception() is None:
            project = asked.result()
            if project is None or project.is_ending:
                self._known.pop(name, None)
                self._absent[name] = _Known(None, asked_at_ms)
            else:
                self._absent.pop(name, None)
                self._known[name] = _Known(project, asked_at_ms)

    def _is_fresh(self, known: _Known) -> bool:
        """By a clock that may have been set back: then nothing is."""
        return 0 <= self._clock.now_ms() - known.at_ms < PROJECT_CACHE_S * 1_000
