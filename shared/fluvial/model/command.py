"""Commands: what a request asks for, once it is parsed."""

from dataclasses import dataclass

from fluvial.model.entity_tag import UNCONDITIONAL, Preconditions
from fluvial.model.head import ProducerStamp, ReaderKey
from fluvial.model.lifetime import Lifetime
from fluvial.model.names import StreamName
from fluvial.model.offset import Place


@dataclass(frozen=True, slots=True)
class ForkPoint:
    """Where a fork diverges: None means the source's tail; `sub_offset` is in messages or bytes (spec 4.2)."""

    source: StreamName
    fork_offset: Place | None
    sub_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Begin a stream, or confirm one with the same configuration; with `fork`, inherit another's bytes.

    `content_type` is None when the request named none. `body` is the request's, not yet split into messages,
    because a fork may inherit its content type. The reader key is of the life that it begins, if it begins one.
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
    """Add `data` (in its stored form) at the tail; with `closes`, as the stream's last batch."""

    name: StreamName
    content_type: str
    data: bytes
    closes: bool = False
    stream_seq: str | None = None
    producer: ProducerStamp | None = None
    preconditions: Preconditions = UNCONDITIONAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """Close the stream and add nothing."""

    name: StreamName
    stream_seq: str | None = None
    producer: ProducerStamp | None = None
    preconditions: Preconditions = UNCONDITIONAL


@dataclass(frozen=True, slots=True)
class Delete:
    """End the stream's life, or hide it while forks need its bytes."""

    name: StreamName
    preconditions: Preconditions = UNCONDITIONAL
