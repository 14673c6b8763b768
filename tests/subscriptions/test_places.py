"""What depends on where a subscription is: its owner, the server's URL, and the wake streams beside it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fluvial.model.names import StreamName
from fluvial.subscriptions.service import Place
from tests.support.rigs import memory_rig
from tests.support.subscriptions import path, pull_wake, webhook
from tests.support.wakes import DONE, PLACE, WakeProcess, answering


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[WakeProcess]:
    """A process with a store in memory."""
    async with memory_rig(tmp_path / "data") as rig:
        yield WakeProcess(rig.store, rig.still.clock(), answering(DONE))


async def test_list_goes_past_subscriptions_of_a_former_project(process: WakeProcess) -> None:
    """A page is full as long as there are more of the owner's own."""
    former, present = Place("demo/", 1), Place("demo/", 2)
    for number in range(8):
        await process.create(webhook(), f"sub-{number}", former if number < 5 else present)
    listed = await process.service.list_after(present, "", 2)
    assert [one.id for one in listed] == ["sub-5", "sub-6"]
    assert [one.id for one in await process.service.list_after(present, "sub-6", 2)] == ["sub-7"]
    assert await process.service.list_after(present, "sub-7", 2) == []


async def test_confirmation_moves_the_callback(process: WakeProcess) -> None:
    """To the URL at which the server is known now; a request that does not know it changes nothing."""
    await process.create(webhook())
    await process.create(webhook(), place=Place("", 0, "https://new.example"))
    await process.create(webhook(), place=Place("", 0, ""))
    await process.append("events/a")
    await process.run()
    [body] = process.receivers.bodies
    assert body["callback_url"].startswith("https://new.example/v1/stream/__ds/")


async def test_patterns_match_no_wake_stream(process: WakeProcess) -> None:
    """Two subscriptions to everything do not wake each other; `**` of the second was there before its wake stream."""
    for stream in ("wake/1", "wake/2"):
        await process.append(stream)
    await process.create(pull_wake(pattern="**", wake_stream=path("wake/1")), "one")
    await process.create(pull_wake(pattern="**", wake_stream=path("wake/2")), "two")
    await process.append("events/a")
    await process.run()
    for name in ("one", "two"):
        shown = await process.shown(name)
        assert shown.generation == 1
        assert shown.wake is not None
        assert list(shown.wake.snapshot) == ["events/a"]


async def test_explicit_link_follows_another_wake_stream(process: WakeProcess) -> None:
    """And a wake stream is one only as long as its subscription is there."""
    for stream in ("wake/1", "wake/2"):
        await process.append(stream)
    await process.create(pull_wake(pattern="events/*", wake_stream=path("wake/1")), "one")
    await process.create(pull_wake(pattern=None, streams=(path("wake/1"),), wake_stream=path("wake/2")), "two")
    await process.append("events/a")
    await process.run()
    assert (await process.shown("two")).generation == 1
    await process.service.delete(PLACE, "one")
    assert not process.ledger.catalog.is_wake_stream(StreamName("wake/1"))
