"""Fan-out over a store under test."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from fluvial.core.answer import Refusal
from fluvial.core.commit import Applied
from fluvial.core.errors import ErrorCode
from fluvial.core.head import EstuaryMode, Head
from fluvial.core.names import StreamName
from fluvial.fanout.delivering import Source
from fluvial.fanout.estuaries import Estuaries, Followed, WantedEstuary
from fluvial.fanout.feed import FeedBacklog
from fluvial.fanout.limits import FAN_OUT_LIMITS, FanOutLimits
from fluvial.fanout.publishing import Backlog, FanOutReport, Publisher
from fluvial.stores.contract import Store
from fluvial.stores.dynamodb.store import DynamoDbStore
from fluvial.world import World
from tests.support.commands import append_commit, create_commit
from tests.support.rigs import DynamoDbRig, Rig

SOURCE = StreamName("p/source")


@dataclass
class FanOutRig:
    """A store, and what publishes and subscribes over it."""

    rig: Rig
    backlog: Backlog | None = None
    limits: FanOutLimits = FAN_OUT_LIMITS

    @property
    def store(self) -> Store:
        """The store that is open now."""
        return self.rig.store

    @property
    def world(self) -> World:
        """A world with the test's clock, and ids that nobody else makes."""
        return self.rig.still.own_world()

    @property
    def publisher(self) -> Publisher:
        """A process's own publisher: nothing is shared between two calls but the store."""
        return Publisher(self.store, self.world, self.backlog or FeedBacklog(self.store), self.limits)

    @property
    def estuaries(self) -> Estuaries:
        """A process's own."""
        return Estuaries(self.store, self.world, self.publisher)

    async def make_source(self, name: StreamName = SOURCE, content_type: str = "text/plain") -> Head:
        """An empty stream."""
        commit = create_commit(self.world.new_incarnation(), content_type=content_type, name=name)
        outcome = await self.store.apply(name, commit)
        assert isinstance(outcome, Applied)
        assert outcome.head is not None
        return outcome.head

    async def follow(
        self, estuary: str, name: StreamName = SOURCE, mode: EstuaryMode | None = None, **wanted: int
    ) -> Followed:
        """Follow a stream, which must be possible."""
        followed = await self.estuaries.follow(name, WantedEstuary(StreamName(estuary), mode, None, **wanted))
        assert isinstance(followed, Followed), followed
        return followed

    async def follow_with(self, *estuaries: str) -> list[Followed]:
        """Let several estuaries follow the source."""
        return [await self.follow(name) for name in estuaries]

    async def append(self, data: bytes, name: StreamName = SOURCE, content_type: str = "text/plain") -> Head:
        """Append without delivering."""
        outcome = await self.store.apply(
            name, append_commit(data, now_ms=self.rig.still.clock.now_ms, name=name, content_type=content_type)
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
        """All that a stream has."""
        head = await self.store.head(StreamName(name))
        assert head is not None, f"{name} is not there"
        data = b""
        while len(data) < head.tail:
            data += (await self.store.read(StreamName(name), head, len(data), 1_000_000)).data
        return data


def code_of(refusal: object) -> ErrorCode:
    """What was refused."""
    assert isinstance(refusal, Refusal), refusal
    return refusal.code


@asynccontextmanager
async def own_process(rig: DynamoDbRig) -> AsyncIterator[FanOutRig]:
    """What another process does with the rig's table and bucket, on a loop of its own and without chores."""
    store = DynamoDbStore(replace(rig.config, does_chores=False), rig.still.own_world())
    try:
        yield FanOutRig(replace(rig, store=store))
    finally:
        await store.close()
