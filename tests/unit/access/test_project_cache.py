"""The directory: what a process knows of projects, and for how long."""

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
    """Counts how often it is asked, and fails when it is told to."""

    asked = 0
    fails = False

    async def get(self, name: ProjectName) -> Project | None:
        """See Projects.get."""
        self.asked += 1
        await asyncio.sleep(0)
        if self.fails:
            raise StoreUnavailable
        return await super().get(name)

    async def has_had_any(self) -> bool:
        """See Projects.has_had_any."""
        self.asked += 1
        return await super().has_had_any()


async def test_a_project_is_asked_for_once_in_a_while_and_a_change_is_seen_in_time() -> None:
    """However many ask at the same time; so is one that is not there."""
    still, projects = FixedClock(), WatchedProjects()
    project_cache = ProjectCache(projects, still.clock(), closed=True)
    await projects.put(project())
    found = await asyncio.gather(*(project_cache.find("demo") for _ in range(50)))
    assert (found, projects.asked) == ([project()] * 50, 1)
    await asyncio.gather(*(project_cache.find("none") for _ in range(50)))
    assert projects.asked == 2
    await projects.put(next_version(project(), is_public=True))
    await projects.put(project("none"))
    still.time.advance(PROJECT_CACHE_S * 1_000)
    assert await project_cache.find("demo") == next_version(project(), is_public=True)
    assert await project_cache.find("none") == project("none")


async def test_what_this_process_changes_it_sees_at_once() -> None:
    """Also that there is a project at all."""
    still, projects = FixedClock(), WatchedProjects()
    project_cache = ProjectCache(projects, still.clock(), closed=False)
    assert await project_cache.is_open()
    assert await project_cache.find("demo") is None
    await projects.put(project())
    assert await project_cache.is_open()
    project_cache.forget("demo")
    assert not await project_cache.is_open()
    assert await project_cache.find("demo") == project()


async def test_a_server_closes_within_a_second_and_for_ever() -> None:
    """It asks no more often than that, and not at all once it is closed."""
    still, projects = FixedClock(), WatchedProjects()
    project_cache = ProjectCache(projects, still.clock(), closed=False)
    for _ in range(100):
        assert await project_cache.is_open()
    assert projects.asked == 1
    await projects.put(project())
    still.time.advance(1_000)
    assert not await project_cache.is_open()
    await projects.remove(project())
    still.time.advance(1_000_000)
    assert not await project_cache.is_open()
    assert projects.asked == 2
    assert not await ProjectCache(MemoryProjects(), still.clock(), closed=True).is_open()


class SlowProjects(MemoryProjects):
    """Each look at whether there is a project is answered when the test says so, with what was true at its start."""

    def __init__(self) -> None:
        """Nobody has asked yet."""
        super().__init__()
        self.answers: list[asyncio.Event] = []

    async def has_had_any(self) -> bool:
        """See Projects.has_had_any."""
        found, answer = await super().has_had_any(), asyncio.Event()
        self.answers.append(answer)
        await answer.wait()
        return found


async def test_an_answer_that_comes_late_opens_no_closed_server() -> None:
    """It was asked for before the first project, and has been overtaken."""
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


async def test_an_answer_from_before_a_change_keeps_no_server_open() -> None:
    """This process has made the first project while it was being asked whether there is one."""
    projects = SlowProjects()
    project_cache = ProjectCache(projects, FixedClock().clock(), closed=False)
    early = asyncio.ensure_future(project_cache.is_open())
    await asyncio.sleep(0)
    await projects.put(project())
    project_cache.forget("demo")
    projects.answers[0].set()
    await early
    assert not project_cache.is_known_to_be_open()


async def test_names_that_are_made_up_push_out_no_project_and_those_that_cannot_be_ask_nobody() -> None:
    """What is remembered is bounded either way."""
    projects = WatchedProjects()
    project_cache = ProjectCache(projects, FixedClock().clock(), closed=True)
    await projects.put(project())
    await project_cache.find("demo")
    for number in range(ABSENT_MAX + 100):
        await project_cache.find(f"made-up-{number}")
    assert len(project_cache._absent) == ABSENT_MAX
    asked = projects.asked
    for name in ("", "Demo", "a" * 65, "démo", "%64emo", "a b", "-a", "demo\n", "*"):
        assert await project_cache.find(name) is None
    await project_cache.find("demo")
    assert projects.asked == asked


async def test_nobody_is_let_in_on_a_guess() -> None:
    """A store that cannot answer is an error for all who asked, and is asked again by the next."""
    projects = WatchedProjects()
    project_cache = ProjectCache(projects, FixedClock().clock(), closed=True)
    await projects.put(project())
    projects.fails = True
    answers = await asyncio.gather(*(project_cache.find("demo") for _ in range(3)), return_exceptions=True)
    assert all(isinstance(answer, StoreUnavailable) for answer in answers)
    projects.fails = False
    assert await project_cache.find("demo") == project()


async def test_who_gives_up_takes_the_answer_from_nobody_else() -> None:
    """One of two who wait is cancelled."""
    projects = WatchedProjects()
    project_cache = ProjectCache(projects, FixedClock().clock(), closed=True)
    await projects.put(project())
    first, second = asyncio.ensure_future(project_cache.find("demo")), asyncio.ensure_future(project_cache.find("demo"))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == project()
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_what_was_asked_before_a_change_is_not_kept_after_it() -> None:
    """A read that is under way when the project is changed here tells the past."""
    projects = WatchedProjects()
    project_cache = ProjectCache(projects, FixedClock().clock(), closed=True)
    await projects.put(project())
    early = asyncio.ensure_future(project_cache.find("demo"))
    await asyncio.sleep(0)
    await projects.put(next_version(project(), is_public=True))
    project_cache.forget("demo")
    late = asyncio.ensure_future(project_cache.find("demo"))
    await asyncio.gather(early, late)
    assert await project_cache.find("demo") == next_version(project(), is_public=True)


async def test_a_clock_that_is_set_back_keeps_nothing_alive() -> None:
    """Neither a project as it was, nor that a server is open."""
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
    assert project_cache.known("demo") is None
    assert await project_cache.find("demo") == next_version(project(), is_public=True)


async def test_a_project_that_is_ending_is_there_no_more() -> None:
    """Nobody is let in while it is seen to that it is empty."""
    projects = WatchedProjects()
    project_cache = ProjectCache(projects, FixedClock().clock(), closed=True)
    await projects.put(project())
    await projects.put(next_version(project(), is_ending=True))
    assert await project_cache.find("demo") is None
