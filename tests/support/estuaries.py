"""Fan-out into estuaries (fan-in streams) over a store under test."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from fluvial.clock import Clock
from fluvial.fanout.change_feed_backlog import ChangeFeedBacklog
from fluvial.fanout.deliveries import Deliveries
from fluvial.fanout.estuaries import Estuaries, FollowedSource, WantedEstuary
from fluvial.fanout.limits import FAN_OUT_LIMITS, FanOutLimits
from fluvial.fanout.publisher import Backlog, FanOutReport, Publisher
from fluvial.fanout.replication import Source
from fluvial.model.append_result import Rejection
from fluvial.model.commit import Applied
from fluvial.model.errors import ErrorCode
from fluvial.model.head import EstuaryMode, Head
from fluvial.model.names import StreamName
from fluvial.storage.contract import Store
from fluvial.storage.dynamodb.store import DynamoDbStore
from tests.support.commands import append_commit, create_commit
from tests.support.rigs import DynamoDbRig, Rig

SOURCE = StreamName("p/source")


@dataclass
class FanOutRig:
    """A store, and a process that publishes and subscribes over it."""

    rig: Rig
    backlog: Backlog | None = None
    limits: FanOutLimits = FAN_OUT_LIMITS

    @property
    def store(self) -> Store:
        """The store that is open now."""
        return self.rig.store

    @property
    def clock(self) -> Clock:
        """A clock that the test sets, and ids that differ from those of other processes."""
        return self.rig.still.own_clock()

    @property
    def deliveries(self) -> Deliveries:
        """A new process's deliveries."""
        return Deliveries(self.store, self.clock, self.limits)

    @property
    def publisher(self) -> Publisher:
        """A new process's publisher, which shares only the store with the one before."""
        return Publisher(self.store, self.deliveries, self.backlog or ChangeFeedBacklog(self.store))

    @property
    def estuaries(self) -> Estuaries:
        """A new process's estuaries."""
        return Estuaries(self.store, self.clock, self.deliveries)

    async def make_source(self, name: StreamName = SOURCE, content_type: str = "text/plain") -> Head:
        """Create an empty stream."""
        commit = create_commit(self.clock.new_incarnation(), content_type=content_type, name=name)
        outcome = await self.store.apply(name, commit)
        assert isinstance(outcome, Applied)
        assert outcome.head is not None
        return outcome.head

    async def follow(
        self, estuary: str, name: StreamName = SOURCE, mode: EstuaryMode | None = None, **wanted: int
    ) -> FollowedSource:
        """Let an estuary follow a stream, which must succeed."""
        followed = await self.estuaries.follow(name, WantedEstuary(StreamName(estuary), mode, None, **wanted))
        assert isinstance(followed, FollowedSource), followed
        return followed

    async def follow_with(self, *estuaries: str) -> list[FollowedSource]:
        """Let several estuaries follow the source."""
        return [await self.follow(name) for name in estuaries]

    async def append(self, data: bytes, name: StreamName = SOURCE, content_type: str = "text/plain") -> Head:
        """Append without delivering."""
        outcome = await self.store.apply(
            name, append_commit(data, now_ms=self.rig.still.time.now_ms, name=name, content_type=content_type)
        )
        assert isinstance(outcome, Applied), outcome
        assert outcome.head is not None
        return outcome.head

    async def publish(self, data: bytes, name: StreamName = SOURCE, content_type: str = "text/plain") -> FanOutReport:
        """Append and deliver."""
        head = await self.append(data, name, content_type)
        report = await self.publisher.publish(Source(name, head), head.tail - len(data))
        assert report is not None
        return report

    async def read(self, name: str) -> bytes:
        """All bytes of a stream."""
        head = await self.store.head(StreamName(name))
        assert head is not None, f"there is no {name}"
        data = b""
        while len(data) < head.tail:
            data += (await self.store.read(StreamName(name), head, len(data), 1_000_000)).data
        return data


def code_of(rejection: object) -> ErrorCode:
    """The code of a rejection."""
    assert isinstance(rejection, Rejection), rejection
    return rejection.code


@asynccontextmanager
async def own_process(rig: DynamoDbRig) -> AsyncIterator[FanOutRig]:
    """Another process on the rig's table and bucket, which has its own loop and runs no background tasks."""
    store = DynamoDbStore(replace(rig.config, runs_background_tasks=False), rig.still.own_clock())
    try:
        yield FanOutRig(replace(rig, store=store))
    finally:
        await store.close()
