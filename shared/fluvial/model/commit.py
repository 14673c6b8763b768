"""Commits: what must hold on a stream's head, and what changes when all of it does.

The order of the requirements is the order in which the protocol wants a refusal told (spec 5.2, Error
Precedence). `first_unmet` is their one meaning; a store may check them in any way that agrees with it.
"""

from dataclasses import dataclass
from typing import Final, NewType

from fluvial.model.content_type import media_type
from fluvial.model.effect import Effect
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

#: What one commit's batch is known by, where a store may have to find out whether it landed: random bytes.
CommitId = NewType("CommitId", bytes)

COMMIT_ID_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Exists:
    """The stream exists and has neither expired nor been deleted."""

    now_ms: int

    def holds(self, head: Head | None) -> bool:
        """True for a stream that a client can see."""
        return stream_status(head, self.now_ms) is StreamStatus.LIVE


@dataclass(frozen=True, slots=True)
class Absent:
    """Nothing is at the name, or only a life that has run out and that no fork needs."""

    now_ms: int

    def holds(self, head: Head | None) -> bool:
        """True where a stream may begin."""
        return stream_status(head, self.now_ms) is StreamStatus.ABSENT


@dataclass(frozen=True, slots=True)
class SameIncarnation:
    """The stream is still in the life that was looked at before."""

    incarnation: Incarnation

    def holds(self, head: Head | None) -> bool:
        """False when the name was deleted and created anew meanwhile."""
        return head is not None and head.incarnation == self.incarnation


@dataclass(frozen=True, slots=True)
class Expired:
    """The stream's deadline has passed and nobody has ended its life yet."""

    now_ms: int

    def holds(self, head: Head | None) -> bool:
        """True for what a sweep may collect."""
        if head is None or head.soft_deleted or head.live_until_ms is None:
            return False
        return head.live_until_ms <= self.now_ms


@dataclass(frozen=True, slots=True)
class Open:
    """The stream takes appends."""

    def holds(self, head: Head | None) -> bool:
        """False once closed, for ever."""
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
    """No later epoch of the producer has been seen."""

    stamp: ProducerStamp

    def holds(self, head: Head | None) -> bool:
        """False for a zombie (spec 5.2.1)."""
        known = _state_of(self.stamp, head)
        return known is None or known.epoch <= self.stamp.epoch


@dataclass(frozen=True, slots=True)
class EpochBeginsAtZero:
    """A producer's later epoch begins with seq 0."""

    stamp: ProducerStamp

    def holds(self, head: Head | None) -> bool:
        """Says nothing of a producer's first epoch: there a wrong seq is a gap."""
        known = _state_of(self.stamp, head)
        return known is None or known.epoch >= self.stamp.epoch or self.stamp.seq == 0


@dataclass(frozen=True, slots=True)
class NotDuplicate:
    """The producer's batch has not been accepted before; a refusal is rendered as success."""

    stamp: ProducerStamp

    def holds(self, head: Head | None) -> bool:
        """False for a retry of what has landed."""
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
        """True for the first one."""
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
        """Asked of a stream's own tag; where nothing is, If-Match never holds and If-None-Match always does."""
        return self.preconditions.hold(None if head is None else stream_etag(head))


@dataclass(frozen=True, slots=True)
class IsEstuary:
    """Other streams may flow into the stream; with a mode, only in that way."""

    mode: EstuaryMode | None = None

    def holds(self, head: Head | None) -> bool:
        """True for what was created as such an estuary."""
        return head is not None and head.estuary is not None and self.mode in {None, head.estuary}


@dataclass(frozen=True, slots=True)
class NotFollowing:
    """The estuary does not follow this life of the source yet."""

    source: StreamName
    incarnation: Incarnation

    def holds(self, head: Head | None) -> bool:
        """True also when it follows a former life of the source's name."""
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
    """The estuary has been filled from the source exactly so far."""

    source: StreamName
    at: SourcePosition

    def holds(self, head: Head | None) -> bool:
        """False when another delivery has been faster, or the source is not followed any more."""
        return head is not None and head.cursors.get(self.source) == self.at


@dataclass(frozen=True, slots=True)
class DeliveredBefore:
    """The stream's followers were not known to have everything up to this position."""

    position: int

    def holds(self, head: Head | None) -> bool:
        """False for old news."""
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
    """A fork's source: it must meet these requirements, and it is referred to once more."""

    name: StreamName
    requires: tuple[Requirement, ...]


@dataclass(frozen=True, slots=True)
class Commit:
    """Ordered requirements and effects on one stream, and on a fork's source: applied whole or not at all."""

    requires: tuple[Requirement, ...]
    effects: tuple[Effect, ...]
    source: SourceLink | None = None
    producer_id: str | None = None  # whose state the head must hold when the requirements are checked


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
