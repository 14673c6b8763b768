"""A stream's head: the state of a stream without its bytes, on which every change of the stream is conditioned."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Final, NewType

import msgspec

from fluvial.model.lifetime import Lifetime
from fluvial.model.names import StreamName

#: Identifies one creation of a stream at a name: a random 63-bit number. A name that is deleted and created again has
#: another incarnation.
Incarnation = NewType("Incarnation", int)

INCARNATION_BITS: Final = 63

#: A part of the URLs whose answers a cache may keep: random, of one incarnation, and rotated on demand
#: (docs/security.md).
ReaderKey = NewType("ReaderKey", str)

READER_KEY_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class ProducerStamp:
    """The `(Producer-Id, Producer-Epoch, Producer-Seq)` of one append (spec 5.2.1)."""

    producer_id: str
    epoch: int
    seq: int


@dataclass(frozen=True, slots=True)
class ProducerState:
    """The epoch and the sequence number of the last append that was accepted from a producer."""

    epoch: int
    seq: int


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes [start, end) of a fork that are stored with an ancestor, and the ancestor's `born_us` (see Head)."""

    incarnation: Incarnation
    start: int
    end: int
    born_us: int = 0


@dataclass(frozen=True, slots=True)
class ForkOrigin:
    """The source of a fork, by its incarnation, and the offsets that the request named (spec 4.2).

    `depth` counts the ancestors; `inherits_lifetime` is true when the request named no lifetime.
    """

    source: StreamName
    incarnation: Incarnation
    fork_offset: int
    sub_offset: int
    depth: int
    inherits_lifetime: bool


class EstuaryMode(StrEnum):
    """How an estuary (a fan-in stream) stores what is delivered to it."""

    RAW = "raw"  # the sources' bytes; all sources have the estuary's content type
    ENVELOPE = "envelope"  # a JSON message for each message of a source, with the source's name and offset


@dataclass(frozen=True, slots=True)
class SourcePosition:
    """The position in an incarnation of a source up to which an estuary has its bytes; see Head for `born_us`."""

    incarnation: Incarnation
    position: int
    born_us: int = 0


class StreamStatus(Enum):
    """The state of a name as clients see it."""

    ABSENT = auto()
    EXISTS = auto()
    GONE = auto()  # deleted or expired, but kept for its forks: 410, and the path cannot be used again


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """One incarnation of a stream, without its bytes.

    A struct rather than a dataclass: every append makes one, and a struct is copied in a tenth of the time.

    `born_us` is the first half of the incarnation's offset tokens: the time of its creation in microseconds since
    1970, raised above that of every earlier incarnation of the name and of every ancestor; 0 for an incarnation that
    was created before tokens had a first half.
    `tail` is the position after the last byte; bytes before `own_start` belong to the ancestors in `lineage`.
    `producers` holds at least the producers that the commit at hand names; `producer_count` counts all.
    `estuary` is None unless the stream is an estuary; `cursors` is how far each of its sources has been delivered.
    `delivered` is None for a stream without followers, else the position up to which all followers have everything.
    A public stream is read without a token, also in a project that is not public.
    `appended_ms` is the time of the last batch, by the clock of the process that added it; None for a stream without a
    batch of its own, and for one to which nothing was added since that time is kept.
    """

    incarnation: Incarnation
    content_type: str
    born_us: int = 0
    lifetime: Lifetime = None
    live_until_ms: int | None = None
    tail: int = 0
    closed: bool = False
    closed_by: ProducerStamp | None = None
    stream_seq: str | None = None
    producers: Mapping[str, ProducerState] = msgspec.field(default_factory=dict)
    producer_count: int = 0
    references: int = 0
    soft_deleted: bool = False
    forked_from: ForkOrigin | None = None
    lineage: tuple[Span, ...] = ()
    estuary: EstuaryMode | None = None
    cursors: Mapping[StreamName, SourcePosition] = msgspec.field(default_factory=dict)
    delivered: int | None = None
    is_public: bool = False
    reader_key: ReaderKey | None = None
    appended_ms: int | None = None

    @property
    def own_start(self) -> int:
        """The position of the first byte that is stored with this stream itself."""
        return self.lineage[-1].end if self.lineage else 0


def stream_status(head: Head | None, now_ms: int) -> StreamStatus:
    """The state of the name at `now_ms`; an expired stream is absent, or gone while it has forks."""
    if head is None:
        return StreamStatus.ABSENT
    if head.soft_deleted:
        return StreamStatus.GONE
    if head.live_until_ms is not None and head.live_until_ms <= now_ms:
        return StreamStatus.GONE if head.references else StreamStatus.ABSENT
    return StreamStatus.EXISTS


def ensure_born_after(head: Head, born_us: int) -> Head:
    """The head of a new incarnation, with a `born_us` above another one even if this process's clock is behind."""
    return head if head.born_us > born_us else msgspec.structs.replace(head, born_us=born_us + 1)


def spans_of(head: Head) -> tuple[Span, ...]:
    """All of a stream's bytes in order: its ancestors' spans, then its own."""
    return (*head.lineage, Span(head.incarnation, head.own_start, head.tail, head.born_us))


def lineage_of_fork(source: Head, position: int) -> tuple[Span, ...]:
    """The lineage of a fork that diverges from `source` at `position`.

    Only the first span may be empty; it is kept because the token of position 0 belongs to it.
    """
    first, *others = (
        Span(span.incarnation, span.start, min(span.end, position), span.born_us) for span in spans_of(source)
    )
    return (first, *(span for span in others if span.start < span.end))
