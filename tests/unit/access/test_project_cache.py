"""The project cache: how long a project is cached, and which lookups are not."""

import asyncio

import pytest

from fluvial.access.project_cache import ABSENT_MAX, ProjectCache
from fluvial.model.errors import StoreUnavailable
from fluvial.model.limits import PROJECT_CACHE_S
from fluvial.model.project import Project, ProjectName, next_version
from fluvial.storage.memory_projects import MemoryProjects
from tests.support.access import project
from tests.support.clocks import FixedClock


class WatchedProjects(MemoryProjects):
    """Counts lookups, and fails them while `fails` is set."""

    lookup_count = 0
    fails = False

    async def get(self, name: ProjectName) -> Project | None:
        """See Projects.get."""
        self.lookup_count += 1
        await asyncio.sleep(0)
        if self.fails:
            raise StoreUnavailable
        return await super().get(name)

    async def has_had_any(self) -> bool:
        """See Projects.has_had_any."""
        self.lookup_count += 1
        return await super().has_had_any()


async def test_project_is_cached_for_its_time_and_then_looked_up_again() -> None:
    """Concurrent lookups share one; an absent project is cached, too."""
    still, projects = FixedClock(), WatchedProjects()
    project_cache = ProjectCache(projects, still.clock(), closed=True)
    await projects.put(project())
    found = await asyncio.gather(*(project_cache.find("demo") for _ in range(50)))
    assert (found, projects.lookup_count) == ([project()] * 50, 1)
    await asyncio.gather(*(project_cache.find("none") for _ in range(50)))
    assert projects.lookup_count == 2
    await projects.put(next_version(project(), is_public=True))
    await projects.put(project("none"))
    still.time.advance(PROJECT_CACHE_S * 1_000)
    assert await project_cache.find("demo") == next_version(project(), is_public=True)
    assert await project_cache.find("none") == project("none")


async def test_invalidated_project_is_looked_up_again() -> None:
    """Also whether there is a project at all."""
    still, projects = FixedClock(), WatchedProjects()
    project_cache = ProjectCache(projects, still.clock(), closed=False)
    assert await project_cache.is_open()
    assert await project_cache.find("demo") is None
    await projects.put(project())
    assert await project_cache.is_open()
    project_cache.invalidate("demo")
    assert not await project_cache.is_open()
    assert await project_cache.find("demo") == project()


async def test_open_server_closes_within_a_second_and_stays_closed() -> None:
    """The store is asked at most once a second, and not at all after the server has closed."""
    still, projects = FixedClock(), WatchedProjects()
    project_cache = ProjectCache(projects, still.clock(), closed=False)
    for _ in range(100):
        assert await project_cache.is_open()
    assert projects.lookup_count == 1
    await projects.put(project())
    still.time.advance(1_000)
    assert not await project_cache.is_open()
    await projects.remove(project())
    still.time.advance(1_000_000)
    assert not await project_cache.is_open()
    assert projects.lookup_count == 2
    assert not await ProjectCache(MemoryProjects(), still.clock(), closed=True).is_open()


class SlowProjects(MemoryProjects):
    """Answers whether there is a project when the test sets an event, as it was when the store was asked."""

    def __init__(self) -> None:
        """`answers` has an event for each lookup."""
        super().__init__()
        self.answers: list[asyncio.Event] = []

    async def has_had_any(self) -> bool:
        """See Projects.has_had_any."""
        found, answer = await super().has_had_any(), asyncio.Event()
        self.answers.append(answer)
        await answer.wait()
        return found


async def test_late_answer_does_not_open_a_closed_server() -> None:
    """The lookup began before the first project was created, and its answer comes after that of a later one."""
    projects = SlowProjects()
    project_cache = ProjectCache(projects, FixedClock().clock(), closed=False)
    early = asyncio.ensure_future(project_cache.is_open())
    await asyncio.sleep(0)
    await projects.put(project())
    late = asyncio.ensure_future(project_cache.is_open())
    await asyncio.sleep(0)
    projects.answers[1].set()
    assert not await late
    projects.answers[0].set()
    assert not await early
    assert not await project_cache.is_open()
    assert not project_cache.is_known_to_be_open()


async def test_answer_from_before_an_invalidation_is_not_cached_as_open() -> None:
    """This process has created the first project while the lookup was in progress."""
    projects = SlowProjects()
    project_cache = ProjectCache(projects, FixedClock().clock(), closed=False)
    early = asyncio.ensure_future(project_cache.is_open())
    await asyncio.sleep(0)
    await projects.put(project())
    project_cache.invalidate("demo")
    projects.answers[0].set()
    await early
    assert not project_cache.is_known_to_be_open()


async def test_absent_and_impossible_names_evict_no_project() -> None:
    """They have a cache of their own, or are not looked up at all."""
    projects = WatchedProjects()
    project_cache = ProjectCache(projects, FixedClock().clock(), closed=True)
    await projects.put(project())
    await project_cache.find("demo")
    for number in range(ABSENT_MAX + 100):
        await project_cache.find(f"made-up-{number}")
    assert len(project_cache._absent) == ABSENT_MAX
    lookup_count = projects.lookup_count
    for name in ("", "Demo", "a" * 65, "démo", "%64emo", "a b", "-a", "demo\n", "*"):
        assert await project_cache.find(name) is None
    await project_cache.find("demo")
    assert projects.lookup_count == lookup_count


async def test_project_lookup_fails_when_the_store_is_unavailable() -> None:
    """The error is raised for all concurrent lookups, and the next one asks again."""
    projects = WatchedProjects()
    project_cache = ProjectCache(projects, FixedClock().clock(), closed=True)
    await projects.put(project())
    projects.fails = True
    answers = await asyncio.gather(*(project_cache.find("demo") for _ in range(3)), return_exceptions=True)
    assert all(isinstance(answer, StoreUnavailable) for answer in answers)
    projects.fails = False
    assert await project_cache.find("demo") == project()


async def test_cancelled_lookup_still_answers_other_requests() -> None:
    """One of two requests that wait for it is cancelled."""
    projects = WatchedProjects()
    project_cache = ProjectCache(projects, FixedClock().clock(), closed=True)
    await projects.put(project())
    first, second = asyncio.ensure_future(project_cache.find("demo")), asyncio.ensure_future(project_cache.find("demo"))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == project()
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_lookup_from_before_an_invalidation_is_not_cached() -> None:
    """It was in progress when this process changed the project."""
    projects = WatchedProjects()
    project_cache = ProjectCache(projects, FixedClock().clock(), closed=True)
    await projects.put(project())
    early = asyncio.ensure_future(project_cache.find("demo"))
    await asyncio.sleep(0)
    await projects.put(next_version(project(), is_public=True))
    project_cache.invalidate("demo")
    late = asyncio.ensure_future(project_cache.find("demo"))
    await asyncio.gather(early, late)
    assert await project_cache.find("demo") == next_version(project(), is_public=True)


async def test_cache_is_stale_after_the_clock_is_set_back() -> None:
    """Neither a project nor the openness of the server is used from the cache."""
    still, projects = FixedClock(), WatchedProjects()
    project_cache = ProjectCache(projects, still.clock(), closed=False)
    assert await project_cache.is_open()
    await projects.put(project())
    still.time.advance(-3_600_000)
    assert not project_cache.is_known_to_be_open()
    assert not await project_cache.is_open()
    await project_cache.find("demo")
    await projects.put(next_version(project(), is_public=True))
    still.time.advance(-3_600_000)
    assert project_cache.cached("demo") is None
    assert await project_cache.find("demo") == next_version(project(), is_public=True)


async def test_project_that_is_ending_is_not_found() -> None:
    """No request is authorized while a project is checked for streams before it is deleted."""
    projects = WatchedProjects()
    project_cache = ProjectCache(projects, FixedClock().clock(), closed=True)
    await projects.put(project())
    await projects.put(next_version(project(), is_ending=True))
    assert await project_cache.find("demo") is None
