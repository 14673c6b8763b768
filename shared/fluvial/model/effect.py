"""Effects: the changes that a commit makes to an existing stream, once all its requirements hold."""

from dataclasses import dataclass

from fluvial.model.head import ProducerStamp, ReaderKey, SourcePosition
from fluvial.model.names import StreamName


@dataclass(frozen=True, slots=True)
class AddBatch:
    """Add these bytes at the tail, as one batch, at `now_ms`."""

    data: bytes
    now_ms: int


@dataclass(frozen=True, slots=True)
class CloseStream:
    """Close the stream; `by` is the producer's stamp, by which its retry is recognised as a duplicate."""

    by: ProducerStamp | None


@dataclass(frozen=True, slots=True)
class MoveProducer:
    """Set the producer's last accepted batch to this stamp."""

    stamp: ProducerStamp


@dataclass(frozen=True, slots=True)
class SetStreamSeq:
    """Set the last `Stream-Seq`."""

    stream_seq: str


@dataclass(frozen=True, slots=True)
class RenewTtl:
    """Move a sliding deadline because the stream was used at `now_ms`; one that leaves the whole window stays."""

    now_ms: int


@dataclass(frozen=True, slots=True)
class MarkFollowed:
    """Mark the stream as followed: appends from now on are delivered, earlier ones are not."""


@dataclass(frozen=True, slots=True)
class SetDelivered:
    """Note that all followers have everything up to this position."""

    position: int


@dataclass(frozen=True, slots=True)
class MoveCursor:
    """Set how far the estuary has been filled from a source; None: it follows the source no longer."""

    source: StreamName
    to: SourcePosition | None


@dataclass(frozen=True, slots=True)
class SetReaderKey:
    """Set the key under which caches keep the stream's pages."""

    reader_key: ReaderKey


Effect = (
    AddBatch
    | CloseStream
    | MoveProducer
    | SetStreamSeq
    | RenewTtl
    | MarkFollowed
    | SetDelivered
    | MoveCursor
    | SetReaderKey
)
