"""Transitions: how a commit changes the heads that it touches.

A store that can load every head (memory, SQLite) evaluates commits with `transition` and writes the result. DynamoDB's
store makes the same changes with conditional writes, piece by piece.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from fluvial.model.commit import Applied, Commit, CreateCommit, DeleteCommit, Unmet, UpdateCommit, first_unmet
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
from fluvial.model.head import Head, Incarnation, ProducerStamp, ProducerState, ensure_born_after
from fluvial.model.lifetime import SlidingTtl
from fluvial.model.names import StreamName

HeadOf = Callable[[StreamName], Head | None]


@dataclass(frozen=True, slots=True)
class Batch:
    """Bytes [start, end) of an incarnation that one commit adds."""

    incarnation: Incarnation
    start: int
    end: int
    data: bytes


@dataclass(slots=True)
class Transition:
    """The new heads by name (None: the name has no stream now), the new batch, and the incarnations that ended."""

    heads: dict[StreamName, Head | None] = field(default_factory=dict)
    batch: Batch | None = None
    dropped: list[Incarnation] = field(default_factory=list)


def transition(
    name: StreamName, commit: Commit, head_of: HeadOf, newest_born_us: int = 0
) -> tuple[Transition, Applied] | Unmet:
    """Evaluate a commit on the heads that `head_of` returns: the change that it makes, or the unmet requirement.

    A new incarnation gets a `born_us` after `newest_born_us`, so that its offset tokens sort after those of earlier
    incarnations.
    """
    head = head_of(name)
    match commit:
        case UpdateCommit():
            unmet = first_unmet(commit.requires, head)
            if unmet is not None:
                return Unmet(unmet, head)
            assert head is not None, "an update requires that the stream exists"
            return _update(name, head, commit)
        case CreateCommit():
            return _create(name, head, commit, head_of, newest_born_us)
        case DeleteCommit(requires):
            unmet = first_unmet(requires, head)
            if unmet is not None:
                return Unmet(unmet, head)
            assert head is not None, "a deletion requires that the stream exists"
            change = Transition()
            _end_incarnation(name, head, head_of, change)
            return change, Applied(change.heads[name])


def _update(name: StreamName, head: Head, commit: UpdateCommit) -> tuple[Transition, Applied]:
    change, data = Transition(), commit.data
    if data is not None:
        change.batch = Batch(head.incarnation, head.tail, head.tail + len(data), data)
    changed = change.heads[name] = replace(head, **_changed_fields(head, commit.effects))
    return change, Applied(changed)


def _create(
    name: StreamName, existing: Head | None, commit: CreateCommit, head_of: HeadOf, newest_born_us: int
) -> tuple[Transition, Applied] | Unmet:
    if not commit.absent.holds(existing):
        return Unmet(commit.absent, existing)
    change = Transition()
    if commit.source is not None:
        source = head_of(commit.source.name)
        unmet = first_unmet(commit.source.requires, source)
        if unmet is not None:
            return Unmet(unmet, source)
        assert source is not None, "a source's requirements include that it exists"
        change.heads[commit.source.name] = replace(source, references=source.references + 1)
    if existing is not None:  # expired, and not removed yet
        _end_incarnation(name, existing, head_of, change)
    head = ensure_born_after(commit.first_head, newest_born_us)
    if commit.data is not None:
        change.batch = Batch(head.incarnation, commit.head.tail, head.tail, commit.data)
    change.heads[name] = head
    return change, Applied(head)


def _changed_fields(head: Head, effects: tuple[Effect, ...]) -> dict[str, Any]:
    """The fields of a head that the effects set, so that the head is copied once for all of them."""
    fields: dict[str, Any] = {}
    for effect in effects:
        match effect:
            case AddBatch(data, now_ms):
                fields["tail"], fields["appended_ms"] = head.tail + len(data), now_ms
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
                fields |= _rarely_changed_fields(head, effect)
    return fields


def renewed_deadline_ms(head: Head, now_ms: int) -> int | None:
    """A head's deadline after its stream was used at `now_ms`. A sliding deadline moves when it is due, never back.

    It is due when it no longer leaves the whole window; a late use, or one by a slower clock, moves nothing.
    """
    deadline_ms = head.live_until_ms
    if not isinstance(head.lifetime, SlidingTtl) or deadline_ms is None:
        return deadline_ms
    return head.lifetime.deadline_ms(now_ms) if head.lifetime.is_due(deadline_ms, now_ms) else deadline_ms


def _with_latest(producers: Mapping[str, ProducerState], stamp: ProducerStamp) -> dict[str, ProducerState]:
    """The producers, the one that has just written last: a store that keeps only some keeps the last ones."""
    moved = dict(producers)
    moved.pop(stamp.producer_id, None)
    moved[stamp.producer_id] = ProducerState(stamp.epoch, stamp.seq)
    return moved


def _rarely_changed_fields(
    head: Head, effect: MarkFollowed | SetDelivered | MoveCursor | SetReaderKey
) -> dict[str, Any]:
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


def _end_incarnation(name: StreamName, head: Head, head_of: HeadOf, change: Transition) -> None:
    """End an incarnation, or soft-delete it while it has forks; then release its source, which may end in turn."""
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
