"""What a commit does to the heads it touches: the whole of a store's work but the storing.

A store that can see every head evaluates commits with `transition`; one that cannot (DynamoDB) has its
database do the same piece by piece.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from fluvial.model.commit import Applied, Commit, Unmet, first_unmet
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
from fluvial.model.head import Head, Incarnation, ProducerStamp, ProducerState, born_after
from fluvial.model.lifetime import SlidingTtl
from fluvial.model.names import StreamName

HeadOf = Callable[[StreamName], Head | None]


@dataclass(frozen=True, slots=True)
class Batch:
    """Bytes [start, end) of a life that one commit adds."""

    incarnation: Incarnation
    start: int
    end: int
    data: bytes


@dataclass(slots=True)
class Transition:
    """The new heads by name (None: nothing is at the name any more), the new batch, and the ended lives."""

    heads: dict[StreamName, Head | None] = field(default_factory=dict)
    batch: Batch | None = None
    dropped: list[Incarnation] = field(default_factory=list)


def transition(
    name: StreamName, commit: Commit, head_of: HeadOf, newest_born_us: int = 0
) -> tuple[Transition, Applied] | Unmet:
    """What the commit changes, judged on the heads that `head_of` tells, or what forbids it.

    A life that begins is born after `newest_born_us`, so that its offset tokens sort after those of earlier lives.
    """
    head = head_of(name)
    unmet = first_unmet(commit.requires, head)
    if unmet is not None:
        return Unmet(unmet, head)
    change = Transition()
    if commit.source is not None:
        source = head_of(commit.source.name)
        unmet = first_unmet(commit.source.requires, source)
        if unmet is not None:
            return Unmet(unmet, source)
        assert source is not None, "a source's requirements include that it exists"
        change.heads[commit.source.name] = replace(source, references=source.references + 1)
    head = _take_effect(name, head, _with_birth(commit.effects, newest_born_us), head_of, change)
    change.heads[name] = head
    return change, Applied(head)


def _with_birth(effects: tuple[Effect, ...], newest_born_us: int) -> tuple[Effect, ...]:
    match effects:
        case (Begin(head), *others):
            return (Begin(born_after(head, newest_born_us)), *others)
        case _:
            return effects


def _take_effect(
    name: StreamName,
    head: Head | None,
    effects: tuple[Effect, ...],
    head_of: HeadOf,
    change: Transition,
) -> Head | None:
    """The head after the effects; what they do besides goes into `change`."""
    for effect in effects:
        match effect:
            case Begin(first_head):
                if head is not None:
                    _end_life(name, head, head_of, change)
                head = first_head
            case End():
                assert head is not None, "only a stream that exists can end"
                _end_life(name, head, head_of, change)
                return change.heads[name]
            case AddBatch(data):
                assert head is not None, "only a stream that exists takes a batch"
                change.batch = Batch(head.incarnation, head.tail, head.tail + len(data), data)
            case _:
                pass
    assert head is not None, "only a stream that exists can change"
    return replace(head, **_changed_fields(head, effects))


def _changed_fields(head: Head, effects: tuple[Effect, ...]) -> dict[str, Any]:
    """The fields of a head that the effects set, so that one copy serves them all."""
    fields: dict[str, Any] = {}
    for effect in effects:
        match effect:
            case AddBatch(data):
                fields["tail"] = head.tail + len(data)
            case RenewTtl(now_ms):
                fields["live_until_ms"] = renewed_deadline_ms(head, now_ms)
            case MoveProducer(stamp):
                is_new = stamp.producer_id not in head.producers
                fields["producers"] = _with_latest(head.producers, stamp)
                fields["producer_count"] = head.producer_count + is_new
            case SetStreamSeq(stream_seq):
                fields["stream_seq"] = stream_seq
            case CloseStream(by):
                fields["closed"], fields["closed_by"] = True, by
            case MarkFollowed() | SetDelivered() | MoveCursor() | SetReaderKey():
                fields |= _fields_set_seldom(head, effect)
            case Begin() | End():
                pass
    return fields


def renewed_deadline_ms(head: Head, now_ms: int) -> int | None:
    """A head's deadline once its stream was used at a moment: a sliding one moves when it must, and never back.

    It must when it no longer leaves the whole window; a use that comes late, or by a slower clock, moves nothing.
    """
    deadline_ms = head.live_until_ms
    if not isinstance(head.lifetime, SlidingTtl) or deadline_ms is None:
        return deadline_ms
    return head.lifetime.deadline_ms(now_ms) if head.lifetime.is_due(deadline_ms, now_ms) else deadline_ms


def _with_latest(producers: Mapping[str, ProducerState], stamp: ProducerStamp) -> dict[str, ProducerState]:
    """The producers with one that has just written as the last: a store that keeps a few keeps the last ones."""
    moved = dict(producers)
    moved.pop(stamp.producer_id, None)
    moved[stamp.producer_id] = ProducerState(stamp.epoch, stamp.seq)
    return moved


def _fields_set_seldom(head: Head, effect: MarkFollowed | SetDelivered | MoveCursor | SetReaderKey) -> dict[str, Any]:
    match effect:
        case MarkFollowed():
            return {"delivered": head.tail if head.delivered is None else head.delivered}
        case SetDelivered(position):
            return {"delivered": position}
        case SetReaderKey(reader_key):
            return {"reader_key": reader_key}
        case MoveCursor(source, to):
            others = {name: cursor for name, cursor in head.cursors.items() if name != source}
            return {"cursors": others if to is None else {**others, source: to}}


def _end_life(name: StreamName, head: Head, head_of: HeadOf, change: Transition) -> None:
    """End a life, or hide it while forks need it; then release its source, which may end in turn."""
    if head.references:
        change.heads[name] = replace(head, soft_deleted=True)
        return
    ending: Head | None = head
    while ending is not None:
        change.heads[name] = None
        change.dropped.append(ending.incarnation)
        origin, ending = ending.forked_from, None
        if origin is None:
            return
        # "Garbage collection cascades [...] up the fork chain." -- spec 4.2
        name = origin.source
        source = change.heads[name] if name in change.heads else head_of(name)
        if source is None or source.incarnation != origin.incarnation:
            return
        released = replace(source, references=source.references - 1)
        change.heads[name] = released
        if released.soft_deleted and not released.references:
            ending = released
