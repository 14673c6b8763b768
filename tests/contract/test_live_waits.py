"""Live reads on every store: each ends at once when its stream changes, and none holds up the event loop."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from fluvial.access.authorizer import OPEN_ACCESS
from fluvial.access.throttle import Throttle
from fluvial.model.command import ForkPoint
from fluvial.model.commit import Applied, Commit
from fluvial.model.head import Head, Incarnation
from fluvial.model.lifetime import Lifetime, SlidingTtl
from fluvial.model.names import StreamName
from fluvial.model.plan import ForkPosition, plan_fork
from fluvial.operations.open_read import OpenedRead
from fluvial.server.live_reads import LiveLimits, LiveReads
from fluvial.wire.request import parse_read
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

#: The timeout of a read without news, and the time that counts as "at once" on a busy machine.
LONG_S = 60
AT_ONCE_S = 20

Changes = list[tuple[StreamName, Commit]]


def fork_of(head: Head) -> tuple[StreamName, Commit]:
    """The name and the commit of a fork of the whole stream."""
    command = create_command(name=OTHER, content_type=None, fork=ForkPoint(NAME, None, 0))
    return OTHER, plan_fork(command, ForkPosition(head, head.tail, head.tail), Incarnation(2), START_MS)


CHANGES: dict[str, Callable[[Head], Changes]] = {
    "appended to": lambda _: [(NAME, append_commit(b"news"))],
    "closed": lambda _: [(NAME, close_commit())],
    "deleted": lambda _: [(NAME, delete_commit())],
    "deleted while it has a fork": lambda head: [fork_of(head), (NAME, delete_commit())],
    "deleted and created again": lambda _: [(NAME, delete_commit()), (NAME, create_commit(9, body=b"twelve bytes"))],
}


async def stay_connected() -> Any:  # noqa: ANN401  ASGI's own type
    """An ASGI `receive` of a client that sends nothing and does not disconnect."""
    return await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("ttl", [None, SlidingTtl(8)], ids=["no ttl", "sliding ttl"])
@pytest.mark.parametrize("change", CHANGES)
async def test_long_poll_ends_at_once_when_its_stream_is(rig: Rig, change: str, ttl: Lifetime) -> None:
    """Also when the tail stays the same, and when the read itself renews the stream."""
    created = await rig.store.apply(NAME, create_commit(body=b"twelve bytes", lifetime=ttl))
    assert isinstance(created, Applied)
    assert created.head is not None
    clock = rig.still.clock()
    reads = LiveReads(rig.store, clock, LiveLimits(LONG_S, LONG_S, 10), Throttle(rig.store.projects, clock))
    query = parse_read(b"offset=now&live=long-poll")
    read = OpenedRead(NAME, created.head, created.head.tail, query, OPEN_ACCESS)
    reading = asyncio.create_task(reads.long_poll(stay_connected, read))
    while reads.count == 0:  # noqa: ASYNC110  a turn of the loop at a time
        await asyncio.sleep(0)
    ends_at = asyncio.get_running_loop().time() + AT_ONCE_S
    for name, commit in CHANGES[change](created.head):
        assert isinstance(await rig.store.apply(name, commit), Applied)
    news = await asyncio.wait_for(reading, AT_ONCE_S)
    assert news != created.head
    assert asyncio.get_running_loop().time() < ends_at, "the event loop was held up, and every other request with it"
