"""Planning: a command becomes a commit. Nothing here reads the world; what was looked at is passed in."""

from dataclasses import dataclass

from fluvial.model.command import Append, Close, Create
from fluvial.model.commit import (
    Absent,
    Commit,
    CursorAt,
    DeliveredBefore,
    EpochBeginsAtZero,
    Exists,
    Expired,
    HasMediaType,
    IsEstuary,
    NoGap,
    NotDuplicate,
    NotFenced,
    NotFollowing,
    Open,
    PreconditionsHold,
    Requirement,
    RoomAtTail,
    RoomForProducer,
    RoomForSource,
    SameIncarnation,
    SeqAfter,
    SourceLink,
)
from fluvial.model.content_type import DEFAULT_CONTENT_TYPE, JSON_MEDIA_TYPE, is_json, media_type
from fluvial.model.effect import (
    AddBatch,
    Begin,
    CloseStream,
    Effect,
    End,
    MarkFollowed,
    MoveCursor,
    MoveProducer,
    RenewTtl,
    SetDelivered,
    SetReaderKey,
    SetStreamSeq,
)
from fluvial.model.entity_tag import UNCONDITIONAL, Preconditions
from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.head import (
    EstuaryMode,
    ForkOrigin,
    Head,
    Incarnation,
    ProducerStamp,
    ReaderKey,
    SourcePosition,
    lineage_of_fork,
)
from fluvial.model.json_mode import EmptyArray, message_ends, stored_messages
from fluvial.model.lifetime import SlidingTtl, first_deadline_ms
from fluvial.model.limits import FORK_DEPTH_MAX, POSITION_MAX
from fluvial.model.names import StreamName
from fluvial.model.offset import Sentinel, position_of, source_position

OPEN = Open()
END = End()


def plan_append(append: Append, now_ms: int) -> Commit:
    """Requirements in the protocol's order: closed, content type, producer, `Stream-Seq` (spec 5.2).

    The producer comes before `Stream-Seq`, so that a retry that carries both is told as a duplicate. Preconditions
    come last, after all that would refuse the request without them (docs/decisions/0011).
    """
    requires: list[Requirement] = [
        Exists(now_ms),
        OPEN,
        HasMediaType(media_type(append.content_type)),
    ]
    effects: list[Effect] = [AddBatch(append.data), RenewTtl(now_ms)]
    _plan_writer_state(append.producer, append.stream_seq, requires, effects)
    requires.append(RoomAtTail(len(append.data)))
    requires += _preconditions(append.preconditions)
    if append.closes:
        effects.append(CloseStream(append.producer))
    return Commit(tuple(requires), tuple(effects), producer_id=_producer_id(append.producer))


def plan_close(close: Close, now_ms: int) -> Commit:
    """Close without data: neither a body nor a content type plays a part (spec 5.3)."""
    requires: list[Requirement] = [Exists(now_ms), OPEN]
    effects: list[Effect] = [CloseStream(close.producer), RenewTtl(now_ms)]
    _plan_writer_state(close.producer, close.stream_seq, requires, effects)
    requires += _preconditions(close.preconditions)
    return Commit(tuple(requires), tuple(effects), producer_id=_producer_id(close.producer))


def _preconditions(preconditions: Preconditions) -> tuple[Requirement, ...]:
    return () if preconditions == UNCONDITIONAL else (PreconditionsHold(preconditions),)


def _producer_id(stamp: ProducerStamp | None) -> str | None:
    return None if stamp is None else stamp.producer_id


def _plan_writer_state(
    stamp: ProducerStamp | None,
    stream_seq: str | None,
    requires: list[Requirement],
    effects: list[Effect],
) -> None:
    if stamp is not None:
        requires += (NotFenced(stamp), EpochBeginsAtZero(stamp), NotDuplicate(stamp), NoGap(stamp))
        requires.append(RoomForProducer(stamp.producer_id))
        effects.append(MoveProducer(stamp))
    if stream_seq is not None:
        requires.append(SeqAfter(stream_seq))
        effects.append(SetStreamSeq(stream_seq))


def plan_create(create: Create, incarnation: Incarnation, now_ms: int) -> Commit:
    """A stream that begins empty or with the body as its first batch (spec 5.1).

    Its preconditions are no requirement: what is absent meets every If-None-Match, and no If-Match.
    """
    content_type = create.content_type or DEFAULT_CONTENT_TYPE
    head = Head(
        incarnation=incarnation,
        content_type=content_type,
        born_us=_born_us(now_ms),
        lifetime=create.lifetime,
        live_until_ms=first_deadline_ms(create.lifetime, now_ms),
        is_public=create.is_public,
        reader_key=create.reader_key,
    )
    return Commit((Absent(now_ms),), (Begin(head), *_first_effects(create, content_type)))


def _born_us(now_ms: int) -> int:
    """What a life that begins now is born at; a store puts it after the lives of the name that it knows of."""
    return now_ms * 1_000


def _first_effects(create: Create, content_type: str) -> tuple[Effect, ...]:
    data = stored_messages(create.body, EmptyArray.ALLOWED) if create.body and is_json(content_type) else create.body
    effects: list[Effect] = [AddBatch(data)] if data else []
    if create.closed:
        effects.append(CloseStream(None))
    return tuple(effects)


def fork_anchor(create: Create, source: Head) -> int:
    """The position that `Stream-Fork-Offset` names in the source; RequestError past its tail (spec 4.2)."""
    assert create.fork is not None, "only a fork has an anchor"
    match create.fork.fork_offset:
        case None:
            return source.tail
        case Sentinel.BEGINNING:
            return 0
        case offset:
            anchor = position_of(source, offset)
    if anchor is None:
        message = "Stream-Fork-Offset is of another life of the source, or of a part that it has not inherited"
        raise RequestError(ErrorCode.UNKNOWN_FORK_OFFSET, message)
    if anchor > source.tail:
        raise RequestError(ErrorCode.UNKNOWN_FORK_OFFSET, "Stream-Fork-Offset is past the source's tail")
    return anchor


def fork_position(anchor: int, sub_offset: int, content_type: str, next_batch: bytes) -> int:
    """The position `sub_offset` messages (JSON) or bytes past the anchor, within the batch that begins there.

    RequestError when it names "a position past the next data boundary" (spec 4.2).
    """
    if sub_offset == 0:
        return anchor
    ends = message_ends(next_batch) if is_json(content_type) else range(1, len(next_batch) + 1)
    if sub_offset > len(ends):
        raise RequestError(
            ErrorCode.UNKNOWN_FORK_OFFSET,
            "Stream-Fork-Sub-Offset is past the end of the batch at Stream-Fork-Offset",
        )
    return anchor + ends[sub_offset - 1]


@dataclass(frozen=True, slots=True)
class ForkPosition:
    """Where a fork leaves its source: the anchor that `Stream-Fork-Offset` named, and the position it came to."""

    source: Head
    anchor: int
    position: int


def plan_fork(create: Create, divergence: ForkPosition, incarnation: Incarnation, now_ms: int) -> Commit:
    """A stream that inherits the source's bytes before the divergence; it begins open, with no writer state."""
    assert create.fork is not None, "only a fork has a source"
    source = divergence.source
    depth = 1 if source.forked_from is None else source.forked_from.depth + 1
    if depth > FORK_DEPTH_MAX:
        raise RequestError(ErrorCode.FORK_TOO_DEEP, f"a fork may have up to {FORK_DEPTH_MAX} ancestors", 409)
    lifetime = create.lifetime if create.lifetime is not None else source.lifetime
    head = Head(
        incarnation=incarnation,
        content_type=create.content_type or source.content_type,
        born_us=max(_born_us(now_ms), source.born_us + 1),
        lifetime=lifetime,
        live_until_ms=first_deadline_ms(lifetime, now_ms),
        tail=divergence.position,
        forked_from=ForkOrigin(
            source=create.fork.source,
            incarnation=source.incarnation,
            fork_offset=divergence.anchor,
            sub_offset=create.fork.sub_offset,
            depth=depth,
            inherits_lifetime=create.lifetime is None,
        ),
        lineage=lineage_of_fork(source, divergence.position),
        is_public=create.is_public,
        reader_key=create.reader_key,
    )
    effects = (Begin(head), *_first_effects(create, head.content_type))
    requires: tuple[Requirement, ...] = (Exists(now_ms), SameIncarnation(source.incarnation))
    if create.content_type is not None:
        requires = (*requires, HasMediaType(media_type(create.content_type)))
    return Commit((Absent(now_ms),), effects, source=SourceLink(create.fork.source, requires))


def plan_delete(now_ms: int, preconditions: Preconditions = UNCONDITIONAL) -> Commit:
    """End a stream that a client can see (spec 5.4)."""
    return Commit((Exists(now_ms), *_preconditions(preconditions)), (END,))


def plan_expiry(now_ms: int) -> Commit:
    """End a stream whose deadline has passed."""
    return Commit((Expired(now_ms),), (END,))


def plan_renewal(now_ms: int) -> Commit:
    """Move a sliding deadline because the stream was read (spec 5.1, Stream-TTL)."""
    return Commit((Exists(now_ms),), (RenewTtl(now_ms),))


def plan_reader_key(reader_key: ReaderKey, now_ms: int) -> Commit:
    """Turn a stream's reader key: what caches hold under the former one is not asked for any more."""
    return Commit((Exists(now_ms),), (SetReaderKey(reader_key),))


@dataclass(frozen=True, slots=True)
class Estuary:
    """What an estuary is created as; `content_type` is of raw ones, an envelope is JSON."""

    mode: EstuaryMode
    content_type: str
    ttl_seconds: int
    reader_key: ReaderKey | None = None


def plan_estuary(estuary: Estuary, incarnation: Incarnation, now_ms: int) -> Commit:
    """An empty estuary. Its sliding deadline moves when it is read or touched, not when something flows into it."""
    lifetime = SlidingTtl(estuary.ttl_seconds)
    head = Head(
        incarnation=incarnation,
        content_type=JSON_MEDIA_TYPE if estuary.mode is EstuaryMode.ENVELOPE else estuary.content_type,
        born_us=_born_us(now_ms),
        lifetime=lifetime,
        live_until_ms=first_deadline_ms(lifetime, now_ms),
        estuary=estuary.mode,
        reader_key=estuary.reader_key,
    )
    return Commit((Absent(now_ms),), (Begin(head),))


def plan_mark_followed(source: Head, now_ms: int) -> Commit:
    """Mark a stream as one whose appends are delivered."""
    return Commit((Exists(now_ms), SameIncarnation(source.incarnation)), (MarkFollowed(),))


def plan_follow(name: StreamName, source: Head, mode: EstuaryMode, now_ms: int) -> Commit:
    """Let an estuary follow a source from the source's tail on; a raw one only when their content types agree."""
    requires: list[Requirement] = [Exists(now_ms), IsEstuary(), NotFollowing(name, source.incarnation)]
    requires.append(RoomForSource(name))
    if mode is EstuaryMode.RAW:
        requires.append(HasMediaType(media_type(source.content_type)))
    return Commit(tuple(requires), (MoveCursor(name, source_position(source, source.tail)), RenewTtl(now_ms)))


def plan_unfollow(name: StreamName, now_ms: int) -> Commit:
    """Let an estuary follow a source no more."""
    return Commit((Exists(now_ms), IsEstuary()), (MoveCursor(name, None), RenewTtl(now_ms)))


@dataclass(frozen=True, slots=True)
class Replica:
    """A source's bytes [at, to) as an estuary of this mode keeps them."""

    mode: EstuaryMode
    at: SourcePosition
    to: SourcePosition
    data: bytes


def plan_delivery(name: StreamName, replica: Replica, now_ms: int) -> Commit:
    """Replicate a source's bytes into an estuary, and move the cursor in the same step."""
    requires = (
        Exists(now_ms),
        OPEN,
        IsEstuary(replica.mode),
        CursorAt(name, replica.at),
        RoomAtTail(len(replica.data)),
    )
    return Commit(requires, (AddBatch(replica.data), MoveCursor(name, replica.to)))


def plan_mark_delivered(source: Head) -> Commit:
    """Note that all followers of a stream have everything up to the tail that `source` tells."""
    return Commit((SameIncarnation(source.incarnation), DeliveredBefore(source.tail)), (SetDelivered(source.tail),))


assert POSITION_MAX < 2**63, "a position must fit a database's integer"
