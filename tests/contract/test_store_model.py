"""Random histories with restarts, against a model of the protocol that shares no code with the stores.

The model knows streams as lists of batches and copies a fork's bytes; it has neither heads, requirements,
lineages nor incarnations.
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
from fluvial.model.offset import Offset, born_at
from fluvial.model.plan import plan_append, plan_close, plan_delete, plan_expiry
from fluvial.operations.create_stream import create
from fluvial.storage.dynamodb.store import DynamoDbStore
from fluvial.storage.limits import STORE_LIMITS
from fluvial.wire.response import append_response, create_response, delete_response, head_response
from tests.support.budget import examples, luck
from tests.support.clocks import START_MS
from tests.support.network import Network
from tests.support.rigs import IMPATIENT, RIGS, Rig


class Guard(Enum):
    """What a request says of its stream's state in If-Match or If-None-Match."""

    NONE = auto()
    MATCHES = auto()
    MATCHES_ANOTHER = auto()
    DIFFERS = auto()
    DIFFERS_FROM_ANOTHER = auto()


#: Those that are not true of the stream.
UNTRUE = {Guard.MATCHES_ANOTHER, Guard.DIFFERS}

NAMES = [StreamName(name) for name in "abcd"]
TTL_S = 100
SLACK_MS = 5_000

#: Live readers that wait at once, each for longer than any history takes.
WAITS_MAX = 4
WAIT_S = 600
TOLD_WITHIN_S = 10

#: Heads that were seen early, for a live reader to come back with.
LOOKS_MAX = 50


@dataclass
class Stream:
    """A stream as the protocol describes it, nothing more."""

    batches: list[bytes] = field(default_factory=list)
    closed: bool = False
    closed_by: tuple[str, int, int] | None = None
    last_seq: str | None = None
    producers: dict[str, tuple[int, int]] = field(default_factory=dict)
    source: "Stream | None" = None
    fork_count: int = 0
    hidden: bool = False
    expires_ms: int | None = None
    is_ttl: bool = False

    @property
    def data(self) -> bytes:
        """All bytes."""
        return b"".join(self.batches)


class Model:
    """What a Durable Streams server answers, by name."""

    def __init__(self) -> None:
        """No stream."""
        self.now_ms = START_MS
        self.streams: dict[str, Stream] = {}

    def find(self, name: str) -> Stream | int:
        """The live stream of a name, or the status that says why there is none."""
        stream = self.streams.get(name)
        if stream is None:
            return 404
        if stream.hidden:
            return 410
        if stream.expires_ms is not None and stream.expires_ms <= self.now_ms:
            return 410 if stream.fork_count else 404
        return stream

    def end(self, name: str) -> None:
        """Hide a stream that has forks; else remove it, and whatever only it still needed."""
        stream = self.streams[name]
        stream.hidden = True
        if stream.fork_count:
            return
        del self.streams[name]
        source = stream.source
        if source is not None:
            source.fork_count -= 1
            for other, candidate in list(self.streams.items()):
                if candidate is source and source.hidden:
                    self.end(other)

    def create(self, name: str, first: Stream, source: str | None = None, keep: int = 0) -> int:
        """PUT of a stream like `first`; a fork keeps the source's first `keep` batches before its own."""
        existing = self.find(name)
        if existing == 410:
            return 409
        if isinstance(existing, Stream):
            return 409  # the machine varies what it asks for, so a match is checked elsewhere
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
        """A write to a stream with a sliding window: its deadline moves when it leaves less than the window."""
        if stream.is_ttl and (stream.expires_ms is None or stream.expires_ms < self.now_ms + TTL_S * 1_000):
            stream.expires_ms = self.now_ms + TTL_S * 1_000 + SLACK_MS

    def append(  # noqa: PLR0913  one name for each thing that an append has
        self,
        name: str,
        body: bytes,
        seq: str | None,
        producer: tuple[str, int, int] | None,
        *,
        closes: bool,
        guard: Guard,
    ) -> int:
        """POST, with the protocol's order of refusals; preconditions come last."""
        stream = self.find(name)
        if isinstance(stream, int):
            return stream
        if stream.closed:
            if not self._is_closing_retry(stream, body, producer):
                return 409
            return 412 if producer is None and guard is Guard.MATCHES_ANOTHER else 204
        refused = self._writer_refusal(stream, seq, producer)
        if refused or guard in UNTRUE:
            return refused or 412
        if body:
            stream.batches = [*stream.batches, body]
        if seq is not None:
            stream.last_seq = seq
        if producer is not None:
            stream.producers[producer[0]] = producer[1:]
        if closes:
            stream.closed, stream.closed_by = True, producer
        self.use(stream)
        return 200 if producer and body else 204

    def _writer_refusal(self, stream: Stream, seq: str | None, producer: tuple[str, int, int] | None) -> int | None:
        if producer is not None:
            refused = self._producer_refusal(stream, producer)
            if refused:
                return refused
        return 409 if seq is not None and stream.last_seq is not None and seq <= stream.last_seq else None

    def _is_closing_retry(self, stream: Stream, body: bytes, producer: tuple[str, int, int] | None) -> bool:
        if producer is not None:
            return stream.closed_by == producer
        return not body

    def _producer_refusal(self, stream: Stream, producer: tuple[str, int, int]) -> int | None:
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
    """A live reader that has seen a head and waits for another one."""

    name: StreamName
    seen: Head
    task: asyncio.Task[Head | None]


def shown_by(head: Head | None) -> tuple[object, ...] | None:
    """What a live reader learns from a head."""
    return None if head is None else (head.incarnation, head.tail, head.closed, head.soft_deleted)


class StoreAnswersLikeModel(RuleBasedStateMachine):
    """Every command gets the model's status, and every stream has the model's bytes, restarts or not."""

    kind = "memory"
    limits = STORE_LIMITS

    @initialize()
    def begin(self) -> None:
        """An empty store on a loop of its own."""
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.context: AbstractAsyncContextManager[Any] = RIGS[self.kind](Path(self.folder.name) / "data", self.limits)
        self.rig: Rig = self.runner.run(self.context.__aenter__())
        self.model = Model()
        self.waits = list[Wait]()
        self.looks = list[tuple[StreamName, Head]]()

    def teardown(self) -> None:
        """Close everything."""
        if hasattr(self, "runner"):
            self.stop_waiting()
            self.runner.run(self.context.__aexit__(None, None, None))
            self.runner.close()
            self.folder.cleanup()

    def head(self, name: StreamName) -> Head | None:
        """The head as a client would come to see it."""
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

    def picked(self, pick: int) -> StreamName:
        """A live stream, mostly: what nothing is at has little to tell."""
        live = [name for name in NAMES if isinstance(self.model.find(name), Stream)]
        return live[pick % len(live)] if live and pick else NAMES[pick % len(NAMES)]

    @rule(name=names, pick=picks, body=st.just(b"") | bodies, keep=st.integers(0, 3))
    def fork(self, name: StreamName, pick: int, body: bytes, keep: int) -> None:
        """PUT of a fork at one of the source's batch boundaries."""
        source = self.picked(pick)
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
        """A position of what is at a name."""
        head = self.head(source)
        return Offset(0 if head is None else born_at(head, position), position)

    def put(self, command: Create) -> int:
        """The status of a PUT."""
        clock = self.rig.still.clock()
        fresh = replace(clock, new_incarnation=self.fresh_incarnation)
        try:
            outcome = self.runner.run(create(self.rig.store, fresh, command))
        except RequestError as exc:
            return exc.status
        return create_response(command, outcome, b"").status

    incarnations = 0

    def fresh_incarnation(self) -> Incarnation:
        """A number that no life has had."""
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
    def append(  # noqa: PLR0913  one name for each thing that an append has
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
        name = self.picked(pick)
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
        name = self.picked(pick)
        command = Close(
            name=name,
            producer=ProducerStamp(*producer) if producer else None,
            preconditions=self.preconditions(name, guard),
        )
        outcome = self.runner.run(self.rig.store.apply(name, plan_close(command, self.rig.still.time.now_ms)))
        expected = self.model.append(name, b"", None, producer, closes=True, guard=guard)
        assert append_response(command, outcome).status == expected

    def preconditions(self, name: StreamName, guard: Guard) -> Preconditions:
        """A guard as the request's fields: of the tag that HEAD tells, or of one that it does not."""
        head = self.head(name)
        own = b'"nothing"' if head is None else dict(head_response(head, UNCONDITIONAL).headers)[b"etag"]
        tags = {True: parse_entity_tags("", own), False: parse_entity_tags("", own[:-1] + b'0"')}
        match guard:
            case Guard.NONE:
                return UNCONDITIONAL
            case Guard.MATCHES | Guard.MATCHES_ANOTHER:
                return Preconditions(if_match=tags[guard is Guard.MATCHES])
            case Guard.DIFFERS | Guard.DIFFERS_FROM_ANOTHER:
                return Preconditions(if_none_match=tags[guard is Guard.DIFFERS])

    @rule(pick=picks, guard=guards)
    def delete(self, pick: int, guard: Guard) -> None:
        """DELETE."""
        name = self.picked(pick)
        command = Delete(name, self.preconditions(name, guard))
        commit = plan_delete(self.rig.still.time.now_ms, command.preconditions)
        status = delete_response(command, self.runner.run(self.rig.store.apply(name, commit))).status
        found = self.model.find(name)
        if isinstance(found, Stream):
            assert status == (412 if guard in UNTRUE else 204)
            if guard in UNTRUE:
                return
            self.model.end(name)
        else:
            assert status == found

    @rule(milliseconds=st.sampled_from([1, 1, 50_000, 200_000]))
    def pass_time(self, milliseconds: int) -> None:
        """Some streams may run out; a store that sweeps by itself may do so at any time from then on."""
        self.rig.still.time.advance(milliseconds)
        self.model.now_ms += milliseconds
        if self.kind != "memory":
            for name in NAMES:
                self.sweep(name)

    @rule(name=names)
    def sweep_one(self, name: StreamName) -> None:
        """A sweep comes by."""
        self.sweep(name)

    def sweep(self, name: StreamName) -> None:
        """End a stream that has run out; to a client it is gone already."""
        stream = self.model.streams.get(name)
        now_ms = self.model.now_ms
        self.runner.run(self.rig.store.apply(name, plan_expiry(now_ms)))
        if stream and not stream.hidden and stream.expires_ms is not None and stream.expires_ms <= now_ms:
            self.model.end(name)

    @precondition(lambda self: self.kind != "memory")
    @rule()
    def restart(self) -> None:
        """Whatever was answered is on disk."""
        self.stop_waiting()
        self.runner.run(self.rig.reopen())

    @precondition(lambda self: len(self.waits) < WAITS_MAX)
    @rule(pick=picks, is_late=st.booleans())
    def wait(self, pick: int, *, is_late: bool) -> None:
        """A live reader waits, from what is there now or from what it saw some time ago."""
        if is_late and self.looks:
            name, seen = self.looks[pick % len(self.looks)]
        else:
            name = self.picked(pick)
            head = self.head(name)
            if head is None:
                return
            seen = head
        task = self.runner.get_loop().create_task(self.rig.store.wait(name, seen, WAIT_S))
        self.waits.append(Wait(name, seen, task))

    def stop_waiting(self) -> None:
        """Every live reader goes."""
        for wait in self.waits:
            wait.task.cancel()
        self.runner.run(self.ended([wait.task for wait in self.waits]))
        self.waits.clear()

    async def ended(self, tasks: list[asyncio.Task[Head | None]]) -> None:
        """They are over."""
        await asyncio.gather(*tasks, return_exceptions=True)

    @invariant()
    def waits_agree(self) -> None:
        """Who waits is told as soon as anything differs from what it has seen, and never of what is older."""
        for wait in list(getattr(self, "waits", ())):
            now = self.head(wait.name)
            if shown_by(now) == shown_by(wait.seen):
                self.runner.run(self.rig.let_pass())
                assert not wait.task.done(), "nothing has changed"
                continue
            told = self.runner.run(self.result_of(wait))
            assert shown_by(told) != shown_by(wait.seen)
            if told is not None and told.incarnation == wait.seen.incarnation:
                assert (told.tail, told.closed, told.soft_deleted) >= (wait.seen.tail, wait.seen.closed, False)
            elif told is not None:
                assert told.born_us > wait.seen.born_us
            self.waits.remove(wait)

    async def result_of(self, wait: Wait) -> Head | None:
        """What a wait comes to that must be over by now; another process may look half a second later."""
        return await asyncio.wait_for(wait.task, TOLD_WITHIN_S)

    @rule(pick=picks, byte_count_max=st.integers(1, 100))
    def read(self, pick: int, byte_count_max: int) -> None:
        """GET, page by page, from every batch boundary."""
        name = self.picked(pick)
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
        """What HEAD tells of every name."""
        if not hasattr(self, "rig"):
            return
        for name in NAMES:
            head, found = self.head(name), self.model.find(name)
            life = stream_status(head, self.model.now_ms)
            if isinstance(found, int):
                assert life is (StreamStatus.GONE if found == 410 else StreamStatus.ABSENT)
            else:
                assert life is StreamStatus.EXISTS
                assert head is not None
                assert (head.tail, head.closed) == (len(found.data), found.closed)
                if len(self.looks) < LOOKS_MAX:
                    self.looks.append((name, head))


class SqliteAnswersLikeModel(StoreAnswersLikeModel):
    """The same, of the embedded store."""

    kind = "sqlite"


class DynamoDbAnswersLikeModel(StoreAnswersLikeModel):
    """The same, of the store on AWS's own engine."""

    kind = "dynamodb-local"


class PersistentStore:
    """A store whose caller tries again whenever it is told that nothing was written."""

    def __init__(self, inner: DynamoDbStore, network: Network) -> None:
        """The network is the one between the store and its engine."""
        self.inner, self.network = inner, network

    async def apply(self, name: StreamName, commit: Commit) -> Outcome:
        """Apply in the end; late requests come in meanwhile."""
        while True:
            try:
                return await self.inner.apply(name, commit)
            except StoreUnavailable:
                self.network.deliver_late(1)
            except StoreUncertain:  # a renewal in doubt may be sent again as it is
                assert isinstance(commit, UpdateCommit)
                assert all(isinstance(effect, RenewTtl) for effect in commit.effects)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  all else is the store's
        return getattr(self.inner, name)


class FaultyNetworkAnswersLikeModel(DynamoDbAnswersLikeModel):
    """The same, while requests and answers are lost, come late, or are refused because the engine is busy."""

    limits = IMPATIENT

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int = 0) -> None:
        """A network that was not there when the table was made."""
        super().begin()
        self.network = Network(
            random.Random(seed), request_lost=0.05, request_late=0.08, response_lost=0.08, throttled=0.04
        )
        self.lie_between()

    def lie_between(self) -> None:
        """Put the network between the store and the engine."""
        self.network.attach(self.rig.store)  # type: ignore[arg-type]
        self.rig.store = PersistentStore(self.rig.store, self.network)  # type: ignore[misc, arg-type]

    @rule()
    def restart(self) -> None:
        """Another process goes on, while requests of the one before are still under way."""
        super().restart()
        self.lie_between()

    @rule()
    def deliver_late(self) -> None:
        """What nobody waits for any more comes in."""
        self.network.deliver_late()


over_http = examples(15, stateful_step_count=40, suppress_health_check=list(HealthCheck))
FaultyNetworkAnswersLikeModel.TestCase.settings = over_http
DynamoDbAnswersLikeModel.TestCase.settings = over_http
StoreAnswersLikeModel.TestCase.settings = examples(40)
SqliteAnswersLikeModel.TestCase.settings = examples(15)
TestMemoryStore = luck(StoreAnswersLikeModel.TestCase)
TestSqliteStore = luck(SqliteAnswersLikeModel.TestCase)
TestFaultyNetwork = pytest.mark.slow(luck(FaultyNetworkAnswersLikeModel.TestCase))
TestDynamoDbLocal = pytest.mark.slow(luck(DynamoDbAnswersLikeModel.TestCase))
