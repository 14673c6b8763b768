"""Commands: parsed requests that change a stream."""

from dataclasses import dataclass

from fluvial.model.entity_tag import UNCONDITIONAL, Preconditions
from fluvial.model.head import ProducerStamp, ReaderKey
from fluvial.model.lifetime import Lifetime
from fluvial.model.names import StreamName
from fluvial.model.offset import TokenOffset


@dataclass(frozen=True, slots=True)
class ForkPoint:
    """Where a fork diverges: None means the source's tail; `sub_offset` is in messages or bytes (spec 4.2)."""

    source: StreamName
    fork_offset: TokenOffset | None
    sub_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Create a stream, or confirm one with the same configuration; with `fork`, inherit another stream's bytes.

    `content_type` is None when the request named none. `body` is not yet split into messages, because a fork may
    inherit its content type. `reader_key` is for a new incarnation; an existing stream keeps its own.
    """

    name: StreamName
    content_type: str | None
    body: bytes = b""
    lifetime: Lifetime = None
    closed: bool = False
    fork: ForkPoint | None = None
    is_public: bool = False
    reader_key: ReaderKey | None = None
    preconditions: Preconditions = UNCONDITIONAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """Append a batch, `data` in its stored form; with `closes` it is the stream's last one."""

    name: StreamName
    content_type: str
    data: bytes
    closes: bool = False
    stream_seq: str | None = None
    producer: ProducerStamp | None = None
    preconditions: Preconditions = UNCONDITIONAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """Close the stream without appending."""

    name: StreamName
    stream_seq: str | None = None
    producer: ProducerStamp | None = None
    preconditions: Preconditions = UNCONDITIONAL


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the stream; it is kept, hidden, while forks need its bytes."""

    name: StreamName
    preconditions: Preconditions = UNCONDITIONAL
