"""The contract of project stores, for every store."""

import asyncio

from msgspec.structs import replace

from fluvial.model.names import StreamName
from fluvial.model.project import ProjectLimits, next_version
from fluvial.storage.projects import Projects
from tests.support.access import OLD_SECRET, SECRET, project
from tests.support.commands import create_commit
from tests.support.rigs import MemoryRig, Rig, also_on_moto

NAME = project().name


def projects_of(rig: Rig) -> Projects:
    """The projects of the rig's store."""
    return rig.store.projects


@also_on_moto
async def test_project_is_stored_with_all_fields(rig: Rig) -> None:
    """Also over a restart, if the store has one."""
    full = project(
        secrets=(SECRET, OLD_SECRET),
        origins=("https://a.example",),
        is_public=True,
        limits=ProjectLimits(requests_per_second=5, bytes_per_day=10**12),
    )
    assert await projects_of(rig).get(NAME) is None
    assert await projects_of(rig).put(full)
    if not isinstance(rig, MemoryRig):
        await rig.reopen()
    assert await projects_of(rig).get(NAME) == full


async def test_only_one_of_two_changes_of_a_version_is_stored(rig: Rig) -> None:
    """And only one of two new projects of the same name."""
    projects, first = projects_of(rig), project()
    assert await projects.put(first)
    assert not await projects.put(replace(first, is_public=True))
    made = await asyncio.gather(
        projects.put(next_version(first, is_public=True)), projects.put(next_version(first, origins=("*",)))
    )
    assert sorted(made) == [False, True]
    assert not await projects.put(next_version(next_version(next_version(first))))  # version 3 was never stored
    kept = await projects.get(NAME)
    assert kept is not None
    assert kept.version == 2


async def test_unknown_project_cannot_be_changed_or_deleted(rig: Rig) -> None:
    """The store still counts as one that never had a project."""
    assert not await projects_of(rig).put(next_version(project()))
    assert not await projects_of(rig).remove(project())
    assert not await projects_of(rig).has_had_any()


async def test_store_stays_closed_after_its_only_project_is_deleted(rig: Rig) -> None:
    """The deleted project's name is free."""
    projects, first = projects_of(rig), project()
    assert not await projects.has_had_any()
    await projects.put(first)
    assert await projects.has_had_any()
    assert not await projects.remove(next_version(first))
    assert await projects.remove(first)
    assert not await projects.remove(first)
    assert await projects.get(NAME) is None
    assert await projects.list_after("", 10) == []
    assert await projects.has_had_any()
    assert not await projects.put(next_version(first))
    assert await projects.put(project(is_public=True))
    kept = await projects.get(NAME)
    assert kept is not None
    assert kept.is_public


async def test_projects_are_listed_by_name_in_pages(rig: Rig) -> None:
    """Deleted projects in between are skipped."""
    projects = projects_of(rig)
    for name in ("c", "a", "e", "b", "d"):
        assert await projects.put(project(name))
    assert await projects.remove(project("b"))
    assert [one.name for one in await projects.list_after("", 2)] == ["a", "c"]
    assert [one.name for one in await projects.list_after("c", 2)] == ["d", "e"]
    assert await projects.list_after("e", 2) == []


async def test_daily_usage_is_summed_over_all_processes(rig: Rig) -> None:
    """The next day starts at zero."""
    projects = projects_of(rig)
    sums = await asyncio.gather(*(projects.add_usage(NAME, 20_000, 7) for _ in range(5)))
    assert max(sums) == 35
    assert await projects.add_usage(NAME, 20_000, 0) == 35
    assert await projects.add_usage(NAME, 20_001, 4) == 4


async def test_former_incarnation_of_a_project_cannot_change_or_delete_the_next(rig: Rig) -> None:
    """Although both have the same version numbers."""
    projects, former = projects_of(rig), project()
    await projects.put(former)
    await projects.remove(former)
    assert await projects.put(project(incarnation=2))
    assert not await projects.put(next_version(former, is_public=True))
    assert not await projects.remove(former)
    assert await projects.get(NAME) == project(incarnation=2)


async def test_streams_can_be_listed_by_any_text(rig: Rig) -> None:
    """A client may send any prefix, and any last name."""
    await rig.store.apply(StreamName("m"), create_commit())
    for text in ("\u00e9" * 1_000, "m" * 5_000, "\U0001f600", "\x00", "%", "m\u00e9", "z" * 2_000):
        assert await rig.store.names(text, "", 10) == []
        assert await rig.store.names("", text, 10) == (["m"] if text < "m" else [])
