"""Caches projects in a process, each for a few seconds, and whether the server is open.

Answers of the store may overtake each other, and a change may be made while a lookup is in progress. So a lookup that
began before this process changed a project is not cached.
"""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Final

from cachetools import LRUCache

from fluvial.clock import Clock
from fluvial.model.limits import PROJECT_CACHE_S
from fluvial.model.project import Project, ProjectName, is_project_name
from fluvial.storage.projects import Projects

#: Names without a project have a cache of their own, so that made-up names do not evict projects.
PROJECTS_MAX: Final = 1_024
ABSENT_MAX: Final = 4_096

#: How often an open server asks the store whether there is a project.
OPEN_CACHE_S: Final = 1
_NEVER_MS: Final = -(2**62)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A project, None if the name has none, and when the store was asked."""

    project: Project | None
    asked_at_ms: int


class ProjectCache:
    """The projects of one store. Every coroutine raises StoreUnavailable."""

    def __init__(self, projects: Projects, clock: Clock, *, closed: bool) -> None:
        """`closed`: the server is not open, even while there is no project."""
        self._projects, self._clock = projects, clock

        self._present: LRUCache[str, _Entry] = LRUCache(PROJECTS_MAX)
        self._absent: LRUCache[str, _Entry] = LRUCache(ABSENT_MAX)
        self._lookups: dict[str, asyncio.Future[Project | None]] = {}
        self._is_closed = closed
        self._found_open_at_ms = _NEVER_MS
        self._invalidation_count = 0

    def is_known_to_be_open(self) -> bool:
        """Whether the server was found open so lately that `is_open` does not ask the store."""
        return not self._is_closed and 0 <= self._clock.now_ms() - self._found_open_at_ms < OPEN_CACHE_S * 1_000

    async def is_open(self) -> bool:
        """Whether the server is open: until there is a project, and never again.

        1. A lookup begins, and the store finds no project.
        2. This process creates the first project, or a later lookup finds it.
        3. The answer to the first lookup arrives. It must neither open the server again nor be cached.
        """
        if not self._is_closed and not self.is_known_to_be_open():
            now_ms, invalidation_count = self._clock.now_ms(), self._invalidation_count
            if await self._projects.has_had_any():
                self._is_closed = True
            elif invalidation_count == self._invalidation_count:
                self._found_open_at_ms = now_ms
        return not self._is_closed

    def cached(self, name: str) -> Project | None:
        """The project with a name if it is cached; None also while the server may be open."""
        entry = self._present.get(name)
        return entry.project if self._is_closed and entry is not None and self._is_fresh(entry) else None

    async def find(self, name: str) -> Project | None:
        """The project with a name, as it was at most PROJECT_CACHE_S ago; None also for one that is being deleted."""
        entry = self._present.get(name) or self._absent.get(name)
        if entry is not None and self._is_fresh(entry):
            return entry.project
        if not is_project_name(name):
            return None
        lookup = self._lookups.get(name)
        if lookup is None:
            lookup = self._lookups[name] = asyncio.ensure_future(self._projects.get(ProjectName(name)))
            lookup.add_done_callback(partial(self._on_loaded, name, self._clock.now_ms()))
        project = await asyncio.shield(lookup)
        return None if project is None or project.is_ending else project

    async def stored(self, name: str) -> Project | None:
        """The project with a name as the store has it now, also one that is being deleted."""
        return await self._projects.get(ProjectName(name)) if is_project_name(name) else None

    def invalidate(self, name: str) -> None:
        """Drop a project that this process has changed, and the result of a lookup that is in progress."""
        self._present.pop(name, None)
        self._absent.pop(name, None)
        self._lookups.pop(name, None)
        self._found_open_at_ms = _NEVER_MS
        self._invalidation_count += 1

    def _on_loaded(self, name: str, asked_at_ms: int, lookup: asyncio.Future[Project | None]) -> None:
        """Cache a result, unless the project was invalidated since the lookup began."""
        if self._lookups.get(name) is not lookup:
            return
        del self._lookups[name]
        if not lookup.cancelled() and lookup.exception() is None:
            project = lookup.result()
            if project is None or project.is_ending:
                self._present.pop(name, None)
                self._absent[name] = _Entry(None, asked_at_ms)
            else:
                self._absent.pop(name, None)
                self._present[name] = _Entry(project, asked_at_ms)

    def _is_fresh(self, entry: _Entry) -> bool:
        """Whether an entry is young enough; after the clock was set back none is."""
        return 0 <= self._clock.now_ms() - entry.asked_at_ms < PROJECT_CACHE_S * 1_000
