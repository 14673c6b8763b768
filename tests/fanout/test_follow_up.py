"""A server that is alone with its table follows up what killed processes have left: nobody else reads its changes."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import boto3
import pytest

from fluvial.app import open_application
from fluvial.clock import Clock
from fluvial.fanout.delivery_worker import DeliveryWorker
from fluvial.fanout.follow_up import LOOK_INTERVAL_S, FollowUp, pause_after
from fluvial.fanout.replication import Source
from fluvial.model.errors import StoreUnavailable
from fluvial.model.head import Head
from fluvial.model.names import StreamName
from fluvial.settings import settings_from
from fluvial.storage.dynamodb.store import DynamoDbStore
from fluvial.storage.memory import MemoryStore
from tests.support.commands import NAME, append_commit, create_commit
from tests.support.estuaries import FanOutRig, own_process
from tests.support.logs import record_log_lines
from tests.support.rigs import REGION, DynamoDbRig, eventually, moto_rig


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[DynamoDbRig]:
    """A table and a bucket in moto."""
    async with moto_rig(tmp_path) as opened:
        yield opened


async def test_look_delivers_what_a_killed_process_has_left(rig: DynamoDbRig) -> None:
    """Of every page of streams those that are behind, and no others; a second look finds nothing."""
    async with own_process(rig) as killed:
        for number in range(7):
            source = StreamName(f"p/source-{number}")
            await killed.make_source(source)
            await killed.follow(f"p/follower-{number}", source)
            await (killed.publish if number == 3 else killed.append)(b"left behind", source)
        await killed.make_source(StreamName("p/without-followers"))
        await killed.append(b"nobody's", StreamName("p/without-followers"))
    server = FanOutRig(rig)
    worker = DeliveryWorker(server.store, server.deliveries, None)
    worker.start()
    follow_up = FollowUp(rig.store, worker, streams_per_page=3)
    assert await follow_up.look() == 6
    await eventually(lambda: not worker._remembered, rig.let_pass)
    await worker.stop()
    assert {await server.read(f"p/follower-{number}") for number in range(7)} == {b"left behind"}
    assert await follow_up.look() == 0


async def test_look_begins_the_rotation_of_a_closed_stream(rig: DynamoDbRig) -> None:
    """No append comes any more that would begin it."""
    async with own_process(rig) as killed:
        await killed.store.apply(NAME, create_commit())
        await killed.store.apply(NAME, append_commit(b"the end", closes=True))
    s3 = boto3.client("s3", region_name=REGION)

    def is_rotated() -> bool:
        return bool(s3.list_objects_v2(Bucket=rig.config.bucket, Prefix="segments/").get("Contents"))

    assert not is_rotated()
    worker = DeliveryWorker(rig.store, FanOutRig(rig).deliveries, None)
    assert await FollowUp(rig.store, worker).look() == 0
    await eventually(is_rotated, rig.let_pass)


class UnreadableStore(MemoryStore):
    """A store that is unreachable once, and then fails in an unforeseen way."""

    def __init__(self) -> None:
        """It has not failed yet."""
        super().__init__()
        self.errors: list[Exception] = [StoreUnavailable(), RuntimeError("unforeseen")]

    async def resume_upkeep(self, names: Sequence[StreamName]) -> list[Head | None]:
        """Fail."""
        if self.errors:
            raise self.errors.pop(0)
        return await self.heads(names)


async def test_look_that_fails_is_logged_and_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the error is, the next look comes soon."""
    store, lines, pauses = UnreadableStore(), record_log_lines(monkeypatch), list[float]()
    await store.apply(NAME, create_commit())

    class Remembering:
        async def put(self, source: Source) -> None:
            raise AssertionError(source)

        async def mark_delivered(self, source: Source) -> None:
            raise AssertionError(source)

    async def pause(pause_s: float) -> None:
        pauses.append(pause_s)
        if len(pauses) == 3:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await FollowUp(store, Remembering(), pause=pause).run()
    assert pauses[:2] == [5.0, 10.0]
    assert pauses[2] >= LOOK_INTERVAL_S
    assert sum("follow_up_failed" in line for line in lines) == 2


def test_looks_take_a_hundredth_of_the_time_at_most() -> None:
    """A small table is looked at every five minutes, one that takes a minute every hundred minutes."""
    assert pause_after(0.5) == LOOK_INTERVAL_S
    assert [pause_after(0.01, failures) for failures in (1, 2, 3, 99)] == [5.0, 10.0, 20.0, LOOK_INTERVAL_S]
    assert pause_after(60, 1) == pause_after(60)
    assert 60 / (60 + pause_after(60)) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("options", "by", "tasks"),
    [
        ({}, "this server", {"deliveries", "delivery marks", "follow-up"}),
        ({"change_feed": "true"}, "the functions of the change feed", set()),
        ({"read_only": "true"}, "the processes that write", set()),
    ],
)
async def test_server_says_who_follows_up_its_table(
    rig: DynamoDbRig, caplog: pytest.LogCaptureFixture, options: dict[str, str], by: str, tasks: set[str]
) -> None:
    """Beside functions, or for reads alone, it runs no deliveries and no rotations of its own."""
    caplog.set_level(logging.INFO, "fluvial.background")
    place = {"store": "dynamodb", "table": rig.config.table, "bucket": rig.config.bucket, "region": REGION}
    async with open_application(settings_from({**place, **options}), Clock()) as application:
        assert [one.__dict__["by"] for one in caplog.records if one.msg == "follow_up"] == [by]
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert names & {"deliveries", "delivery marks", "follow-up"} == tasks
        store = application.streams.store
        assert isinstance(store, DynamoDbStore)
        assert store.config.runs_background_tasks is bool(tasks)
    assert "follow-up" not in {task.get_name() for task in asyncio.all_tasks()}
