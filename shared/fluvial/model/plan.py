"""Planning: a command becomes a commit.

Pure functions: the time and the heads that were loaded are arguments. The order of the requirements is the order in
which the protocol reports failures.
"""

from dataclasses import dataclass

from fluvial.model.command import Append, Close, Create
from fluvial.model.commit import (
    CreateCommit,
    CursorAt,
    DeleteCommit,
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
    UpdateCommit,
)
from fluvial.model.content_type import DEFAULT_CONTENT_TYPE, JSON_MEDIA_TYPE, is_json, media_type
from fluvial.model.effect import (
    AddBatch,
    CloseStream,
    Effect,
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
from fluvial.model.offset import ReservedOffset, position_of, source_position

OPEN = Open()


def plan_write(command: Append | Close, now_ms: int) -> UpdateCommit:
    """Plan an append or a close."""
    return plan_append(command, now_ms) if isinstance(command, Append) else plan_close(command, now_ms)


def plan_append(append: Append, now_ms: int) -> UpdateCommit:
    """Plan an append. The protocol's order of failures: closed, content type, producer, `Stream-Seq` (spec 5.2).

    The producer comes before `Stream-Seq`, so that a retry that carries both is recognised as a duplicate.
    Preconditions come last: a request that fails without them fails in the same way with them (docs/decisions/0011).
    """
    requires: list[Requirement] = [
        Exists(now_ms),
        OPEN,
        HasMediaType(media_type(append.content_type)),
    ]
    effects: list[Effect] = [AddBatch(append.data, now_ms), RenewTtl(now_ms)]
    _plan_writer_state(append.producer, append.stream_seq, requires, effects)
    requires.append(RoomAtTail(len(append.data)))
    requires += _preconditions(append.preconditions)
    if append.closes:
        effects.append(CloseStream(append.producer))
    return UpdateCommit(tuple(requires), tuple(effects))


def plan_close(close: Close, now_ms: int) -> UpdateCommit:
    """Plan a close without data: the content type plays no part (spec 5.3)."""
    requires: list[Requirement] = [Exists(now_ms), OPEN]
    effects: list[Effect] = [CloseStream(close.producer), RenewTtl(now_ms)]
    _plan_writer_state(close.producer, close.stream_seq, requires, effects)
    requires += _preconditions(close.preconditions)
    return UpdateCommit(tuple(requires), tuple(effects))


def _preconditions(preconditions: Preconditions) -> tuple[Requirement, ...]:
    return () if preconditions == UNCONDITIONAL else (PreconditionsHold(preconditions),)


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


def plan_create(create: Create, incarnation: Incarnation, now_ms: int) -> CreateCommit:
    """Plan a stream that begins empty or with the body as its first batch (spec 5.1).

    Its preconditions are no requirement: an absent stream meets every If-None-Match and no If-Match.
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
    return CreateCommit(now_ms=now_ms, head=head, data=_first_batch(create, content_type), closes=create.closed)


def _born_us(now_ms: int) -> int:
    """The birth of an incarnation that is created now; a store raises it above earlier incarnations of the name."""
    return now_ms * 1_000


def _first_batch(create: Create, content_type: str) -> bytes | None:
    data = stored_messages(create.body, EmptyArray.ALLOWED) if create.body and is_json(content_type) else create.body
    return data or None


def fork_offset_position(create: Create, source: Head) -> int:
    """The position that `Stream-Fork-Offset` names in the source. Raises RequestError past its tail (spec 4.2)."""
    assert create.fork is not None, "only a fork has a fork offset"
    match create.fork.fork_offset:
        case None:
            return source.tail
        case ReservedOffset.BEGINNING:
            return 0
        case offset:
            position = position_of(source, offset)
    if position is None:
        message = "Stream-Fork-Offset is of another incarnation of the source, or of a part that it has not inherited"
        raise RequestError(ErrorCode.UNKNOWN_FORK_OFFSET, message)
    if position > source.tail:
        raise RequestError(ErrorCode.UNKNOWN_FORK_OFFSET, "Stream-Fork-Offset is past the source's tail")
    return position


def sub_offset_position(fork_offset: int, sub_offset: int, content_type: str, next_batch: bytes) -> int:
    """The position `sub_offset` messages (JSON) or bytes past the fork offset, within the batch that begins there.

    Raises RequestError when it names "a position past the next data boundary" (spec 4.2).
    """
    if sub_offset == 0:
        return fork_offset
    ends = message_ends(next_batch) if is_json(content_type) else range(1, len(next_batch) + 1)
    if sub_offset > len(ends):
        raise RequestError(
            ErrorCode.UNKNOWN_FORK_OFFSET,
            "Stream-Fork-Sub-Offset is past the end of the batch at Stream-Fork-Offset",
        )
    return fork_offset + ends[sub_offset - 1]


@dataclass(frozen=True, slots=True)
class ForkPosition:
    """Where a fork leaves its source: at `Stream-Fork-Offset`, and at `position` once the sub-offset is added."""

    source: Head
    fork_offset: int
    position: int


def plan_fork(create: Create, at: ForkPosition, incarnation: Incarnation, now_ms: int) -> CreateCommit:
    """Plan a stream that inherits the source's bytes before a position; it begins open, with no writer state."""
    assert create.fork is not None, "only a fork has a source"
    source = at.source
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
        tail=at.position,
        forked_from=ForkOrigin(
            source=create.fork.source,
            incarnation=source.incarnation,
            fork_offset=at.fork_offset,
            sub_offset=create.fork.sub_offset,
            depth=depth,
            inherits_lifetime=create.lifetime is None,
        ),
        lineage=lineage_of_fork(source, at.position),
        is_public=create.is_public,
        reader_key=create.reader_key,
    )
    requires: tuple[Requirement, ...] = (Exists(now_ms), SameIncarnation(source.incarnation))
    if create.content_type is not None:
        requires = (*requires, HasMediaType(media_type(create.content_type)))
    return CreateCommit(
        now_ms=now_ms,
        head=head,
        data=_first_batch(create, head.content_type),
        closes=create.closed,
        source=SourceLink(create.fork.source, requires),
    )


def plan_delete(now_ms: int, preconditions: Preconditions = UNCONDITIONAL) -> DeleteCommit:
    """Plan the deletion of a stream that a client can see (spec 5.4)."""
    return DeleteCommit((Exists(now_ms), *_preconditions(preconditions)))


def plan_expiry(now_ms: int) -> DeleteCommit:
    """Plan the removal of a stream whose deadline has passed."""
    return DeleteCommit((Expired(now_ms),))


def plan_renewal(now_ms: int) -> UpdateCommit:
    """Plan to move a sliding deadline because the stream was read (spec 5.1, Stream-TTL)."""
    return UpdateCommit((Exists(now_ms),), (RenewTtl(now_ms),))


def plan_reader_key(reader_key: ReaderKey, now_ms: int) -> UpdateCommit:
    """Plan a new reader key: readers then ask caches under the new key only."""
    return UpdateCommit((Exists(now_ms),), (SetReaderKey(reader_key),))


@dataclass(frozen=True, slots=True)
class Estuary:
    """An estuary's configuration; `content_type` is a raw estuary's, an envelope estuary is JSON."""

    mode: EstuaryMode
    content_type: str
    ttl_seconds: int
    reader_key: ReaderKey | None = None


def plan_estuary(estuary: Estuary, incarnation: Incarnation, now_ms: int) -> CreateCommit:
    """Plan an empty estuary. Its sliding deadline moves when it is read or touched, not when a delivery fills it."""
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
    return CreateCommit(now_ms=now_ms, head=head)


def plan_mark_followed(source: Head, now_ms: int) -> UpdateCommit:
    """Plan to mark a stream as one whose appends are delivered."""
    return UpdateCommit((Exists(now_ms), SameIncarnation(source.incarnation)), (MarkFollowed(),))


def plan_follow(name: StreamName, source: Head, mode: EstuaryMode, now_ms: int) -> UpdateCommit:
    """Plan that an estuary follows a source from its tail on; a raw estuary must have the source's media type."""
    requires: list[Requirement] = [Exists(now_ms), IsEstuary(), NotFollowing(name, source.incarnation)]
    requires.append(RoomForSource(name))
    if mode is EstuaryMode.RAW:
        requires.append(HasMediaType(media_type(source.content_type)))
    return UpdateCommit(tuple(requires), (MoveCursor(name, source_position(source, source.tail)), RenewTtl(now_ms)))


def plan_unfollow(name: StreamName, now_ms: int) -> UpdateCommit:
    """Plan that an estuary follows a source no longer."""
    return UpdateCommit((Exists(now_ms), IsEstuary()), (MoveCursor(name, None), RenewTtl(now_ms)))


@dataclass(frozen=True, slots=True)
class Replica:
    """A source's bytes [at, to) as an estuary of this mode keeps them."""

    mode: EstuaryMode
    at: SourcePosition
    to: SourcePosition
    data: bytes


def plan_delivery(name: StreamName, replica: Replica, now_ms: int) -> UpdateCommit:
    """Plan to add a source's bytes to an estuary and to move the estuary's cursor in the same step."""
    requires = (
        Exists(now_ms),
        OPEN,
        IsEstuary(replica.mode),
        CursorAt(name, replica.at),
        RoomAtTail(len(replica.data)),
    )
    return UpdateCommit(requires, (AddBatch(replica.data, now_ms), MoveCursor(name, replica.to)))


def plan_mark_delivered(source: Head) -> UpdateCommit:
    """Plan to note that all followers of a stream have everything up to `source.tail`."""
    return UpdateCommit(
        (SameIncarnation(source.incarnation), DeliveredBefore(source.tail)), (SetDelivered(source.tail),)
    )


assert POSITION_MAX < 2**63, "a position must fit a database's integer"
