"""The contract of what keeps projects, for every store."""

import asyncio

from msgspec.structs import replace

from fluvial.model.names import StreamName
from fluvial.model.project import ProjectLimits, changed
from fluvial.storage.projects import Projects
from tests.support.access import OLD_SECRET, SECRET, project
from tests.support.commands import create_commit
from tests.support.rigs import MemoryRig, Rig, also_on_moto

NAME = project().name


def projects_of(rig: Rig) -> Projects:
    """What the rig's store keeps."""
    return rig.store.projects


@also_on_moto
async def test_a_project_is_kept_with_all_that_it_has(rig: Rig) -> None:
    """Also over a restart, where there is one."""
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


async def test_of_two_changes_of_one_version_one_is_refused(rig: Rig) -> None:
    """And of two projects of one name."""
    projects, first = projects_of(rig), project()
    assert await projects.put(first)
    assert not await projects.put(replace(first, is_public=True))
    made = await asyncio.gather(
        projects.put(changed(first, is_public=True)), projects.put(changed(first, origins=("*",)))
    )
    assert sorted(made) == [False, True]
    assert not await projects.put(changed(changed(changed(first))))  # of a version that never was
    kept = await projects.get(NAME)
    assert kept is not None
    assert kept.version == 2


async def test_a_project_that_was_never_made_cannot_be_changed(rig: Rig) -> None:
    """Nor ended."""
    assert not await projects_of(rig).put(changed(project()))
    assert not await projects_of(rig).remove(project())
    assert not await projects_of(rig).any_ever()


async def test_what_has_ended_is_gone_but_not_forgotten(rig: Rig) -> None:
    """A server that had a project is never open to everybody again; its name is free."""
    projects, first = projects_of(rig), project()
    assert not await projects.any_ever()
    await projects.put(first)
    assert await projects.any_ever()
    assert not await projects.remove(changed(first))
    assert await projects.remove(first)
    assert not await projects.remove(first)
    assert await projects.get(NAME) is None
    assert await projects.listed("", 10) == []
    assert await projects.any_ever()
    assert not await projects.put(changed(first))
    assert await projects.put(project(is_public=True))
    kept = await projects.get(NAME)
    assert kept is not None
    assert kept.is_public


async def test_projects_are_listed_in_order_a_page_at_a_time(rig: Rig) -> None:
    """However many have ended in between."""
    projects = projects_of(rig)
    for name in ("c", "a", "e", "b", "d"):
        assert await projects.put(project(name))
    assert await projects.remove(project("b"))
    assert [one.name for one in await projects.listed("", 2)] == ["a", "c"]
    assert [one.name for one in await projects.listed("c", 2)] == ["d", "e"]
    assert await projects.listed("e", 2) == []


async def test_a_days_bytes_are_summed_over_all_processes(rig: Rig) -> None:
    """And the next day begins at none."""
    projects = projects_of(rig)
    sums = await asyncio.gather(*(projects.add_usage(NAME, 20_000, 7) for _ in range(5)))
    assert max(sums) == 35
    assert await projects.add_usage(NAME, 20_000, 0) == 35
    assert await projects.add_usage(NAME, 20_001, 4) == 4


async def test_nothing_of_a_former_life_changes_or_ends_the_next_one(rig: Rig) -> None:
    """Although its versions begin anew."""
    projects, former = projects_of(rig), project()
    await projects.put(former)
    await projects.remove(former)
    assert await projects.put(project(life=2))
    assert not await projects.put(changed(former, is_public=True))
    assert not await projects.remove(former)
    assert await projects.get(NAME) == project(life=2)


async def test_no_text_is_too_long_or_too_odd_to_list_by(rig: Rig) -> None:
    """Whatever a client sends as a prefix or as the last name that it has."""
    await rig.store.apply(StreamName("m"), create_commit())
    for text in ("\u00e9" * 1_000, "m" * 5_000, "\U0001f600", "\x00", "%", "m\u00e9", "z" * 2_000):
        assert await rig.store.names(text, "", 10) == []
        assert await rig.store.names("", text, 10) == (["m"] if text < "m" else [])
