"""The DynamoDB store: streams in one table and one bucket, shared by any number of processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from fluvial.clock import Clock
from fluvial.model.commit import Applied, Commit, CreateCommit, DeleteCommit, Outcome, UpdateCommit
from fluvial.model.followers import Follower
from fluvial.model.head import Head, Incarnation, ProducerStamp
from fluvial.model.limits import PAYLOAD_ITEM_BYTES_DEFAULT
from fluvial.model.names import StreamName
from fluvial.model.page import Page
from fluvial.storage.contract import IdempotentOutcome
from fluvial.storage.dynamodb.backend import build_backend
from fluvial.storage.dynamodb.bucket_owner import BucketOwner
from fluvial.storage.dynamodb.followers import add_follower, list_followers, load_follower, remove_follower
from fluvial.storage.dynamodb.projects import DynamoDbProjects
from fluvial.storage.dynamodb.reads.head_poller import Poller
from fluvial.storage.dynamodb.reads.listing import list_names, load_head_items, load_heads
from fluvial.storage.dynamodb.reads.page_reader import PageReader
from fluvial.storage.dynamodb.signing_keys import DynamoDbSigningKeys
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.aws_client import Aws, Endpoints
from fluvial.storage.dynamodb.table.expression import Expression
from fluvial.storage.dynamodb.table.head_cache import HeadCache
from fluvial.storage.dynamodb.table.items import HeadItem
from fluvial.storage.dynamodb.table.keys import head_key
from fluvial.storage.dynamodb.table.objects import Objects
from fluvial.storage.dynamodb.table.table import Table
from fluvial.storage.dynamodb.table.write_outcome import require_known
from fluvial.storage.dynamodb.upkeep.background_tasks import CLOSING_S, BackgroundTasks
from fluvial.storage.dynamodb.upkeep.garbage_collection import GarbageCollector
from fluvial.storage.dynamodb.upkeep.rotation import Rotator, rotation_is_due
from fluvial.storage.dynamodb.writes.commit_writer import CommitWriter
from fluvial.storage.dynamodb.writes.group_commit import GroupCommit
from fluvial.storage.dynamodb.writes.group_writer import GroupWriter
from fluvial.storage.dynamodb.writes.idempotency import IdempotentWriter
from fluvial.storage.dynamodb.writes.in_doubt import InDoubtResolver
from fluvial.storage.dynamodb.writes.lifecycle import DroppedIncarnation, Lifecycle, LifecycleResult
from fluvial.storage.dynamodb.writes.producers import list_producers
from fluvial.storage.dynamodb.writes.spill import Spiller
from fluvial.storage.dynamodb.writes.stream_load import StreamLoads
from fluvial.storage.limits import STORE_LIMITS, StoreLimits
from fluvial.storage.notifier import HeadNotifier
from fluvial.storage.observer import UNOBSERVED, StoreObserver
from fluvial.storage.open_calls import OpenCalls
from fluvial.storage.projects import Projects
from fluvial.storage.renewals import Renewals
from fluvial.storage.signing_keys import SigningKeys

if TYPE_CHECKING:
    from fluvial.storage.dynamodb.upkeep.sweep import Sweeper
    from fluvial.storage.dynamodb.upkeep.undelete import Undeleter

#: A read waits so long for its renewal: a function is frozen once it has answered, and could not go on with it.
RENEWAL_WAIT_S: Final = 10.0

#: An attribute that no item has.
PROBED: Final = "probed"

#: Requests to AWS at the same time; a function serves one request at a time and needs few.
THREADS_MAX: Final = 32


@dataclass(frozen=True, slots=True)
class DynamoDbConfig:
    """The table and the bucket. `runs_background_tasks` is for a process without a change feed.

    A batch of more than `payload_item_bytes_max` bytes is put into the bucket.
    """

    table: str
    bucket: str
    endpoints: Endpoints
    runs_background_tasks: bool = False
    threads_max: int = THREADS_MAX
    limits: StoreLimits = STORE_LIMITS
    observer: StoreObserver = UNOBSERVED
    payload_item_bytes_max: int = PAYLOAD_ITEM_BYTES_DEFAULT


class DynamoDbStore:
    """The store contract on a table and a bucket, as one process sees them."""

    def __init__(self, config: DynamoDbConfig, clock: Clock) -> None:
        """No request is sent before the first call. Raises StartupError when no region is set."""
        self.config, self._clock = config, clock
        self._aws = Aws(config.endpoints, clock.jitter, config.threads_max, config.limits, config.observer)
        self.table = Table(self._aws, config.table)
        objects = Objects(self._aws, config.bucket)
        self._backend = build_backend(self.table, objects, clock, config.payload_item_bytes_max)
        payloads, cold = self._backend.payloads, self._backend.cold
        self._heads, self._notifier = HeadCache(self.table), HeadNotifier()
        loads = StreamLoads(clock.jitter, config.limits)
        spiller = Spiller(self.table, self._heads, clock, loads)
        resolver = InDoubtResolver(self.table, cold, self._heads, clock, config.limits)
        writer = CommitWriter(self._backend, self._heads, spiller, resolver, loads)
        groups = GroupWriter(
            self._backend,
            self._heads,
            spiller=spiller,
            resolver=resolver,
            notifier=self._notifier,
            clock=clock,
            observer=config.observer,
        )
        self._group_commit = GroupCommit(writer, groups, loads, clock, config.limits)
        self._idempotent_writer = IdempotentWriter(self.table, payloads, resolver, writer, self._heads)
        self._lifecycle = Lifecycle(self.table, payloads, spiller, self._heads, clock)
        self._reader = PageReader(self._backend, self._heads)
        self._poller = Poller(self.table, self._heads, self._notifier)
        self._rotator = Rotator(self._backend, spiller, self._heads, clock, config.limits)
        self._collector = GarbageCollector(self._backend)
        self.projects: Projects = DynamoDbProjects(self.table)
        self.signing_keys: SigningKeys = DynamoDbSigningKeys(self.table)
        self._calls = OpenCalls()
        self._renewals = Renewals(self.apply, RENEWAL_WAIT_S)
        self._background_tasks = BackgroundTasks() if config.runs_background_tasks else None

    async def apply(self, name: StreamName, commit: Commit) -> Outcome:
        """See Store.apply."""
        with self._calls.track():
            return await self._apply(name, commit)

    async def _apply(self, name: StreamName, commit: Commit) -> Outcome:
        match commit:
            case CreateCommit():
                outcome = self._collect_dropped(await self._lifecycle.create(name, commit))
            case DeleteCommit():
                outcome = self._collect_dropped(await self._lifecycle.delete(name, commit))
            case UpdateCommit():
                outcome = await self._group_commit.write(name, commit)
        self._on_applied(name, outcome)
        return outcome

    async def apply_idempotently(self, name: StreamName, commit: UpdateCommit, key: str) -> IdempotentOutcome:
        """See IdempotentAppender.apply_idempotently; a key is remembered for 15 days."""
        with self._calls.track():
            result = await self._idempotent_writer.write(name, commit, key, self._clock)
            self._on_applied(name, result.outcome)
            return result

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
        """See Store.wait: at once for commits of this process, within half a second for those of others."""
        return await self._poller.wait(name, seen, timeout_s)

    async def names(self, prefix: str, after: str, count_max: int) -> list[StreamName]:
        """See Store.names."""
        return await list_names(self.table, prefix, after, count_max)

    async def heads(self, names: Sequence[StreamName]) -> list[Head | None]:
        """See Store.heads: strongly consistent reads of up to a hundred heads each."""
        return await load_heads(self.table, names)

    async def resume_upkeep(self, names: Sequence[StreamName]) -> list[Head | None]:
        """See Resumable.resume_upkeep: begin the rotations that are due."""
        items = await load_head_items(self.table, names)
        for name, stored in zip(names, items, strict=True):
            self._rotate_when_due(name, stored)
        return [stored.head for stored in items]

    async def producers(self, head: Head, count_max: int) -> list[ProducerStamp]:
        """See Store.producers."""
        return await list_producers(self.table, head, count_max)

    async def add_follower(self, source: Incarnation, follower: Follower) -> None:
        """See Store.add_follower."""
        await add_follower(self.table, source, follower)

    async def remove_follower(self, source: Incarnation, follower: Follower) -> None:
        """See Store.remove_follower."""
        await remove_follower(self.table, source, follower)

    async def followers(self, source: Incarnation, after: str, count_max: int) -> list[Follower]:
        """See Store.followers."""
        return await list_followers(self.table, source, after, count_max)

    async def follower(self, source: Incarnation, estuary: StreamName) -> Follower | None:
        """See Store.follower."""
        return await load_follower(self.table, source, estuary)

    async def rotate(self, name: StreamName) -> None:
        """Move all hot segments that are due into S3. Raises StoreUnavailable, StoreUncertain, StorageDamaged."""
        while await self._rotator.rotate(name):
            pass

    async def collect(self, dropped: DroppedIncarnation) -> None:
        """Delete an ended incarnation's data; may be repeated. Raises StoreUnavailable, StoreUncertain."""
        await self._collector.collect(dropped)

    def sweeper(self, *, dry_run: bool) -> "Sweeper":
        """A sweeper of the table and the bucket."""
        from fluvial.storage.dynamodb.upkeep.sweep import Sweeper  # noqa: PLC0415  most functions do not sweep

        return Sweeper(self._backend, self.apply, self._clock, dry_run=dry_run)

    def undeleter(self, *, dry_run: bool) -> "Undeleter":
        """An undeleter of the objects that the table points to."""
        from fluvial.storage.dynamodb.upkeep.undelete import Undeleter  # noqa: PLC0415  no function does

        return Undeleter(self._backend, dry_run=dry_run)

    @property
    def bucket_owner(self) -> BucketOwner:
        """The table that the bucket belongs to."""
        return self._backend.owner

    async def probe_write(self) -> None:
        """See WriteProbe.probe_write: an update whose condition never holds costs a write, and writes nothing."""
        e = Expression()
        key, condition = e.name(a.PK), "attribute_exists({0}) AND attribute_not_exists({0})"
        update = f"REMOVE {e.name(PROBED)}"
        request = {"Key": head_key(StreamName("fluvial")), "UpdateExpression": update}
        require_known(
            await self.table.update({**request, "ConditionExpression": condition.format(key), **e.parameters()})
        )

    async def close(self) -> None:
        """See Store.close."""
        await self._renewals.close()
        await self._calls.close(CLOSING_S)
        await self._group_commit.close()
        await self._poller.close()
        if self._background_tasks is not None:
            await self._background_tasks.close()
        self._aws.close()

    def _on_applied(self, name: StreamName, outcome: Outcome) -> None:
        if isinstance(outcome, Applied):
            self._notifier.notify(name, outcome.head)
            self._rotate_when_due(name, self._heads.get(name))

    def _collect_dropped(self, result: LifecycleResult) -> Outcome:
        if self._background_tasks is not None:
            for dropped in result.dropped:
                self._background_tasks.add(dropped.incarnation, partial(self._collector.collect, dropped))
        return result.outcome

    def _rotate_when_due(self, name: StreamName, stored: HeadItem | None) -> None:
        if self._background_tasks is not None and stored is not None and rotation_is_due(stored, self.config.limits):
            self._background_tasks.add(name, partial(self.rotate, name))
