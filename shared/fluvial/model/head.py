"""A stream's head: the one value on which every change to the stream is conditioned."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Final, NewType

import msgspec

from fluvial.model.lifetime import Lifetime
from fluvial.model.names import StreamName

#: Which life of a name this is: a random 63-bit number, new for each creation.
Incarnation = NewType("Incarnation", int)

INCARNATION_BITS: Final = 63

#: What a cache may keep a life's pages under: random, and new when it is turned (docs/security.md).
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
    """The last append that was accepted from a producer."""

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
    """Where a fork comes from: its source's life, and what was asked for (spec 4.2).

    `depth` counts its ancestors; `inherits_lifetime` tells that the request named no lifetime of its own.
    """

    source: StreamName
    incarnation: Incarnation
    fork_offset: int
    sub_offset: int
    depth: int
    inherits_lifetime: bool


class EstuaryMode(StrEnum):
    """How an estuary keeps what flows into it."""

    RAW = "raw"  # the sources' bytes, which are all of the estuary's content type
    ENVELOPE = "envelope"  # one JSON message for each message of a source, which says where it comes from


@dataclass(frozen=True, slots=True)
class SourcePosition:
    """How far into one life of a source an estuary has been filled; `born_us` is the first half of its token."""

    incarnation: Incarnation
    position: int
    born_us: int = 0


class StreamStatus(Enum):
    """What a client sees of a name."""

    ABSENT = auto()
    EXISTS = auto()
    GONE = auto()  # deleted or expired, kept for its forks: 410, and the path is taken


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """One life of one stream, without its bytes.

    A struct rather than a dataclass: every append makes one, and a struct is copied in a tenth of the time.

    `born_us` is the first half of the life's offset tokens: when the life began, in microseconds since 1970, and more
    than that of every earlier life of the name and of every ancestor; 0 for a life that began before tokens had it.
    `tail` is the position after the last byte; what lies before `own_start` belongs to the ancestors in
    `lineage`. `producers` holds at least the producers that the commit at hand names, `producer_count` counts all.
    An `estuary` is a stream that others flow into, `cursors` tells how far each has come. `delivered` is None for a
    stream that nobody follows, else the position up to which all its followers have everything. A public stream is
    read without a token, also in a project that is not public.
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

    @property
    def own_start(self) -> int:
        """Where the bytes begin that are stored with this stream itself."""
        return self.lineage[-1].end if self.lineage else 0


def stream_status(head: Head | None, now_ms: int) -> StreamStatus:
    """What the name is to a client at `now_ms`; an expired stream is absent, or gone while it has forks."""
    if head is None:
        return StreamStatus.ABSENT
    if head.soft_deleted:
        return StreamStatus.GONE
    if head.live_until_ms is not None and head.live_until_ms <= now_ms:
        return StreamStatus.GONE if head.references else StreamStatus.ABSENT
    return StreamStatus.EXISTS


def born_after(head: Head, born_us: int) -> Head:
    """The head of a life that begins, born later than another one, whatever the clock of this process says."""
    return head if head.born_us > born_us else msgspec.structs.replace(head, born_us=born_us + 1)


def spans_of(head: Head) -> tuple[Span, ...]:
    """All of a stream's bytes in order: its ancestors' spans, then its own."""
    return (*head.lineage, Span(head.incarnation, head.own_start, head.tail, head.born_us))


def lineage_of_fork(source: Head, position: int) -> tuple[Span, ...]:
    """The lineage of a fork that diverges from `source` at `position`.

    No span is empty but perhaps the first one, to which the token of position 0 belongs.
    """
    first, *others = (
        Span(span.incarnation, span.start, min(span.end, position), span.born_us) for span in spans_of(source)
    )
    return (first, *(span for span in others if span.start < span.end))
