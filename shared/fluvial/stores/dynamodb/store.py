"""DynamoDbStore: streams in one table and one bucket, shared by any number of processes, behind the contract."""

from dataclasses import dataclass
from functools import partial
from typing import Final

from fluvial.core.commit import Applied, Commit, Outcome
from fluvial.core.effect import Begin, End
from fluvial.core.followers import Follower
from fluvial.core.head import Head, Incarnation
from fluvial.core.names import StreamName
from fluvial.core.page import Page
from fluvial.stores.calls import Calls
from fluvial.stores.contract import Once
from fluvial.stores.dynamodb.aws import Aws, Endpoints
from fluvial.stores.dynamodb.chores import CLOSING_S, Chores
from fluvial.stores.dynamodb.collection import Collector
from fluvial.stores.dynamodb.commits import CommitWriter
from fluvial.stores.dynamodb.connections import Connections
from fluvial.stores.dynamodb.followers import add_follower, listed_followers, one_follower, remove_follower
from fluvial.stores.dynamodb.listing import listed_names
from fluvial.stores.dynamodb.lives import Changed, DroppedLife, Lives
from fluvial.stores.dynamodb.objects import Objects
from fluvial.stores.dynamodb.once import OnceWriter
from fluvial.stores.dynamodb.places import places
from fluvial.stores.dynamodb.polling import Poller
from fluvial.stores.dynamodb.projects import DynamoDbProjects
from fluvial.stores.dynamodb.reading import Reader
from fluvial.stores.dynamodb.recent import Recent
from fluvial.stores.dynamodb.rotation import Rotator, rotation_is_due
from fluvial.stores.dynamodb.settling import Settler
from fluvial.stores.dynamodb.spilling import Spiller
from fluvial.stores.dynamodb.sweeping import Sweeper
from fluvial.stores.dynamodb.table import Table
from fluvial.stores.limits import STORE_LIMITS, StoreLimits
from fluvial.stores.projects import Projects
from fluvial.stores.renewals import Renewals
from fluvial.stores.turns import Turns
from fluvial.stores.waiters import Waiters
from fluvial.world import World

#: A read waits for its renewal: a function is frozen once it has answered, and nobody else can hold the table.
RENEWAL_WAIT_S: Final = 10.0

#: Requests to AWS at the same time; a function serves one request at a time and needs few.
THREADS_MAX: Final = 32


@dataclass(frozen=True, slots=True)
class DynamoDbConfig:
    """Where the streams are. `does_chores` is for a process that no change feed works beside."""

    table: str
    bucket: str
    endpoints: Endpoints
    does_chores: bool = False
    threads_max: int = THREADS_MAX
    limits: StoreLimits = STORE_LIMITS


class DynamoDbStore:
    """One process's view of a table and a bucket."""

    def __init__(self, config: DynamoDbConfig, world: World) -> None:
        """Nothing is asked of AWS before the first call. Raises StartupRefused when no region is known."""
        self.config, self._world = config, world
        self._aws = Aws(config.endpoints, world.jitter, config.threads_max, config.limits)
        self._table = Table(self._aws, config.table)
        self._places = places(self._table, Objects(self._aws, config.bucket))
        payloads, cold = self._places.payloads, self._places.cold
        self._recent, self._waiters, self._turns = Recent(), Waiters(), Turns()
        spiller = Spiller(self._table, self._recent, world)
        settler = Settler(self._table, cold, self._recent, world, config.limits)
        self._writer = CommitWriter(self._table, payloads, spiller, settler, self._recent)
        self._once = OnceWriter(self._table, payloads, settler, self._writer, self._recent)
        self._lives = Lives(self._table, payloads, spiller, self._recent, world)
        self._reader = Reader(self._places, self._recent)
        self._poller = Poller(self._table, self._recent, self._waiters)
        self._rotator = Rotator(self._places, spiller, self._recent, world, config.limits)
        self._collector = Collector(self._places)
        self.connections = Connections(self._table)
        self.projects: Projects = DynamoDbProjects(self._table)
        self._calls = Calls()
        self._renewals = Renewals(self.apply, RENEWAL_WAIT_S)
        self._chores = Chores() if config.does_chores else None

    async def apply(self, name: StreamName, commit: Commit) -> Outcome:
        """See Store.apply."""
        with self._calls.enter():
            return await self._apply(name, commit)

    async def _apply(self, name: StreamName, commit: Commit) -> Outcome:
        match commit.effects[0]:
            case Begin():
                outcome = self._dropping(await self._lives.begin(name, commit))
            case End():
                outcome = self._dropping(await self._lives.end(name, commit))
            case _ if commit.producer_id is not None:
                async with self._turns.turn((name, commit.producer_id)):
                    outcome = await self._writer.write(name, commit, self._world)
            case _:
                outcome = await self._writer.write(name, commit, self._world)
        self._landed(name, outcome)
        return outcome

    async def apply_once(self, name: StreamName, commit: Commit, key: str) -> Once:
        """See AppliesOnce.apply_once; a key is remembered for 15 days."""
        with self._calls.enter():
            once = await self._once.write(name, commit, key, self._world)
            self._landed(name, once.outcome)
            return once

    async def renew(self, name: StreamName, now_ms: int) -> None:
        """See Store.renew."""
        await self._renewals.renew(name, now_ms)

    async def head(self, name: StreamName) -> Head | None:
        """See Store.head: one strongly consistent read."""
        return await self._poller.head(name)

    async def read(self, name: StreamName, head: Head, start: int, byte_count_max: int) -> Page:
        """See Store.read."""
        return await self._reader.read(name, head, start, byte_count_max)

    async def wait(self, name: StreamName, seen: Head, timeout_s: float) -> Head | None:
        """See Store.wait: at once for commits of this process, within half a second for others'."""
        return await self._poller.wait(name, seen, timeout_s)

    async def names(self, prefix: str, after: str, count_max: int) -> list[StreamName]:
        """See Store.names."""
        return await listed_names(self._table, prefix, after, count_max)

    async def add_follower(self, source: Incarnation, follower: Follower) -> None:
        """See Store.add_follower."""
        await add_follower(self._table, source, follower)

    async def remove_follower(self, source: Incarnation, follower: Follower) -> None:
        """See Store.remove_follower."""
        await remove_follower(self._table, source, follower)

    async def followers(self, source: Incarnation, after: str, count_max: int) -> list[Follower]:
        """See Store.followers."""
        return await listed_followers(self._table, source, after, count_max)

    async def follower(self, source: Incarnation, estuary: StreamName) -> Follower | None:
        """See Store.follower."""
        return await one_follower(self._table, source, estuary)

    async def rotate(self, name: StreamName) -> None:
        """Move all that is due into S3. Raises StoreUnavailable, StorageDamaged."""
        while await self._rotator.rotate(name):
            pass

    async def collect(self, life: DroppedLife) -> None:
        """Delete what an ended life left behind; it may be done again. Raises StoreUnavailable."""
        await self._collector.collect(life)

    def sweeper(self, *, dry_run: bool) -> Sweeper:
        """One that looks for what nothing leads to any more."""
        return Sweeper(self._places, self.apply, self._world, dry_run=dry_run)

    async def close(self) -> None:
        """See Store.close."""
        await self._renewals.close()
        await self._calls.close(CLOSING_S)
        await self._poller.close()
        if self._chores is not None:
            await self._chores.close()
        self._aws.close()

    def _landed(self, name: StreamName, outcome: Outcome) -> None:
        if isinstance(outcome, Applied):
            self._waiters.wake(name, outcome.head)
            self._rotate_when_due(name)

    def _dropping(self, changed: Changed) -> Outcome:
        if self._chores is not None:
            for life in changed.dropped:
                self._chores.add(life.incarnation, partial(self._collector.collect, life))
        return changed.outcome

    def _rotate_when_due(self, name: StreamName) -> None:
        stored = self._recent.get(name)
        if self._chores is not None and stored is not None and rotation_is_due(stored, self.config.limits):
            self._chores.add(name, partial(self.rotate, name))
