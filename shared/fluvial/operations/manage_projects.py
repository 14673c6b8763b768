"""The registry: projects are made, changed and ended here, by the control routes and by the command line."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from fluvial.clock import Clock
from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.lifetime import format_rfc3339
from fluvial.model.names import HIGHEST, StreamName
from fluvial.model.project import (
    Project,
    ProjectName,
    Secret,
    changed,
    is_project_name,
    parse_project_name,
    with_limits,
    with_secret,
    without_secret,
)
from fluvial.storage.contract import Store
from fluvial.storage.projects import Projects, StreamNames

#: How many streams are counted that a first project would cut off, and how many of them are named.
CUT_OFF_COUNTED_MAX: Final = 10_000
CUT_OFF_NAMED_MAX: Final = 5
_NAMES_AT_ONCE: Final = 1_000

#: A change is made to what a project is now; somebody else may be changing it, too.
TRIES_MAX: Final = 8

Change = Callable[[Project], Project]


class Registry:
    """Projects, for those who may change them. Methods raise RequestError, StoreUnavailable and StoreUncertain."""

    def __init__(self, projects: Projects, clock: Clock, changed_here: Callable[[str], None]) -> None:
        """`changed_here` is told the name of each project that has just changed."""
        self._projects, self._clock, self._changed_here = projects, clock, changed_here

    async def create(self, name: str, secret: Secret, **rules: object) -> Project:
        """Make a project with a secret and its rules, the fields of Project."""
        begun = {"life": self._clock.new_incarnation(), "created_ms": self._clock.now_ms()}
        project = Project(name=parse_project_name(name), secrets=(secret,), **begun, **rules)  # type: ignore[arg-type]
        if not await self._put(project):
            raise RequestError(ErrorCode.PROJECT_EXISTS, "there is a project of that name", 409)
        return project

    async def check_reach(self, name: str, streams: StreamNames, spared: tuple[str, ...] = ()) -> None:
        """Whether everybody's streams can be reached once there is this project, if it is the first.

        The server closes then, and a stream whose path does not begin with a project's name is nobody's. `spared` are
        the beginnings of names that will change. Raises RequestError, which tells how many they are and some of them.
        """
        root = f"{parse_project_name(name)}/"
        if await self._projects.any_ever():
            return
        cut_off, after = list[StreamName](), ""
        while len(cut_off) < CUT_OFF_COUNTED_MAX and (names := await streams.names("", after, _NAMES_AT_ONCE)):
            cut_off += [one for one in names if not one.startswith((root, *spared))]
            after = root + HIGHEST if names[-1].startswith(root) else names[-1]
        if cut_off:
            raise _cuts_off(root, cut_off[:CUT_OFF_COUNTED_MAX])

    async def get(self, name: str) -> Project:
        """A project as it is now."""
        project = await self._projects.get(ProjectName(name)) if is_project_name(name) else None
        if project is None:
            raise RequestError(ErrorCode.PROJECT_NOT_FOUND, "there is no project of that name", 404)
        return project

    async def listed(self, after: str, count_max: int) -> list[Project]:
        """Projects in the order of their names."""
        return await self._projects.listed(after, count_max)

    async def change(self, name: str, some_limits: Mapping[str, int | None] | None = None, **rules: object) -> Project:
        """Set some of a project's fields, and some of its limits: those of the version that is changed."""
        return await self._changed(name, lambda project: changed(with_limits(project, some_limits or {}), **rules))

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
        except RequestError:
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
            raise RequestError(ErrorCode.PROJECT_NOT_EMPTY, message, 409)

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
        "created": format_rfc3339(project.created_ms),
        "public": project.is_public,
        "origins": list(project.origins),
        "secrets": [{"id": secret.id, "created": format_rfc3339(secret.created_ms)} for secret in project.secrets],
        "limits": {
            "requestsPerSecond": limits.requests_per_second,
            "liveReads": limits.live_reads,
            "bodyBytes": limits.body_bytes,
            "bytesPerDay": limits.bytes_per_day,
        },
    }


def _moved_on() -> RequestError:
    return RequestError(ErrorCode.PROJECT_CHANGED, "somebody else is changing the project; try again", 409)


def _cuts_off(root: str, names: list[StreamName]) -> RequestError:
    count = f"{len(names):,}" + " or more" * (len(names) == CUT_OFF_COUNTED_MAX)
    shown = ", ".join(names[:CUT_OFF_NAMED_MAX]) + ", …" * (len(names) > CUT_OFF_NAMED_MAX)
    streams = "stream whose path does" if len(names) == 1 else "streams whose paths do"
    message = f"the first project closes the server, and cuts off {count} {streams} not begin with {root}: {shown}"
    return RequestError(ErrorCode.STREAMS_CUT_OFF, message, 409)
