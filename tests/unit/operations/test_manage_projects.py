"""The registry: changes that meet, and an end that leaves nothing to the next owner of the name."""

import asyncio

import pytest

from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.names import StreamName
from fluvial.model.project import Project
from fluvial.operations.manage_projects import CUT_OFF_COUNTED_MAX, Registry
from fluvial.storage.memory import MemoryStore
from fluvial.storage.memory_projects import MemoryProjects
from tests.support.access import OLD_SECRET, SECRET
from tests.support.clocks import FixedClock
from tests.support.commands import NAME, create_commit


class SharedProjects(MemoryProjects):
    """As if other processes had them, too."""

    @property
    def lag_s(self) -> float:
        """See Projects.lag_s."""
        return 0.01


class MovingProjects(MemoryProjects):
    """Somebody else changes each project before every change."""

    async def put(self, project: Project) -> bool:
        """See Projects.put."""
        return False if project.version > 1 else await super().put(project)


def registry_of(projects: MemoryProjects) -> Registry:
    """The registry of some projects."""
    return Registry(projects, FixedClock().clock(), lambda _name: None)


async def test_what_is_made_while_a_project_ends_keeps_it() -> None:
    """By a process that has not seen yet that it ends; then everybody is let in again."""
    store, projects = MemoryStore(), SharedProjects()
    registry = registry_of(projects)
    await registry.create("chat", SECRET)
    ending = asyncio.ensure_future(registry.remove("chat", store))
    while not (await registry.get("chat")).is_ending:  # noqa: ASYNC110  a turn of the loop at a time
        await asyncio.sleep(0)
    await store.apply(NAME, create_commit())
    with pytest.raises(RequestError) as refused:
        await ending
    assert refused.value.code is ErrorCode.PROJECT_NOT_EMPTY
    assert not (await registry.get("chat")).is_ending


async def test_changes_that_meet_are_both_made() -> None:
    """Each on what the other has left."""
    projects = MemoryProjects()
    registry = registry_of(projects)
    await registry.create("demo", SECRET)
    await asyncio.gather(registry.add_secret("demo", OLD_SECRET), registry.change("demo", is_public=True))
    project = await registry.get("demo")
    assert (project.secrets, project.is_public, project.version) == ((OLD_SECRET, SECRET), True, 3)


class OvertakenProjects(MemoryProjects):
    """Somebody else sets a limit between a change's look and its write."""

    is_overtaken = False

    async def put(self, project: Project) -> bool:
        """See Projects.put."""
        if project.version == 2 and not self.is_overtaken:
            self.is_overtaken = True
            await Registry(self, FixedClock().clock(), lambda _name: None).change("demo", {"live_reads": 7})
        return await super().put(project)


async def test_a_limit_that_somebody_else_sets_meanwhile_stays() -> None:
    """What is not named is that of the version that is changed, not of an earlier look."""
    registry = registry_of(OvertakenProjects())
    await registry.create("demo", SECRET)
    limits = (await registry.change("demo", {"body_bytes": 9})).limits
    assert (limits.live_reads, limits.body_bytes) == (7, 9)


async def test_a_project_that_never_stands_still_is_a_conflict() -> None:
    """After so many tries; nothing loops for ever."""
    registry = registry_of(MovingProjects())
    await registry.create("demo", SECRET)
    with pytest.raises(RequestError) as refused:
        await registry.change("demo", is_public=True)
    assert (refused.value.code, refused.value.status) == (ErrorCode.PROJECT_CHANGED, 409)


class Names:
    """A store's listing."""

    def __init__(self, names: list[str]) -> None:
        """Of streams with these names."""
        self._names, self.asked = sorted(names), 0

    async def names(self, prefix: str, after: str, count_max: int) -> list[StreamName]:
        """See StreamNames.names."""
        self.asked += 1
        return [StreamName(one) for one in self._names if one.startswith(prefix) and one > after][:count_max]


async def test_every_stream_that_a_first_project_would_cut_off_is_counted() -> None:
    """Over any number of pages, without looking through the project's own; beyond a bound it is at least so many."""
    registry = registry_of(MemoryProjects())
    own, others = [f"demo/{number}" for number in range(5_000)], [f"a/{number}" for number in range(1_200)]
    streams = Names([*own, *others, "demo", "demo-b/1", "zoo"])
    with pytest.raises(RequestError, match="1,203 streams") as refused:
        await registry.check_reach("demo", streams)
    assert (refused.value.code, refused.value.status) == (ErrorCode.STREAMS_CUT_OFF, 409)
    assert streams.asked <= 5
    with pytest.raises(RequestError, match="1 stream whose path does not begin with demo/: zoo"):
        await registry.check_reach("demo", streams, ("a/", "demo"))
    await registry.check_reach("demo", Names(own))
    with pytest.raises(RequestError, match=f"{CUT_OFF_COUNTED_MAX:,} or more"):
        await registry.check_reach("demo", Names([f"x/{number}" for number in range(CUT_OFF_COUNTED_MAX + 1)]))
    await registry.create("first", SECRET)
    await registry.check_reach("demo", streams)  # closed already: a second project changes nothing


async def test_a_name_that_no_project_can_have_is_refused_before_anything_is_counted() -> None:
    """The message is about the name."""
    streams = Names(["a"])
    with pytest.raises(RequestError, match="lower-case"):
        await registry_of(MemoryProjects()).check_reach("Demo", streams)
    assert streams.asked == 0
