"""Conditions: each requirement as a clause of a ConditionExpression.

A requirement's meaning is its `holds` in fluvial.model.commit; a property test holds clause and meaning equal.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from fluvial.model.commit import (
    Absent,
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
)
from fluvial.model.entity_tag import AnyTag, StreamState, TagList, states_of
from fluvial.model.limits import POSITION_MAX, PRODUCERS_PER_STREAM_MAX, SOURCES_PER_ESTUARY_MAX
from fluvial.model.names import StreamName
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.expression import Expression
from fluvial.storage.dynamodb.table.format import FORMAT
from fluvial.storage.dynamodb.table.items import encode_cursor, encode_incarnation


def conditions_of(requires: Iterable[Requirement], expression: Expression) -> list[str]:
    """The requirements as clauses that must all hold; a requirement that always holds has no clause."""
    clauses = (CLAUSES[type(requirement)](requirement, expression) for requirement in requires)
    return [clause for clause in clauses if clause]


def is_understood(e: Expression) -> str:
    """The clause that fails for an item of a newer format than this program understands."""
    return f"(attribute_not_exists({e.name(a.FORMAT)}) OR {e.name(a.FORMAT)} <= {e.value(FORMAT)})"


def _stream_exists(requirement: Exists, e: Expression) -> str:
    now = e.value(requirement.now_ms)
    fixed = f"(attribute_not_exists({e.name(a.EXPIRES_AT)}) OR {e.name(a.EXPIRES_AT)} > {now})"
    sliding = f"(attribute_not_exists({e.name(a.WINDOW)}) OR {e.name(a.USED_UNTIL)} > {now})"
    return f"{_exists(e)} AND {_not_soft_deleted(e)} AND {fixed} AND {sliding}"


def _absent(requirement: Absent, e: Expression) -> str:
    references = e.name(a.REFERENCES)
    unreferenced = f"(attribute_not_exists({references}) OR {references} = {e.value(0)})"
    ran_out = f"{_not_soft_deleted(e)} AND {unreferenced} AND {_past(requirement.now_ms, e)}"
    return f"(attribute_not_exists({e.name(a.INCARNATION)}) OR ({ran_out}))"


def _same_incarnation(requirement: SameIncarnation, e: Expression) -> str:
    return f"{e.name(a.INCARNATION)} = {e.value(encode_incarnation(requirement.incarnation))}"


def _expired(requirement: Expired, e: Expression) -> str:
    return f"{_exists(e)} AND {_not_soft_deleted(e)} AND {_past(requirement.now_ms, e)}"


def _open(_requirement: Open, e: Expression) -> str:
    return f"{_exists(e)} AND attribute_not_exists({e.name(a.CLOSED)})"


def _has_media_type(requirement: HasMediaType, e: Expression) -> str:
    return f"{e.name(a.MEDIA_TYPE)} = {e.value(requirement.media_type)}"


def _not_fenced(requirement: NotFenced, e: Expression) -> str:
    state = producer_path(requirement.stamp.producer_id, e)
    return f"(attribute_not_exists({state}) OR {state}[0] <= {e.value(requirement.stamp.epoch)})"


def _epoch_begins_at_zero(requirement: EpochBeginsAtZero, e: Expression) -> str:
    stamp = requirement.stamp
    if stamp.seq == 0:
        return ""
    state = producer_path(stamp.producer_id, e)
    return f"(attribute_not_exists({state}) OR {state}[0] >= {e.value(stamp.epoch)})"


def _not_duplicate(requirement: NotDuplicate, e: Expression) -> str:
    stamp = requirement.stamp
    state = producer_path(stamp.producer_id, e)
    other_epoch = f"{state}[0] <> {e.value(stamp.epoch)}"
    return f"(attribute_not_exists({state}) OR {other_epoch} OR {state}[1] < {e.value(stamp.seq)})"


def _no_gap(requirement: NoGap, e: Expression) -> str:
    stamp = requirement.stamp
    state, epoch = producer_path(stamp.producer_id, e), e.value(stamp.epoch)
    if stamp.seq == 0:
        return f"(attribute_not_exists({state}) OR {state}[0] <> {epoch})"
    return f"({state}[0] = {epoch} AND {state}[1] = {e.value(stamp.seq - 1)})"


def _room_for_producer(requirement: RoomForProducer, e: Expression) -> str:
    state = producer_path(requirement.producer_id, e)
    return f"(attribute_exists({state}) OR {e.name(a.PRODUCER_COUNT)} < {e.value(PRODUCERS_PER_STREAM_MAX)})"


def _seq_after(requirement: SeqAfter, e: Expression) -> str:
    last = e.name(a.STREAM_SEQ)
    return f"{_exists(e)} AND (attribute_not_exists({last}) OR {last} < {e.value(requirement.stream_seq)})"


def _room_at_tail(requirement: RoomAtTail, e: Expression) -> str:
    return f"{e.name(a.TAIL)} <= {e.value(POSITION_MAX - requirement.byte_count)}"


def _preconditions_hold(requirement: PreconditionsHold, e: Expression) -> str:
    clauses = list[str]()
    match requirement.preconditions.if_match:
        case AnyTag():
            clauses.append(_exists(e))
        case TagList() as tags:
            clauses.append(_is_in_one_of(states_of(tags.strong), e))
        case None:
            pass
    match requirement.preconditions.if_none_match:
        case AnyTag():
            clauses.append(f"attribute_not_exists({e.name(a.INCARNATION)})")
        case TagList() as tags:
            clauses.append(f"NOT {_is_in_one_of(states_of(tags.all), e)}")
        case None:
            pass
    return " AND ".join(clauses)


def _is_in_one_of(states: list[StreamState], e: Expression) -> str:
    if not states:
        return f"({e.name(a.TAIL)} < {e.value(0)})"  # never
    clauses = [_is_in(state, e) for state in states]
    return clauses[0] if len(clauses) == 1 else f"({' OR '.join(clauses)})"


def _is_in(state: StreamState, e: Expression) -> str:
    incarnation = f"{e.name(a.INCARNATION)} = {e.value(encode_incarnation(state.incarnation))}"
    closed = f"attribute_{'exists' if state.closed else 'not_exists'}({e.name(a.CLOSED)})"
    return f"({incarnation} AND {e.name(a.TAIL)} = {e.value(state.tail)} AND {closed})"


def _is_estuary(requirement: IsEstuary, e: Expression) -> str:
    mode = e.name(a.ESTUARY)
    return f"attribute_exists({mode})" if requirement.mode is None else f"{mode} = {e.value(requirement.mode.value)}"


def _not_following(requirement: NotFollowing, e: Expression) -> str:
    cursor, incarnation = cursor_path(requirement.source, e), e.value(encode_incarnation(requirement.incarnation))
    return f"{_exists(e)} AND (attribute_not_exists({cursor}) OR {cursor}[0] <> {incarnation})"


def _room_for_source(requirement: RoomForSource, e: Expression) -> str:
    count, cursor = f"size({e.name(a.CURSORS)})", cursor_path(requirement.source, e)
    has_room = f"(attribute_not_exists({e.name(a.CURSORS)}) OR {count} < {e.value(SOURCES_PER_ESTUARY_MAX)})"
    return f"{_exists(e)} AND (attribute_exists({cursor}) OR {has_room})"


def _cursor_at(requirement: CursorAt, e: Expression) -> str:
    return f"{cursor_path(requirement.source, e)} = {e.value(encode_cursor(requirement.at))}"


def _delivered_before(requirement: DeliveredBefore, e: Expression) -> str:
    return f"{e.name(a.DELIVERED)} < {e.value(requirement.position)}"


def cursor_path(source: StreamName, e: Expression) -> str:
    """The path of a source's entry in an estuary's head."""
    return f"{e.name(a.CURSORS)}.{e.name(source)}"


def producer_path(producer_id: str, e: Expression) -> str:
    """The path of a producer's entry in the head."""
    return f"{e.name(a.PRODUCERS)}.{e.name(producer_id)}"


def _exists(e: Expression) -> str:
    return f"attribute_exists({e.name(a.INCARNATION)})"


def _not_soft_deleted(e: Expression) -> str:
    return f"attribute_not_exists({e.name(a.SOFT_DELETED)})"


def _past(now_ms: int, e: Expression) -> str:
    """The deadline has passed. A comparison with a missing attribute is false."""
    now = e.value(now_ms)
    sliding = f"attribute_exists({e.name(a.WINDOW)}) AND {e.name(a.USED_UNTIL)} <= {now}"
    return f"({e.name(a.EXPIRES_AT)} <= {now} OR ({sliding}))"


Clause = Callable[[Any, Expression], str]

CLAUSES: Final[Mapping[type[Requirement], Clause]] = {
    Exists: _stream_exists,
    Absent: _absent,
    SameIncarnation: _same_incarnation,
    Expired: _expired,
    Open: _open,
    HasMediaType: _has_media_type,
    NotFenced: _not_fenced,
    EpochBeginsAtZero: _epoch_begins_at_zero,
    NotDuplicate: _not_duplicate,
    NoGap: _no_gap,
    RoomForProducer: _room_for_producer,
    SeqAfter: _seq_after,
    RoomAtTail: _room_at_tail,
    PreconditionsHold: _preconditions_hold,
    IsEstuary: _is_estuary,
    NotFollowing: _not_following,
    RoomForSource: _room_for_source,
    CursorAt: _cursor_at,
    DeliveredBefore: _delivered_before,
}
