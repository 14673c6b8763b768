"""Effects: what a commit changes, once all that it requires holds."""

from dataclasses import dataclass

from fluvial.model.head import Head, ProducerStamp, ReaderKey, SourcePosition
from fluvial.model.names import StreamName


@dataclass(frozen=True, slots=True)
class Begin:
    """A new life with this head; what was left of an expired one is dropped."""

    head: Head


@dataclass(frozen=True, slots=True)
class AddBatch:
    """These bytes at the tail, as one batch."""

    data: bytes


@dataclass(frozen=True, slots=True)
class CloseStream:
    """No append after this one; `by` lets its producer's retry be told apart."""

    by: ProducerStamp | None


@dataclass(frozen=True, slots=True)
class MoveProducer:
    """The producer has got as far as this stamp."""

    stamp: ProducerStamp


@dataclass(frozen=True, slots=True)
class SetStreamSeq:
    """The last `Stream-Seq`."""

    stream_seq: str


@dataclass(frozen=True, slots=True)
class RenewTtl:
    """The stream was used at `now_ms`: a sliding deadline moves on, unless it leaves the window already."""

    now_ms: int


@dataclass(frozen=True, slots=True)
class End:
    """The life ends; while forks refer to it, it is only hidden. Sources that nobody needs any more end too."""


@dataclass(frozen=True, slots=True)
class MarkFollowed:
    """From now on the stream is followed; what it has already is nobody's."""


@dataclass(frozen=True, slots=True)
class SetDelivered:
    """All followers have everything up to this position."""

    position: int


@dataclass(frozen=True, slots=True)
class MoveCursor:
    """The estuary has been filled from the source up to here; None: it follows it no more."""

    source: StreamName
    to: SourcePosition | None


@dataclass(frozen=True, slots=True)
class SetReaderKey:
    """Caches keep the stream's pages under this key from now on."""

    reader_key: ReaderKey


Effect = (
    Begin
    | AddBatch
    | CloseStream
    | MoveProducer
    | SetStreamSeq
    | RenewTtl
    | End
    | MarkFollowed
    | SetDelivered
    | MoveCursor
    | SetReaderKey
)
