"""Updates: the effects of a commit as one UpdateItem on the head item."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeGuard

from fluvial.model.commit import EpochBeginsAtZero, NoGap, NotDuplicate, NotFenced, RoomForProducer, UpdateCommit
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
from fluvial.model.head import Head, ProducerState
from fluvial.model.lifetime import SlidingTtl
from fluvial.model.names import StreamName
from fluvial.model.transition import renewed_deadline_ms
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.expression import Expression, Request
from fluvial.storage.dynamodb.table.format import FORMAT
from fluvial.storage.dynamodb.table.items import (
    Placement,
    StoredBatch,
    encode_batch,
    encode_closed,
    encode_cursor,
    encode_incarnation,
    encode_producer,
)
from fluvial.storage.dynamodb.table.keys import Value, head_key
from fluvial.storage.dynamodb.writes.conditions import conditions_of, cursor_path, is_understood, producer_path

#: Batches that the head may hold: each is up to INLINE_BYTES_MAX long, so the item stays below a third of its 400 KB,
#: and a hundred writers at once need not wait for the spill that one of them has begun.
BUFFER_BATCHES_MAX: Final = 256

#: Producers that a single append leaves in the head: as many as write at the same time; each takes some 45 bytes of the
#: head. A group may leave more (fluvial.storage.dynamodb.writes.group_plan).
HEAD_PRODUCERS_MAX: Final = 16


def guarded_update(name: StreamName, expression: Expression, clauses: Iterable[str], update: str) -> Request:
    """An UpdateItem under a condition; it returns the new item, or the present one when the condition fails."""
    return {
        "Key": head_key(name),
        "UpdateExpression": update,
        "ConditionExpression": " AND ".join([*clauses, is_understood(expression)]),
        "ReturnValues": "ALL_NEW",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        **expression.parameters(),
    }


@dataclass(frozen=True, slots=True)
class EvictedProducer:
    """A producer that the head lacks: its state outside the head, valid as long as `evictions` stays the same."""

    evictions: int
    state: ProducerState | None


_OF_PRODUCER: Final = (NotFenced, EpochBeginsAtZero, NotDuplicate, NoGap, RoomForProducer)


@dataclass(frozen=True, slots=True)
class Guesses:
    """A request's assumptions about the head. Its condition checks them; a failed condition returns the true head."""

    fence: int
    seen: Head | None = None
    producer: EvictedProducer | None = None


def commit_update(name: StreamName, commit: UpdateCommit, batch: StoredBatch | None, guesses: Guesses) -> Request:
    """The one UpdateItem that is an append, a close or a renewal.

    `guesses.producer` is None until the head was seen to lack the producer. A state found outside the head has been
    judged already, and the condition makes sure that it has not changed. `guesses.seen` tells whether a sliding
    deadline must move, because an update cannot compute the later of two moments.
    """
    e, producer = Expression(), guesses.producer
    judged = producer is not None and producer.state is not None
    requires = [one for one in commit.requires if not (judged and isinstance(one, _OF_PRODUCER))]
    clauses = [*conditions_of(requires, e), fence_is(guesses.fence, e)]
    if batch is not None:
        clauses.append(f"size({e.name(a.BUFFER)}) < {e.value(BUFFER_BATCHES_MAX)}")
    if commit.producer_id is not None:
        clauses.append(_has_room_for_producer(commit.producer_id, producer, e))
    sets, used_s = list[str](), next((one.now_ms // 1_000 for one in commit.effects if isinstance(one, RenewTtl)), 0)
    for effect in commit.effects:
        if isinstance(effect, RenewTtl):
            unmoved, moved = renewal(effect, guesses.seen, e)
            clauses, sets = clauses + unmoved, sets + moved
        elif isinstance(effect, MoveProducer):
            sets += _producer_sets(effect, encode_producer(effect.stamp, used_s), e, is_counted=judged)
        else:
            sets += _effect_sets(effect, batch, e)
    removes = [cursor_path(effect.source, e) for effect in commit.effects if _is_removal(effect)]
    if not sets and not removes:
        sets = [f"{e.name(a.TAIL)} = {e.name(a.TAIL)}"]  # nothing has to change, but the requirements are to be checked
    parts = [f"SET {', '.join(sets)}" if sets else "", f"REMOVE {', '.join(removes)}" if removes else ""]
    return guarded_update(name, e, clauses, " ".join(part for part in parts if part))


def renewal(effect: RenewTtl, seen: Head | None, e: Expression) -> tuple[list[str], list[str]]:
    """The clauses and the SETs of a use at a moment. What was seen of a deadline stays true: it only moves on."""
    if seen is None or not isinstance(seen.lifetime, SlidingTtl):
        return [f"attribute_not_exists({e.name(a.WINDOW)})"], []
    clauses = [f"{e.name(a.INCARNATION)} = {e.value(encode_incarnation(seen.incarnation))}"]
    deadline_ms = renewed_deadline_ms(seen, effect.now_ms)
    if deadline_ms is None or deadline_ms == seen.live_until_ms:
        return clauses, []
    deadline, until = e.name(a.USED_UNTIL), e.value(deadline_ms)
    return [*clauses, f"{deadline} < {until}"], [f"{deadline} = {until}"]


def _is_removal(effect: Effect) -> TypeGuard[MoveCursor]:
    return isinstance(effect, MoveCursor) and effect.to is None


def fence_is(fence: int, e: Expression) -> str:
    """The clause that fails for a request that was sent before the fence was raised."""
    return f"{e.name(a.FENCE)} = {e.value(fence)}"


def _has_room_for_producer(producer_id: str, producer: EvictedProducer | None, e: Expression) -> str:
    moved, evictions = e.name(a.EVICTIONS), 0 if producer is None else producer.evictions
    nothing_moved = f"{moved} = {e.value(evictions)}" if evictions else f"attribute_not_exists({moved})"
    has_room = f"size({e.name(a.PRODUCERS)}) < {e.value(HEAD_PRODUCERS_MAX)}"
    path = producer_path(producer_id, e)
    if producer is not None and producer.state is not None:
        return f"(attribute_not_exists({path}) AND {nothing_moved} AND {has_room})"
    return f"(attribute_exists({path}) OR ({nothing_moved} AND {has_room}))"


def _producer_sets(effect: MoveProducer, state: Value, e: Expression, *, is_counted: bool) -> list[str]:
    path = producer_path(effect.stamp.producer_id, e)
    moved = f"{path} = {e.value(state)}"
    if is_counted:
        return [moved]
    count = e.name(a.PRODUCER_COUNT)
    # What is set is computed from the old item: a known producer's third element is 0.
    return [moved, f"{count} = {count} + if_not_exists({path}[2], {e.value(1)})"]


def _effect_sets(effect: Effect, batch: StoredBatch | None, e: Expression) -> list[str]:
    match effect:
        case AddBatch(data, now_ms):
            assert batch is not None, "the batch was stored before"
            buffer, tail = e.name(a.BUFFER), e.name(a.TAIL)
            added = e.value({"L": [{"B": encode_batch(batch)}]})
            return [
                f"{buffer} = list_append({buffer}, {added})",
                f"{tail} = {tail} + {e.value(len(data))}",
                f"{e.name(a.APPENDED_MS)} = {e.value(now_ms)}",
                *format_sets([batch], e),
            ]
        case SetStreamSeq(stream_seq):
            return [f"{e.name(a.STREAM_SEQ)} = {e.value(stream_seq)}"]
        case CloseStream(by):
            return [f"{e.name(a.CLOSED)} = {e.value(encode_closed(by))}"]
        case SetReaderKey(reader_key):
            return [f"{e.name(a.READER_KEY)} = {e.value(reader_key)}"]
        case MarkFollowed() | SetDelivered() | MoveCursor():
            return _following_sets(effect, e)
        case RenewTtl() | MoveProducer():
            raise AssertionError("the caller encodes these effects: they need more than the batch")


def format_sets(added: Iterable[StoredBatch], e: Expression) -> list[str]:
    """Raise the head's format when it gets a batch that an older release could not find (see `table.format`)."""
    is_newer = any(batch.placement in (Placement.ITEM, Placement.GROUP) for batch in added)
    return [f"{e.name(a.FORMAT)} = {e.value(FORMAT)}"] if is_newer else []


def _following_sets(effect: MarkFollowed | SetDelivered | MoveCursor, e: Expression) -> list[str]:
    match effect:
        case MarkFollowed():
            delivered = e.name(a.DELIVERED)
            return [f"{delivered} = if_not_exists({delivered}, {e.name(a.TAIL)})"]
        case SetDelivered(position):
            return [f"{e.name(a.DELIVERED)} = {e.value(position)}"]
        case MoveCursor(source, to):
            return [] if to is None else [f"{cursor_path(source, e)} = {e.value(encode_cursor(to))}"]
