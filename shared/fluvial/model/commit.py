"""Commits: requirements on a stream's head, and the change that is made when all of them hold.

Three types, because a store does three different things: `CreateCommit` starts an incarnation where no stream exists,
`UpdateCommit` changes an existing stream, `DeleteCommit` ends it. Rules:

1. A commit is applied whole or not at all.
2. The order of the requirements is the order in which the protocol reports failures (spec 5.2, Error Precedence).
3. `first_unmet` defines what the requirements mean. A store may check them in any way that agrees with it.
"""

from dataclasses import dataclass
from typing import Final, NewType

from msgspec.structs import replace

from fluvial.model.content_type import media_type
from fluvial.model.effect import AddBatch, Effect, MoveProducer
from fluvial.model.entity_tag import Preconditions, stream_etag
from fluvial.model.head import (
    EstuaryMode,
    Head,
    Incarnation,
    ProducerStamp,
    ProducerState,
    SourcePosition,
    StreamStatus,
    stream_status,
)
from fluvial.model.limits import POSITION_MAX, PRODUCERS_PER_STREAM_MAX, SOURCES_PER_ESTUARY_MAX
from fluvial.model.names import StreamName

#: Identifies one commit's batch, so that a store can find out whether a write in doubt landed: random bytes.
CommitId = NewType("CommitId", bytes)

COMMIT_ID_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Exists:
    """The stream exists and has neither expired nor been deleted."""

    now_ms: int

    def holds(self, head: Head | None) -> bool:
        """True for a stream that a client can see."""
        return stream_status(head, self.now_ms) is StreamStatus.EXISTS


@dataclass(frozen=True, slots=True)
class Absent:
    """No stream has the name, or only one that has expired and has no forks."""

    now_ms: int

    def holds(self, head: Head | None) -> bool:
        """True where a stream may be created."""
        return stream_status(head, self.now_ms) is StreamStatus.ABSENT


@dataclass(frozen=True, slots=True)
class SameIncarnation:
    """The stream is still the incarnation that was loaded before."""

    incarnation: Incarnation

    def holds(self, head: Head | None) -> bool:
        """False when the stream was deleted and created again meanwhile."""
        return head is not None and head.incarnation == self.incarnation


@dataclass(frozen=True, slots=True)
class Expired:
    """The stream's deadline has passed, and the stream has not been removed yet."""

    now_ms: int

    def holds(self, head: Head | None) -> bool:
        """True for a stream that garbage collection may remove."""
        if head is None or head.soft_deleted or head.live_until_ms is None:
            return False
        return head.live_until_ms <= self.now_ms


@dataclass(frozen=True, slots=True)
class Open:
    """The stream takes appends."""

    def holds(self, head: Head | None) -> bool:
        """False once the stream is closed, for ever."""
        return head is not None and not head.closed


@dataclass(frozen=True, slots=True)
class HasMediaType:
    """The stream's content type has this media type."""

    media_type: str

    def holds(self, head: Head | None) -> bool:
        """Parameters such as `charset` do not count."""
        return head is not None and media_type(head.content_type) == self.media_type


@dataclass(frozen=True, slots=True)
class NotFenced:
    """No later epoch of the producer has written to the stream."""

    stamp: ProducerStamp

    def holds(self, head: Head | None) -> bool:
        """False for a producer that a later epoch has replaced (spec 5.2.1)."""
        known = _state_of(self.stamp, head)
        return known is None or known.epoch <= self.stamp.epoch


@dataclass(frozen=True, slots=True)
class EpochBeginsAtZero:
    """A producer's later epoch begins with seq 0."""

    stamp: ProducerStamp

    def holds(self, head: Head | None) -> bool:
        """Always true for a producer's first epoch: there a wrong seq is a gap."""
        known = _state_of(self.stamp, head)
        return known is None or known.epoch >= self.stamp.epoch or self.stamp.seq == 0


@dataclass(frozen=True, slots=True)
class NotDuplicate:
    """The producer's batch has not been accepted before; a duplicate is answered as success."""

    stamp: ProducerStamp

    def holds(self, head: Head | None) -> bool:
        """False for a retry of a batch that has landed."""
        known = _state_of(self.stamp, head)
        return known is None or known.epoch != self.stamp.epoch or known.seq < self.stamp.seq


@dataclass(frozen=True, slots=True)
class NoGap:
    """The batch is the producer's next."""

    stamp: ProducerStamp

    def holds(self, head: Head | None) -> bool:
        """True when no earlier batch of the epoch is missing."""
        return self.stamp.seq == expected_seq(self.stamp, head)


@dataclass(frozen=True, slots=True)
class RoomForProducer:
    """The producer is known, or the stream can take one more."""

    producer_id: str

    def holds(self, head: Head | None) -> bool:
        """False for a new producer of a stream that has PRODUCERS_PER_STREAM_MAX."""
        return head is not None and (
            self.producer_id in head.producers or head.producer_count < PRODUCERS_PER_STREAM_MAX
        )


@dataclass(frozen=True, slots=True)
class SeqAfter:
    """`Stream-Seq` is greater than the last one, byte by byte; its scope is the stream (spec 5.2)."""

    stream_seq: str

    def holds(self, head: Head | None) -> bool:
        """True for the stream's first `Stream-Seq`."""
        return head is not None and (head.stream_seq is None or head.stream_seq < self.stream_seq)


@dataclass(frozen=True, slots=True)
class RoomAtTail:
    """The bytes fit below the last position that an offset token can spell."""

    byte_count: int

    def holds(self, head: Head | None) -> bool:
        """False only for a stream of nearly 10 PB."""
        return head is not None and head.tail + self.byte_count <= POSITION_MAX


@dataclass(frozen=True, slots=True)
class PreconditionsHold:
    """The stream is in a state that If-Match and If-None-Match allow (RFC 9110, 13.1)."""

    preconditions: Preconditions

    def holds(self, head: Head | None) -> bool:
        """Compares the stream's entity tag; without a stream If-Match never holds and If-None-Match always does."""
        return self.preconditions.hold(None if head is None else stream_etag(head))


@dataclass(frozen=True, slots=True)
class IsEstuary:
    """The stream is an estuary (a fan-in stream); with `mode`, one of this mode."""

    mode: EstuaryMode | None = None

    def holds(self, head: Head | None) -> bool:
        """True for a stream that was created as such an estuary."""
        return head is not None and head.estuary is not None and self.mode in {None, head.estuary}


@dataclass(frozen=True, slots=True)
class NotFollowing:
    """The estuary does not follow this incarnation of the source yet."""

    source: StreamName
    incarnation: Incarnation

    def holds(self, head: Head | None) -> bool:
        """True also when it follows a former incarnation of the source."""
        if head is None:
            return False
        cursor = head.cursors.get(self.source)
        return cursor is None or cursor.incarnation != self.incarnation


@dataclass(frozen=True, slots=True)
class RoomForSource:
    """The estuary follows the source, or can follow one more."""

    source: StreamName

    def holds(self, head: Head | None) -> bool:
        """False for a new source of an estuary that has SOURCES_PER_ESTUARY_MAX."""
        return head is not None and (self.source in head.cursors or len(head.cursors) < SOURCES_PER_ESTUARY_MAX)


@dataclass(frozen=True, slots=True)
class CursorAt:
    """The estuary has been filled from the source exactly up to this position."""

    source: StreamName
    at: SourcePosition

    def holds(self, head: Head | None) -> bool:
        """False when another delivery was faster, or the estuary follows the source no longer."""
        return head is not None and head.cursors.get(self.source) == self.at


@dataclass(frozen=True, slots=True)
class DeliveredBefore:
    """The head does not say yet that all followers have everything up to this position."""

    position: int

    def holds(self, head: Head | None) -> bool:
        """False when the head already says so, or tells a later position."""
        return head is not None and head.delivered is not None and head.delivered < self.position


Requirement = (
    Exists
    | Absent
    | SameIncarnation
    | Expired
    | Open
    | HasMediaType
    | NotFenced
    | EpochBeginsAtZero
    | NotDuplicate
    | NoGap
    | RoomForProducer
    | SeqAfter
    | RoomAtTail
    | PreconditionsHold
    | IsEstuary
    | NotFollowing
    | RoomForSource
    | CursorAt
    | DeliveredBefore
)


@dataclass(frozen=True, slots=True)
class SourceLink:
    """A fork's source: it must meet these requirements, and gets one more reference."""

    name: StreamName
    requires: tuple[Requirement, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateCommit:
    """Start an incarnation where no stream exists; an expired stream that has the name is removed first.

    `head` is the new incarnation before its first batch, `data` is that batch (None: it begins empty), `closes` closes
    the stream in the same step. A fork names its `source`, which must meet requirements of its own.
    """

    now_ms: int
    head: Head
    data: bytes | None = None
    closes: bool = False
    source: SourceLink | None = None

    @property
    def absent(self) -> Absent:
        """The one requirement on the name."""
        return Absent(self.now_ms)

    @property
    def first_head(self) -> Head:
        """The head once the commit is applied."""
        appended_ms = None if self.data is None else self.now_ms
        tail = self.head.tail + len(self.data or b"")
        return replace(self.head, tail=tail, closed=self.closes, appended_ms=appended_ms)


@dataclass(frozen=True, slots=True)
class UpdateCommit:
    """Change an existing stream: ordered requirements, then effects."""

    requires: tuple[Requirement, ...]
    effects: tuple[Effect, ...]

    @property
    def data(self) -> bytes | None:
        """The bytes of the batch that the commit adds; None when it adds no batch."""
        for effect in self.effects:
            if isinstance(effect, AddBatch):
                return effect.data
        return None

    @property
    def producer_id(self) -> str | None:
        """The producer whose state the head must hold when the requirements are checked."""
        for effect in self.effects:
            if isinstance(effect, MoveProducer):
                return effect.stamp.producer_id
        return None


@dataclass(frozen=True, slots=True)
class DeleteCommit:
    """End an incarnation; while forks refer to it, it is only soft-deleted.

    Ancestors that are soft-deleted and have no other fork end with it.
    """

    requires: tuple[Requirement, ...]


Commit = CreateCommit | UpdateCommit | DeleteCommit


def added_byte_count(commit: Commit) -> int:
    """How many bytes a commit adds to its stream."""
    return 0 if isinstance(commit, DeleteCommit) else len(commit.data or b"")


@dataclass(frozen=True, slots=True)
class Applied:
    """The commit is durable; `head` is the stream's head right after it."""

    head: Head | None


@dataclass(frozen=True, slots=True)
class Unmet:
    """Nothing changed: `requirement` is the first that `head` does not meet."""

    requirement: Requirement
    head: Head | None


Outcome = Applied | Unmet

_NO_EPOCH: Final = -1


def _state_of(stamp: ProducerStamp, head: Head | None) -> ProducerState | None:
    return None if head is None else head.producers.get(stamp.producer_id)


def expected_seq(stamp: ProducerStamp, head: Head | None) -> int:
    """The seq that the producer's next batch must have in the stamp's epoch."""
    known = _state_of(stamp, head)
    known_epoch = _NO_EPOCH if known is None else known.epoch
    return known.seq + 1 if known is not None and known_epoch == stamp.epoch else 0


def first_unmet(requires: tuple[Requirement, ...], head: Head | None) -> Requirement | None:
    """The first requirement that the head does not meet; None when it meets them all."""
    for requirement in requires:
        if not requirement.holds(head):
            return requirement
    return None
