"""Managing projects: concurrent changes, deletion, and streams that the first project would cut off."""

import asyncio

import pytest

from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.names import StreamName
from fluvial.model.project import Project
from fluvial.operations.manage_projects import CUT_OFF_COUNTED_MAX, ProjectAdmin
from fluvial.storage.memory import MemoryStore
from fluvial.storage.memory_projects import MemoryProjects
from tests.support.access import OLD_SECRET, SECRET
from tests.support.clocks import FixedClock
from tests.support.commands import NAME, create_commit


class CachedProjects(MemoryProjects):
    """Projects that other processes cache for a moment."""

    @property
    def staleness_s_max(self) -> float:
        """See Projects.staleness_s_max."""
        return 0.01


class ChangingProjects(MemoryProjects):
    """Projects that another process changes before every change."""

    async def put(self, project: Project) -> bool:
        """See Projects.put."""
        return False if project.version > 1 else await super().put(project)


def admin_of(projects: MemoryProjects) -> ProjectAdmin:
    """The administration of some projects."""
    return ProjectAdmin(projects, FixedClock().clock())


async def test_stream_created_while_its_project_is_deleted_keeps_the_project() -> None:
    """A process with a cached project creates it; then the project accepts requests again."""
    store, projects = MemoryStore(), CachedProjects()
    admin = admin_of(projects)
    await admin.create("chat", SECRET)
    ending = asyncio.ensure_future(admin.remove("chat", store))
    while not (await admin.get("chat")).is_ending:  # noqa: ASYNC110  one iteration of the loop at a time
        await asyncio.sleep(0)
    await store.apply(NAME, create_commit())
    with pytest.raises(RequestError) as rejected:
        await ending
    assert rejected.value.code is ErrorCode.PROJECT_NOT_EMPTY
    assert not (await admin.get("chat")).is_ending


async def test_concurrent_changes_of_a_project_are_both_applied() -> None:
    """The second change is applied to the result of the first."""
    projects = MemoryProjects()
    admin = admin_of(projects)
    await admin.create("demo", SECRET)
    await asyncio.gather(admin.add_secret("demo", OLD_SECRET), admin.change("demo", is_public=True))
    project = await admin.get("demo")
    assert (project.secrets, project.is_public, project.version) == ((OLD_SECRET, SECRET), True, 3)


class OvertakenProjects(MemoryProjects):
    """Projects where another process sets a limit between the read and the write of a change."""

    is_overtaken = False

    async def put(self, project: Project) -> bool:
        """See Projects.put."""
        if project.version == 2 and not self.is_overtaken:
            self.is_overtaken = True
            await ProjectAdmin(self, FixedClock().clock()).change("demo", {"live_reads": 7})
        return await super().put(project)


async def test_change_keeps_a_limit_that_another_process_has_just_set() -> None:
    """Other limits are those of the stored version, not of an earlier read."""
    admin = admin_of(OvertakenProjects())
    await admin.create("demo", SECRET)
    limits = (await admin.change("demo", {"body_bytes": 9})).limits
    assert (limits.live_reads, limits.body_bytes) == (7, 9)


async def test_endless_concurrent_changes_answer_a_conflict() -> None:
    """The number of tries is bounded."""
    admin = admin_of(ChangingProjects())
    await admin.create("demo", SECRET)
    with pytest.raises(RequestError) as rejected:
        await admin.change("demo", is_public=True)
    assert (rejected.value.code, rejected.value.status) == (ErrorCode.PROJECT_CHANGED, 409)


class StreamListing:
    """A store's listing of streams."""

    def __init__(self, names: list[str]) -> None:
        """Streams with these names."""
        self._names, self.call_count = sorted(names), 0

    async def names(self, prefix: str, after: str, count_max: int) -> list[StreamName]:
        """See StreamNames.names."""
        self.call_count += 1
        return [StreamName(one) for one in self._names if one.startswith(prefix) and one > after][:count_max]


async def test_all_streams_that_the_first_project_would_cut_off_are_counted() -> None:
    """Over any number of pages up to a bound, and without paging through the project's own streams."""
    admin = admin_of(MemoryProjects())
    own, others = [f"demo/{number}" for number in range(5_000)], [f"a/{number}" for number in range(1_200)]
    streams = StreamListing([*own, *others, "demo", "demo-b/1", "zoo"])
    with pytest.raises(RequestError, match="1,203 streams") as rejected:
        await admin.check_no_stream_is_cut_off("demo", streams)
    assert (rejected.value.code, rejected.value.status) == (ErrorCode.STREAMS_CUT_OFF, 409)
    assert streams.call_count <= 5
    with pytest.raises(RequestError, match="1 stream whose path does not begin with demo/: zoo"):
        await admin.check_no_stream_is_cut_off("demo", streams, ("a/", "demo"))
    await admin.check_no_stream_is_cut_off("demo", StreamListing(own))
    with pytest.raises(RequestError, match=f"{CUT_OFF_COUNTED_MAX:,} or more"):
        await admin.check_no_stream_is_cut_off(
            "demo", StreamListing([f"x/{number}" for number in range(CUT_OFF_COUNTED_MAX + 1)])
        )
    await admin.create("first", SECRET)
    await admin.check_no_stream_is_cut_off("demo", streams)  # closed already: a second project changes nothing


async def test_invalid_project_name_is_rejected_before_streams_are_counted() -> None:
    """The message is about the name."""
    streams = StreamListing(["a"])
    with pytest.raises(RequestError, match="lower-case"):
        await admin_of(MemoryProjects()).check_no_stream_is_cut_off("Demo", streams)
    assert streams.call_count == 0
