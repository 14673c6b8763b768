"""Requests with many streams, on stores with many streams: no other request waits for them."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.limits import LINKS_PER_SUBSCRIPTION_MAX
from fluvial.model.names import StreamName
from fluvial.model.subscriptions import configuration as configurations
from fluvial.wire import subscriptions as wire
from tests.support.rigs import memory_rig
from tests.support.subscriptions import webhook
from tests.support.wakes import TAKEN, WakeProcess, answering


async def test_other_tasks_run_while_streams_are_matched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if the store lists its names without a pause."""
    async with memory_rig(tmp_path / "data") as rig:
        process = WakeProcess(rig.store, rig.still.clock(), answering(TAKEN))
        names = [StreamName(f"other/{number:05}") for number in range(5_000)]

        async def list_names(_prefix: str, after: str, count_max: int) -> list[StreamName]:
            return [name for name in names if name > after][:count_max]

        monkeypatch.setattr(process.store, "names", list_names)
        turns, creation = 0, asyncio.ensure_future(process.create(webhook(pattern="**/events")))
        while not creation.done():
            turns += 1
            await asyncio.sleep(0)
        assert (await creation).links == {}
        assert turns >= len(names) / 200


@pytest.mark.parametrize("parse", [wire.parse_configuration, wire.parse_streams])
def test_too_many_streams_are_refused_before_they_are_parsed(
    monkeypatch: pytest.MonkeyPatch, parse: Callable[[bytes], object]
) -> None:
    """Their count is looked at first."""

    def fail(_path: str) -> None:
        raise AssertionError

    for module in (configurations, wire):
        monkeypatch.setattr(module, "parse_path", fail)
    streams = [f"a/{number}" for number in range(LINKS_PER_SUBSCRIPTION_MAX + 1)]
    body = {"type": "webhook", "webhook": {"url": "https://worker.example/"}, "streams": streams}
    with pytest.raises(RequestError) as raised:
        parse(json.dumps(body).encode())
    assert raised.value.code is ErrorCode.INVALID_SUBSCRIPTION_REQUEST
