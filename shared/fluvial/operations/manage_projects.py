"""Create, change and delete projects, for the control routes and the command line."""

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
    is_project_name,
    next_version,
    parse_project_name,
    with_limits,
    with_secret,
    without_secret,
)
from fluvial.storage.contract import Store
from fluvial.storage.projects import Projects, StreamNames

#: At most so many streams that a first project would cut off are counted, and so many of them named.
CUT_OFF_COUNTED_MAX: Final = 10_000
CUT_OFF_NAMED_MAX: Final = 5
_NAMES_PER_PAGE: Final = 1_000

#: A change is applied to the stored version, and tried again when another process has changed that meanwhile.
TRIES_MAX: Final = 8

Change = Callable[[Project], Project]


def no_project_cache(_name: str) -> None:
    """Do nothing: this process caches no projects."""


class ProjectAdmin:
    """Creates, changes, lists and deletes projects. Methods raise RequestError, StoreUnavailable and StoreUncertain."""

    def __init__(self, projects: Projects, clock: Clock, on_changed: Callable[[str], None] = no_project_cache) -> None:
        """`on_changed` gets the name of each project that this process has, or may have, just changed."""
        self._projects, self._clock, self._on_changed = projects, clock, on_changed

    async def create(self, name: str, secret: Secret, **rules: object) -> Project:
        """Create a project with a secret; `rules` are further fields of Project."""
        initial = {"incarnation": self._clock.new_incarnation(), "created_ms": self._clock.now_ms()}
        project = Project(name=parse_project_name(name), secrets=(secret,), **initial, **rules)  # type: ignore[arg-type]
        if not await self._put(project):
            raise RequestError(ErrorCode.PROJECT_EXISTS, "there is already a project of that name", 409)
        return project

    async def check_no_stream_is_cut_off(self, name: str, streams: StreamNames, spared: tuple[str, ...] = ()) -> None:
        """Check that all streams stay reachable if this is the first project.

        The first project closes the server, and then a stream whose path does not begin with a project's name cannot be
        reached. `spared` are prefixes of streams that will be renamed. Raises RequestError with the number of streams
        that would be cut off, and some of their names.
        """
        root = f"{parse_project_name(name)}/"
        if await self._projects.has_had_any():
            return
        cut_off, after = list[StreamName](), ""
        while len(cut_off) < CUT_OFF_COUNTED_MAX and (names := await streams.names("", after, _NAMES_PER_PAGE)):
            cut_off += [one for one in names if not one.startswith((root, *spared))]
            after = root + HIGHEST if names[-1].startswith(root) else names[-1]
        if cut_off:
            raise _streams_cut_off_error(root, cut_off[:CUT_OFF_COUNTED_MAX])

    async def get(self, name: str) -> Project:
        """The stored version of a project."""
        project = await self._projects.get(ProjectName(name)) if is_project_name(name) else None
        if project is None:
            raise RequestError(ErrorCode.PROJECT_NOT_FOUND, "there is no project of that name", 404)
        return project

    async def list_after(self, after: str, count_max: int) -> list[Project]:
        """Projects whose names come after `after`, in the order of their names."""
        return await self._projects.list_after(after, count_max)

    async def change(self, name: str, some_limits: Mapping[str, int | None] | None = None, **rules: object) -> Project:
        """Set some of a project's fields, and some of its limits; the others keep their stored values."""
        return await self._update(name, lambda project: next_version(with_limits(project, some_limits or {}), **rules))

    async def add_secret(self, name: str, secret: Secret) -> Project:
        """Add a secret, which signs new tokens from now on."""
        return await self._update(name, lambda project: with_secret(project, secret))

    async def remove_secret(self, name: str, secret_id: str) -> Project:
        """Remove a secret; the last one cannot be removed."""
        return await self._update(name, lambda project: without_secret(project, secret_id))

    async def remove(self, name: str, store: Store) -> None:
        """Delete a project without streams.

        A process that still has the project in its cache could create a stream in it after the streams were listed; the
        next project of the name would own that stream. So the project is marked as ending, which rejects all requests;
        after `staleness_s_max` every process knows that, and the second listing of its streams is final.
        """
        await self._check_has_no_streams(name, store)
        project = await self._update(name, lambda current: next_version(current, is_ending=True))
        await asyncio.sleep(self._projects.staleness_s_max)
        try:
            await self._check_has_no_streams(name, store)
        except RequestError:
            await self._update(name, lambda current: next_version(current, is_ending=False))
            raise
        try:
            removed = await self._projects.remove(project)
        finally:
            self._on_changed(name)
        if not removed:
            raise _concurrent_change_error()

    async def _check_has_no_streams(self, name: str, store: Store) -> None:
        project = await self.get(name)
        if await store.names(f"{project.name}/", "", 1):
            message = "the project still has streams; delete them first"
            raise RequestError(ErrorCode.PROJECT_NOT_EMPTY, message, 409)

    async def _update(self, name: str, change: Change) -> Project:
        for _ in range(TRIES_MAX):
            project = change(await self.get(name))
            if await self._put(project):
                return project
        raise _concurrent_change_error()

    async def _put(self, project: Project) -> bool:
        """Store a version. `on_changed` is called after an error, too, because the write may have landed."""
        try:
            return await self._projects.put(project)
        finally:
            self._on_changed(project.name)


def describe_project(project: Project) -> dict[str, object]:
    """A project as JSON for people and clients, with the ids of its secrets instead of the secrets."""
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


def _concurrent_change_error() -> RequestError:
    return RequestError(ErrorCode.PROJECT_CHANGED, "the project was changed at the same time; try again", 409)


def _streams_cut_off_error(root: str, names: list[StreamName]) -> RequestError:
    count = f"{len(names):,}" + " or more" * (len(names) == CUT_OFF_COUNTED_MAX)
    examples = ", ".join(names[:CUT_OFF_NAMED_MAX]) + ", …" * (len(names) > CUT_OFF_NAMED_MAX)
    streams = "stream whose path does" if len(names) == 1 else "streams whose paths do"
    message = f"the first project closes the server and cuts off {count} {streams} not begin with {root}: {examples}"
    return RequestError(ErrorCode.STREAMS_CUT_OFF, message, 409)
