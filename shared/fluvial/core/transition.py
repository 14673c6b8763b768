"""What a commit does to the heads it touches: the whole of a store's work but the storing.

A store that can see every head evaluates commits with `transition`; one that cannot (DynamoDB) has its
database do the same piece by piece.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from fluvial.core.commit import (
    AddBatch,
    Applied,
    Begin,
    CloseStream,
    Commit,
    Effect,
    End,
    MoveProducer,
    Renew,
    SetStreamSeq,
    Unmet,
    first_unmet,
)
from fluvial.core.head import Head, Incarnation, ProducerState
from fluvial.core.lifetime import SlidingTtl
from fluvial.core.names import StreamName

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


def transition(name: StreamName, commit: Commit, head_of: HeadOf) -> tuple[Transition, Applied] | Unmet:
    """What the commit changes, judged on the heads that `head_of` tells, or what forbids it."""
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
    for effect in commit.effects:
        if isinstance(effect, Begin):
            if head is not None:
                _end_life(name, head, head_of, change)
            head = effect.head
        elif isinstance(effect, End):
            assert head is not None, "only a stream that exists can end"
            _end_life(name, head, head_of, change)
            head = change.heads[name]
        else:
            assert head is not None, "only a stream that exists can change"
            if isinstance(effect, AddBatch):
                end = head.tail + len(effect.data)
                change.batch = Batch(head.incarnation, head.tail, end, effect.data)
            head = _changed(head, effect)
        change.heads[name] = head
    return change, Applied(head)


def _changed(head: Head, effect: Effect) -> Head:
    match effect:
        case AddBatch(data):
            return replace(head, tail=head.tail + len(data))
        case CloseStream(by):
            return replace(head, closed=True, closed_by=by)
        case SetStreamSeq(stream_seq):
            return replace(head, stream_seq=stream_seq)
        case MoveProducer(stamp):
            known = stamp.producer_id in head.producers
            producers = {**head.producers, stamp.producer_id: ProducerState(stamp.epoch, stamp.seq)}
            return replace(head, producers=producers, producer_count=head.producer_count + (not known))
        case Renew(now_ms) if isinstance(head.lifetime, SlidingTtl):
            return replace(head, live_until_ms=head.lifetime.deadline_ms(now_ms))
        case Renew():
            return head
        case Begin() | End():
            raise AssertionError("a life's begin and end are not changes of one head")


def _end_life(name: StreamName, head: Head, head_of: HeadOf, change: Transition) -> None:
    """End a life, or hide it while forks need it; then release its source, which may end in turn."""
    if head.references:
        change.heads[name] = replace(head, soft_deleted=True)
        return
    change.heads[name] = None
    change.dropped.append(head.incarnation)
    if head.origin is None:
        return
    # "Garbage collection cascades [...] up the fork chain." -- spec 4.2
    source_name = head.origin.source
    source = change.heads[source_name] if source_name in change.heads else head_of(source_name)
    if source is None or source.incarnation != head.origin.incarnation:
        return
    released = replace(source, references=source.references - 1)
    if released.soft_deleted and not released.references:
        _end_life(source_name, released, head_of, change)
    else:
        change.heads[source_name] = released
