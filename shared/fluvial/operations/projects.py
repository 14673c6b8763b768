"""The registry: projects are made, changed and ended here, by the control routes and by the command line."""

import asyncio
from collections.abc import Callable
from typing import Final

from fluvial.core.errors import ErrorCode, RefusedRequest
from fluvial.core.lifetime import moment
from fluvial.core.project import (
    Project,
    ProjectName,
    Secret,
    changed,
    is_project_name,
    parse_project_name,
    with_secret,
    without_secret,
)
from fluvial.stores.contract import Store
from fluvial.stores.projects import Projects
from fluvial.world import World

#: A change is made to what a project is now; somebody else may be changing it, too.
TRIES_MAX: Final = 8

Change = Callable[[Project], Project]


class Registry:
    """Projects, for those who may change them. Methods raise RefusedRequest, StoreUnavailable and StoreUncertain."""

    def __init__(self, projects: Projects, world: World, changed_here: Callable[[str], None]) -> None:
        """`changed_here` is told the name of each project that has just changed."""
        self._projects, self._world, self._changed_here = projects, world, changed_here

    async def create(self, name: str, secret: Secret, **rules: object) -> Project:
        """Make a project with a secret and its rules, the fields of Project."""
        begun = {"life": self._world.new_incarnation(), "created_ms": self._world.now_ms()}
        project = Project(name=parse_project_name(name), secrets=(secret,), **begun, **rules)  # type: ignore[arg-type]
        if not await self._put(project):
            raise RefusedRequest(ErrorCode.PROJECT_EXISTS, "there is a project of that name", 409)
        return project

    async def get(self, name: str) -> Project:
        """A project as it is now."""
        project = await self._projects.get(ProjectName(name)) if is_project_name(name) else None
        if project is None:
            raise RefusedRequest(ErrorCode.PROJECT_NOT_FOUND, "there is no project of that name", 404)
        return project

    async def listed(self, after: str, count_max: int) -> list[Project]:
        """Projects in the order of their names."""
        return await self._projects.listed(after, count_max)

    async def change(self, name: str, **rules: object) -> Project:
        """Set some of a project's fields."""
        return await self._changed(name, lambda project: changed(project, **rules))

    async def add_secret(self, name: str, secret: Secret) -> Project:
        """Add a secret that signs from now on."""
        return await self._changed(name, lambda project: with_secret(project, secret))

    async def remove_secret(self, name: str, secret_id: str) -> Project:
        """Remove a secret; never the last."""
        return await self._changed(name, lambda project: without_secret(project, secret_id))

    async def remove(self, name: str, store: Store) -> None:
        """End a project whose streams in this store have all ended.

        It lets nobody in from the first step on. When every process has seen that, nothing can be made in it any more,
        and what is listed then is all that there is: whoever takes the name next finds nothing in it.
        """
        await self._refuse_streams(name, store)
        project = await self._changed(name, lambda known: changed(known, is_ending=True))
        await asyncio.sleep(self._projects.lag_s)
        try:
            await self._refuse_streams(name, store)
        except RefusedRequest:
            await self._changed(name, lambda known: changed(known, is_ending=False))
            raise
        try:
            removed = await self._projects.remove(project)
        finally:
            self._changed_here(name)
        if not removed:
            raise _moved_on()

    async def _refuse_streams(self, name: str, store: Store) -> None:
        project = await self.get(name)
        if await store.names(f"{project.name}/", "", 1):
            message = "the project still has streams; delete them first"
            raise RefusedRequest(ErrorCode.PROJECT_NOT_EMPTY, message, 409)

    async def _changed(self, name: str, change: Change) -> Project:
        for _ in range(TRIES_MAX):
            project = change(await self.get(name))
            if await self._put(project):
                return project
        raise _moved_on()

    async def _put(self, project: Project) -> bool:
        """Keep a version, of which this process may not know whether it is there."""
        try:
            return await self._projects.put(project)
        finally:
            self._changed_here(project.name)


def described(project: Project) -> dict[str, object]:
    """All that there is to see of a project: of its secrets only what they are called by."""
    limits = project.limits
    return {
        "name": project.name,
        "created": moment(project.created_ms),
        "public": project.is_public,
        "origins": list(project.origins),
        "secrets": [{"id": secret.id, "created": moment(secret.created_ms)} for secret in project.secrets],
        "limits": {
            "requestsPerSecond": limits.requests_per_second,
            "liveReads": limits.live_reads,
            "bodyBytes": limits.body_bytes,
            "bytesPerDay": limits.bytes_per_day,
        },
    }


def _moved_on() -> RefusedRequest:
    return RefusedRequest(ErrorCode.PROJECT_CHANGED, "somebody else is changing the project; try again", 409)
