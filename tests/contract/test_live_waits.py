"""Live readers over every store: told at once of whatever differs from what they have seen, and holding up nobody."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from fluvial.access.authorizer import OPEN
from fluvial.access.throttle import Throttle
from fluvial.model.command import ForkPoint
from fluvial.model.commit import Applied, Commit
from fluvial.model.head import Head, Incarnation
from fluvial.model.lifetime import Lifetime, SlidingTtl
from fluvial.model.names import StreamName
from fluvial.model.plan import ForkPosition, plan_fork
from fluvial.server.live_reads import LiveLimits, LiveReadRequest, LiveReads
from tests.support.clocks import START_MS
from tests.support.commands import (
    NAME,
    OTHER,
    append_commit,
    close_commit,
    create_command,
    create_commit,
    delete_commit,
)
from tests.support.rigs import Rig

#: How long a read waits that hears of nothing, and what is at once on a busy machine.
LONG_S = 60
AT_ONCE_S = 20

Changes = list[tuple[StreamName, Commit]]


def forked(head: Head) -> tuple[StreamName, Commit]:
    """A fork of the whole stream."""
    command = create_command(name=OTHER, content_type=None, fork=ForkPoint(NAME, None, 0))
    return OTHER, plan_fork(command, ForkPosition(head, head.tail, head.tail), Incarnation(2), START_MS)


CHANGES: dict[str, Callable[[Head], Changes]] = {
    "appended to": lambda _: [(NAME, append_commit(b"news"))],
    "closed": lambda _: [(NAME, close_commit())],
    "deleted": lambda _: [(NAME, delete_commit())],
    "deleted while it has a fork": lambda head: [forked(head), (NAME, delete_commit())],
    "deleted and made anew": lambda _: [(NAME, delete_commit()), (NAME, create_commit(9, body=b"twelve bytes"))],
}


async def stay() -> Any:  # noqa: ANN401  ASGI's own
    """The client says nothing and does not go."""
    return await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("ttl", [None, SlidingTtl(8)], ids=["for ever", "while it is used"])
@pytest.mark.parametrize("change", CHANGES)
async def test_a_long_poll_is_told_at_once_of_a_stream_that_is(rig: Rig, change: str, ttl: Lifetime) -> None:
    """Also of one whose tail stays where it is, and of one that is renewed while it is waited for."""
    made = await rig.store.apply(NAME, create_commit(body=b"twelve bytes", lifetime=ttl))
    assert isinstance(made, Applied)
    assert made.head is not None
    clock = rig.still.clock()
    reads = LiveReads(rig.store, clock, LiveLimits(LONG_S, LONG_S, 10), Throttle(rig.store.projects, clock))
    subscription = LiveReadRequest(NAME, made.head, made.head.tail, None, OPEN)
    reading = asyncio.create_task(reads.long_poll(stay, subscription))
    while reads.count == 0:  # noqa: ASYNC110  a turn of the loop at a time
        await asyncio.sleep(0)
    ends_at = asyncio.get_running_loop().time() + AT_ONCE_S
    for name, commit in CHANGES[change](made.head):
        assert isinstance(await rig.store.apply(name, commit), Applied)
    news = await asyncio.wait_for(reading, AT_ONCE_S)
    assert news != made.head
    assert asyncio.get_running_loop().time() < ends_at, "the loop was held up, and with it everybody else"
