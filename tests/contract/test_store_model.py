"""Random histories with restarts on each store, compared with a model of the protocol that shares no code with them.

In the model a stream is a list of batches, and a fork copies its source's. It has no heads, requirements, lineages or
incarnations.
"""

import asyncio
import random
import tempfile
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fluvial.model.command import Append, Close, Create, Delete, ForkPoint
from fluvial.model.commit import Commit, Outcome, UpdateCommit
from fluvial.model.effect import RenewTtl
from fluvial.model.entity_tag import UNCONDITIONAL, Preconditions, parse_entity_tags
from fluvial.model.errors import RequestError, StoreUnavailable, StoreUncertain
from fluvial.model.head import Head, Incarnation, ProducerStamp, StreamStatus, stream_status
from fluvial.model.lifetime import SlidingTtl
from fluvial.model.names import StreamName
from fluvial.model.offset import Offset, birth_us_at
from fluvial.model.plan import plan_append, plan_close, plan_delete, plan_expiry
from fluvial.operations.create_stream import create_stream
from fluvial.storage.dynamodb.store import DynamoDbStore
from fluvial.storage.limits import STORE_LIMITS
from fluvial.wire.response import append_response, create_response, delete_response, head_response
from tests.support.budget import examples, luck
from tests.support.clocks import START_MS
from tests.support.network import Network
from tests.support.rigs import IMPATIENT, RIGS, Rig


class Guard(Enum):
    """The precondition of a request: a header, and the tag in it."""

    NONE = auto()
    IF_MATCH_CURRENT = auto()
    IF_MATCH_OTHER = auto()
    IF_NONE_MATCH_CURRENT = auto()
    IF_NONE_MATCH_OTHER = auto()


#: The preconditions that do not hold.
FAILING = {Guard.IF_MATCH_OTHER, Guard.IF_NONE_MATCH_CURRENT}

NAMES = [StreamName(name) for name in "abcd"]
TTL_S = 100
SLACK_MS = 5_000

#: Live reads that are open at the same time. Their timeout is longer than any history; news must come sooner.
WAITS_MAX = 4
WAIT_S = 600
NEWS_WITHIN_S = 10

#: Heads of earlier states, from which a live read may begin later.
OLD_HEADS_MAX = 50


@dataclass
class Stream:
    """A stream as the protocol describes it."""

    batches: list[bytes] = field(default_factory=list)
    closed: bool = False
    closed_by: tuple[str, int, int] | None = None
    last_seq: str | None = None
    producers: dict[str, tuple[int, int]] = field(default_factory=dict)
    source: "Stream | None" = None
    fork_count: int = 0
    soft_deleted: bool = False
    expires_ms: int | None = None
    is_ttl: bool = False
    appended_ms: int | None = None

    @property
    def data(self) -> bytes:
        """All bytes."""
        return b"".join(self.batches)


class Model:
    """Streams by name, and the HTTP statuses that a Durable Streams server answers with."""

    def __init__(self) -> None:
        """Start without streams."""
        self.now_ms = START_MS
        self.streams: dict[str, Stream] = {}

    def find(self, name: str) -> Stream | int:
        """The existing stream of a name, or the status that says why there is none."""
        stream = self.streams.get(name)
        if stream is None:
            return 404
        if stream.soft_deleted:
            return 410
        if stream.expires_ms is not None and stream.expires_ms <= self.now_ms:
            return 410 if stream.fork_count else 404
        return stream

    def end(self, name: str) -> None:
        """Soft-delete a stream that has forks, else remove it, and its soft-deleted source if it was the last fork."""
        stream = self.streams[name]
        stream.soft_deleted = True
        if stream.fork_count:
            return
        del self.streams[name]
        source = stream.source
        if source is not None:
            source.fork_count -= 1
            for other, candidate in list(self.streams.items()):
                if candidate is source and source.soft_deleted:
                    self.end(other)

    def create(self, name: str, first: Stream, source: str | None = None, keep: int = 0) -> int:
        """PUT of the stream `first`; a fork has the source's first `keep` batches before its own."""
        existing = self.find(name)
        if existing == 410:
            return 409
        if isinstance(existing, Stream):
            return 409  # the state machine itself handles a PUT that the existing stream matches
        first.appended_ms = self.now_ms if first.batches else None
        origin: Stream | int | None = None
        if source is not None:
            origin = self.find(source)
            if isinstance(origin, int):
                return 404 if origin == 404 else 409
        if name in self.streams:
            self.end(name)
        if isinstance(origin, Stream):
            first.batches = origin.batches[:keep] + first.batches
            first.source, first.is_ttl = origin, first.is_ttl or origin.is_ttl
            origin.fork_count += 1
        self.use(first)
        self.streams[name] = first
        return 201

    def use(self, stream: Stream) -> None:
        """Move the deadline of a stream with a TTL if less than the TTL is left, because the stream is written to."""
        if stream.is_ttl and (stream.expires_ms is None or stream.expires_ms < self.now_ms + TTL_S * 1_000):
            stream.expires_ms = self.now_ms + TTL_S * 1_000 + SLACK_MS

    def append(  # noqa: PLR0913  an append has so many parts
        self,
        name: str,
        body: bytes,
        seq: str | None,
        producer: tuple[str, int, int] | None,
        *,
        closes: bool,
        guard: Guard,
    ) -> int:
        """POST, with the failures in the protocol's order; preconditions are checked last."""
        stream = self.find(name)
        if isinstance(stream, int):
            return stream
        if stream.closed:
            if not self._is_closing_retry(stream, body, producer):
                return 409
            return 412 if producer is None and guard is Guard.IF_MATCH_OTHER else 204
        failure = self._writer_failure(stream, seq, producer)
        if failure or guard in FAILING:
            return failure or 412
        if body:
            stream.batches, stream.appended_ms = [*stream.batches, body], self.now_ms
        if seq is not None:
            stream.last_seq = seq
        if producer is not None:
            stream.producers[producer[0]] = producer[1:]
        if closes:
            stream.closed, stream.closed_by = True, producer
        self.use(stream)
        return 200 if producer and body else 204

    def _writer_failure(self, stream: Stream, seq: str | None, producer: tuple[str, int, int] | None) -> int | None:
        if producer is not None:
            failure = self._producer_failure(stream, producer)
            if failure:
                return failure
        return 409 if seq is not None and stream.last_seq is not None and seq <= stream.last_seq else None

    def _is_closing_retry(self, stream: Stream, body: bytes, producer: tuple[str, int, int] | None) -> bool:
        if producer is not None:
            return stream.closed_by == producer
        return not body

    def _producer_failure(self, stream: Stream, producer: tuple[str, int, int]) -> int | None:
        name, epoch, seq = producer
        known = stream.producers.get(name)
        if known is None:
            return None if seq == 0 else 409
        if epoch < known[0]:
            return 403
        if epoch > known[0]:
            return None if seq == 0 else 400
        if seq <= known[1]:
            return 204
        return None if seq == known[1] + 1 else 409


names = st.sampled_from(NAMES)
picks = st.integers(0, 9)
seldom = st.sampled_from([False] * 9 + [True])
bodies = st.binary(min_size=1, max_size=40)
guards = st.sampled_from([Guard.NONE] * 5 + list(Guard))
producers = st.none() | st.tuples(st.sampled_from("pq"), st.integers(0, 2), st.integers(0, 3))


@dataclass
class Wait:
    """A live read that has seen a head and waits for another one."""

    name: StreamName
    seen: Head
    task: asyncio.Task[Head | None]


def news_in(head: Head | None) -> tuple[object, ...] | None:
    """The fields of a head whose change ends a live read."""
    return None if head is None else (head.incarnation, head.tail, head.closed, head.soft_deleted)


class StoreAnswersLikeModel(RuleBasedStateMachine):
    """Every command gets the model's status, and every stream has the model's bytes, before and after restarts."""

    kind = "memory"
    limits = STORE_LIMITS

    @initialize()
    def begin(self) -> None:
        """Open an empty store on an event loop of its own."""
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.context: AbstractAsyncContextManager[Any] = RIGS[self.kind](Path(self.folder.name) / "data", self.limits)
        self.rig: Rig = self.runner.run(self.context.__aenter__())
        self.model = Model()
        self.waits = list[Wait]()
        self.old_heads = list[tuple[StreamName, Head]]()

    def teardown(self) -> None:
        """End the live reads and close the store."""
        if hasattr(self, "runner"):
            self.stop_waiting()
            self.runner.run(self.context.__aexit__(None, None, None))
            self.runner.close()
            self.folder.cleanup()

    def head(self, name: StreamName) -> Head | None:
        """The store's head of a name."""
        return self.runner.run(self.rig.store.head(name))

    @rule(name=names, body=st.just(b"") | bodies, closed=seldom, ttl=st.booleans())
    def create(self, name: StreamName, body: bytes, *, closed: bool, ttl: bool) -> None:
        """PUT of a new stream."""
        command = Create(
            name=name,
            content_type="text/x-unlike-any",
            body=body,
            closed=closed,
            lifetime=SlidingTtl(TTL_S) if ttl else None,
        )
        existing = self.model.find(name)
        status = self.put(command)
        if status == 200:
            assert isinstance(existing, Stream)
            assert (existing.closed, existing.is_ttl, existing.source) == (closed, ttl, None)
        else:
            assert status == self.model.create(name, Stream([body] if body else [], closed=closed, is_ttl=ttl))

    def pick_name(self, pick: int) -> StreamName:
        """Mostly the name of an existing stream, because the others have few answers."""
        existing = [name for name in NAMES if isinstance(self.model.find(name), Stream)]
        return existing[pick % len(existing)] if existing and pick else NAMES[pick % len(NAMES)]

    @rule(name=names, pick=picks, body=st.just(b"") | bodies, keep=st.integers(0, 3))
    def fork(self, name: StreamName, pick: int, body: bytes, keep: int) -> None:
        """PUT of a fork that begins at one of the source's batch boundaries."""
        source = self.pick_name(pick)
        origin = self.model.find(source)
        batches = origin.batches if isinstance(origin, Stream) else []
        keep = min(keep, len(batches))
        offset = len(b"".join(batches[:keep]))
        command = Create(
            name=name,
            content_type=None,
            body=body,
            fork=ForkPoint(source, self.offset_in(source, offset), 0),
            lifetime=None,
        )
        status = self.put(command)
        if status != 200:
            assert status == self.model.create(name, Stream([body] if body else []), source, keep)

    def offset_in(self, source: StreamName, position: int) -> Offset:
        """The offset of a position in the present stream of a name."""
        head = self.head(source)
        return Offset(0 if head is None else birth_us_at(head, position), position)

    def put(self, command: Create) -> int:
        """Send a PUT; its status."""
        clock = self.rig.still.clock()
        fresh = replace(clock, new_incarnation=self.fresh_incarnation)
        try:
            outcome = self.runner.run(create_stream(self.rig.store, fresh, command))
        except RequestError as exc:
            return exc.status
        return create_response(command, outcome, b"").status

    incarnations = 0

    def fresh_incarnation(self) -> Incarnation:
        """An incarnation that no stream had."""
        StoreAnswersLikeModel.incarnations += 1
        return Incarnation(StoreAnswersLikeModel.incarnations)

    @rule(
        pick=picks,
        body=bodies,
        seq=st.none() | st.sampled_from(["1", "2", "3"]),
        producer=producers,
        closes=seldom,
        guard=guards,
    )
    def append(  # noqa: PLR0913  an append has so many parts
        self,
        pick: int,
        body: bytes,
        seq: str | None,
        producer: tuple[str, int, int] | None,
        *,
        closes: bool,
        guard: Guard,
    ) -> None:
        """POST with a body."""
        name = self.pick_name(pick)
        head = self.head(name)
        command = Append(
            name=name,
            content_type=head.content_type if head else "text/plain",
            data=body,
            closes=closes,
            stream_seq=seq,
            producer=ProducerStamp(*producer) if producer else None,
            preconditions=self.preconditions(name, guard),
        )
        outcome = self.runner.run(self.rig.store.apply(name, plan_append(command, self.rig.still.time.now_ms)))
        expected = self.model.append(name, body, seq, producer, closes=closes, guard=guard)
        assert append_response(command, outcome).status == expected

    @rule(pick=picks, producer=producers, guard=guards)
    def close(self, pick: int, producer: tuple[str, int, int] | None, guard: Guard) -> None:
        """POST that only closes."""
        name = self.pick_name(pick)
        command = Close(
            name=name,
            producer=ProducerStamp(*producer) if producer else None,
            preconditions=self.preconditions(name, guard),
        )
        outcome = self.runner.run(self.rig.store.apply(name, plan_close(command, self.rig.still.time.now_ms)))
        expected = self.model.append(name, b"", None, producer, closes=True, guard=guard)
        assert append_response(command, outcome).status == expected

    def preconditions(self, name: StreamName, guard: Guard) -> Preconditions:
        """The precondition of a guard, with the tag of the HEAD response or with another one."""
        head = self.head(name)
        own = b'"nothing"' if head is None else dict(head_response(head, UNCONDITIONAL).headers)[b"etag"]
        tags = {True: parse_entity_tags("", own), False: parse_entity_tags("", own[:-1] + b'0"')}
        match guard:
            case Guard.NONE:
                return UNCONDITIONAL
            case Guard.IF_MATCH_CURRENT | Guard.IF_MATCH_OTHER:
                return Preconditions(if_match=tags[guard is Guard.IF_MATCH_CURRENT])
            case Guard.IF_NONE_MATCH_CURRENT | Guard.IF_NONE_MATCH_OTHER:
                return Preconditions(if_none_match=tags[guard is Guard.IF_NONE_MATCH_CURRENT])

    @rule(pick=picks, guard=guards)
    def delete(self, pick: int, guard: Guard) -> None:
        """DELETE."""
        name = self.pick_name(pick)
        command = Delete(name, self.preconditions(name, guard))
        commit = plan_delete(self.rig.still.time.now_ms, command.preconditions)
        status = delete_response(command, self.runner.run(self.rig.store.apply(name, commit))).status
        found = self.model.find(name)
        if isinstance(found, Stream):
            assert status == (412 if guard in FAILING else 204)
            if guard in FAILING:
                return
            self.model.end(name)
        else:
            assert status == found

    @rule(milliseconds=st.sampled_from([1, 1, 50_000, 200_000]))
    def pass_time(self, milliseconds: int) -> None:
        """Let streams expire. A store may delete them by itself from now on, so they are deleted at once."""
        self.rig.still.time.advance(milliseconds)
        self.model.now_ms += milliseconds
        if self.kind != "memory":
            for name in NAMES:
                self.end_if_expired(name)

    @rule(name=names)
    def end_expired_stream(self, name: StreamName) -> None:
        """Garbage collection looks at one name."""
        self.end_if_expired(name)

    def end_if_expired(self, name: StreamName) -> None:
        """Delete a stream if it has expired; clients see no difference."""
        stream = self.model.streams.get(name)
        now_ms = self.model.now_ms
        self.runner.run(self.rig.store.apply(name, plan_expiry(now_ms)))
        if stream and not stream.soft_deleted and stream.expires_ms is not None and stream.expires_ms <= now_ms:
            self.model.end(name)

    @precondition(lambda self: self.kind != "memory")
    @rule()
    def restart(self) -> None:
        """Close the store and open it again."""
        self.stop_waiting()
        self.runner.run(self.rig.reopen())

    @precondition(lambda self: len(self.waits) < WAITS_MAX)
    @rule(pick=picks, from_old_head=st.booleans())
    def wait(self, pick: int, *, from_old_head: bool) -> None:
        """Begin a live read, from the present head or from an old one."""
        if from_old_head and self.old_heads:
            name, seen = self.old_heads[pick % len(self.old_heads)]
        else:
            name = self.pick_name(pick)
            head = self.head(name)
            if head is None:
                return
            seen = head
        task = self.runner.get_loop().create_task(self.rig.store.wait(name, seen, WAIT_S))
        self.waits.append(Wait(name, seen, task))

    def stop_waiting(self) -> None:
        """Cancel every live read."""
        for wait in self.waits:
            wait.task.cancel()
        self.runner.run(self.join([wait.task for wait in self.waits]))
        self.waits.clear()

    async def join(self, tasks: list[asyncio.Task[Head | None]]) -> None:
        """Wait for the end of cancelled tasks."""
        await asyncio.gather(*tasks, return_exceptions=True)

    @invariant()
    def waits_agree(self) -> None:
        """A live read ends as soon as the head differs from the one that it has seen, and never with an older head."""
        for wait in list(getattr(self, "waits", ())):
            now = self.head(wait.name)
            if news_in(now) == news_in(wait.seen):
                self.runner.run(self.rig.let_pass())
                assert not wait.task.done(), "nothing has changed"
                continue
            head = self.runner.run(self.result_of(wait))
            assert news_in(head) != news_in(wait.seen)
            if head is not None and head.incarnation == wait.seen.incarnation:
                assert (head.tail, head.closed, head.soft_deleted) >= (wait.seen.tail, wait.seen.closed, False)
            elif head is not None:
                assert head.born_us > wait.seen.born_us
            self.waits.remove(wait)

    async def result_of(self, wait: Wait) -> Head | None:
        """The head of a live read that must end now; a store that polls needs up to half a second."""
        return await asyncio.wait_for(wait.task, NEWS_WITHIN_S)

    @rule(pick=picks, byte_count_max=st.integers(1, 100))
    def read(self, pick: int, byte_count_max: int) -> None:
        """GET of the whole stream, page by page."""
        name = self.pick_name(pick)
        found = self.model.find(name)
        if isinstance(found, int):
            return
        head = self.head(name)
        assert head is not None
        position, data = 0, b""
        while position < head.tail:
            page = self.runner.run(self.rig.store.read(name, head, position, byte_count_max))
            data, position = data + page.data, page.end
        assert data == found.data

    @invariant()
    def heads_agree(self) -> None:
        """HEAD of every name agrees with the model."""
        if not hasattr(self, "rig"):
            return
        for name in NAMES:
            head, found = self.head(name), self.model.find(name)
            status = stream_status(head, self.model.now_ms)
            if isinstance(found, int):
                assert status is (StreamStatus.GONE if found == 410 else StreamStatus.ABSENT)
            else:
                assert status is StreamStatus.EXISTS
                assert head is not None
                assert (head.tail, head.closed) == (len(found.data), found.closed)
                assert head.appended_ms == found.appended_ms
                if len(self.old_heads) < OLD_HEADS_MAX:
                    self.old_heads.append((name, head))


class SqliteAnswersLikeModel(StoreAnswersLikeModel):
    """The same on SQLite."""

    kind = "sqlite"


class DynamoDbAnswersLikeModel(StoreAnswersLikeModel):
    """The same on DynamoDB Local, AWS's own engine."""

    kind = "dynamodb-local"


class RetryingStore:
    """A store whose caller repeats a commit after every StoreUnavailable."""

    def __init__(self, inner: DynamoDbStore, network: Network) -> None:
        """`network` is the one between `inner` and its engine."""
        self.inner, self.network = inner, network

    async def apply(self, name: StreamName, commit: Commit) -> Outcome:
        """Apply at last; late requests arrive between the tries."""
        while True:
            try:
                return await self.inner.apply(name, commit)
            except StoreUnavailable:
                self.network.deliver_late(1)
            except StoreUncertain:  # a renewal in doubt may be repeated
                assert isinstance(commit, UpdateCommit)
                assert all(isinstance(effect, RenewTtl) for effect in commit.effects)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  everything else is the store's
        return getattr(self.inner, name)


class FaultyNetworkAnswersLikeModel(DynamoDbAnswersLikeModel):
    """The same while requests and answers are lost or late, and while the engine throttles requests."""

    limits = IMPATIENT

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int = 0) -> None:
        """Open a store whose network fails, on a table that was made without failures."""
        super().begin()
        self.network = Network(
            random.Random(seed), request_lost=0.05, request_late=0.08, response_lost=0.08, throttled=0.04
        )
        self.attach_network()

    def attach_network(self) -> None:
        """Put the network between the store and the engine."""
        self.network.attach(self.rig.store)  # type: ignore[arg-type]
        self.rig.store = RetryingStore(self.rig.store, self.network)  # type: ignore[misc, arg-type]

    @rule()
    def restart(self) -> None:
        """Open another store, while requests of the closed one are still under way."""
        super().restart()
        self.attach_network()

    @rule()
    def deliver_late(self) -> None:
        """Deliver requests whose senders have timed out."""
        self.network.deliver_late()


over_http = examples(15, stateful_step_count=40, suppress_health_check=list(HealthCheck))
FaultyNetworkAnswersLikeModel.TestCase.settings = examples(
    8, stateful_step_count=40, suppress_health_check=list(HealthCheck)
)
DynamoDbAnswersLikeModel.TestCase.settings = over_http
StoreAnswersLikeModel.TestCase.settings = examples(40)
SqliteAnswersLikeModel.TestCase.settings = examples(15)
TestMemoryStore = luck(StoreAnswersLikeModel.TestCase)
TestSqliteStore = luck(SqliteAnswersLikeModel.TestCase)
TestFaultyNetwork = pytest.mark.medium(luck(FaultyNetworkAnswersLikeModel.TestCase))
TestDynamoDbLocal = pytest.mark.slow(luck(DynamoDbAnswersLikeModel.TestCase))
