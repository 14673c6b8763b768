"""Group plans: appends to one stream that one update of its head can carry, and that update.

The appends are judged in turn, each on the head that the ones before it leave. That head is a guess, as for a single
append (fluvial.storage.dynamodb.writes.updates), so the update's condition names what the guess was about:

- What never changes in an incarnation (content type, lifetime) and what only moves forward (a sliding deadline) is
  covered by the incarnation.
- That the stream is open, and the last Stream-Seq before the group's first.
- The state of each producer that the group moves, exactly.

It does not name the tail, so groups of several processes do not conflict.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from fluvial.model.commit import (
    Applied,
    EpochBeginsAtZero,
    Exists,
    HasMediaType,
    NoGap,
    NotDuplicate,
    NotFenced,
    Open,
    RoomAtTail,
    RoomForProducer,
    SeqAfter,
    UpdateCommit,
    first_unmet,
)
from fluvial.model.effect import AddBatch, CloseStream, MoveProducer, RenewTtl, SetStreamSeq
from fluvial.model.head import Head, ProducerStamp, ProducerState
from fluvial.model.limits import PRODUCERS_PER_STREAM_MAX
from fluvial.model.names import StreamName
from fluvial.model.transition import transition
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.expression import Expression, Request
from fluvial.storage.dynamodb.table.items import (
    HeadItem,
    StoredBatch,
    encode_batch,
    encode_closed,
    encode_incarnation,
    encode_producer,
)
from fluvial.storage.dynamodb.writes.conditions import conditions_of, producer_path
from fluvial.storage.dynamodb.writes.updates import BUFFER_BATCHES_MAX, fence_is, format_sets, guarded_update, renewal

_REQUIREMENTS: Final = frozenset(
    {
        Exists,
        Open,
        HasMediaType,
        NotFenced,
        EpochBeginsAtZero,
        NotDuplicate,
        NoGap,
        RoomForProducer,
        SeqAfter,
        RoomAtTail,
    }
)
_EFFECTS: Final = frozenset({AddBatch, RenewTtl, MoveProducer, SetStreamSeq, CloseStream})

#: Producers that one group moves, and that the head may hold: an update names each in its condition and in what it
#: sets, with up to six operators, and an expression may have 300 of them and 4 KB.
#: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html
GROUP_PRODUCERS_MAX: Final = 48


def is_groupable(commit: UpdateCommit) -> bool:
    """Whether a group can carry the commit: an append without preconditions on the stream's state."""
    return (
        commit.data is not None
        and all(type(effect) in _EFFECTS for effect in commit.effects)
        and all(type(requirement) in _REQUIREMENTS for requirement in commit.requires)
    )


@dataclass(slots=True)
class GroupPlan:
    """Which commits, by their place in the group, `stored` admits, and the head after each of those.

    `others` must be judged again: they do not fit, or come after one of their producer that does not fit. `evicted` are
    producers that `stored` lacks, with their states outside the head.
    """

    stored: HeadItem
    evicted: Mapping[str, ProducerState | None]
    admitted: list[int] = field(default_factory=list)
    heads: list[Head] = field(default_factory=list)
    others: list[int] = field(default_factory=list)
    producers: dict[str, ProducerStamp] = field(default_factory=dict)
    first_seq: SeqAfter | None = None
    renewed: RenewTtl | None = None

    @property
    def before(self) -> Head:
        """The head that the plan begins with."""
        assert self.stored.head is not None, "without a stream nothing is admitted"
        return self.stored.head

    @property
    def byte_count(self) -> int:
        """How many bytes the group adds."""
        return self.heads[-1].tail - self.before.tail

    @property
    def new_producers(self) -> list[str]:
        """The producers that the head lacks."""
        return [one for one in self.producers if one not in self.before.producers]


def head_with_producers(stored: HeadItem, evicted: Mapping[str, ProducerState | None]) -> Head | None:
    """The head with the states of producers that are outside it."""
    if stored.head is None or not evicted:
        return stored.head
    known = {producer_id: state for producer_id, state in evicted.items() if state is not None}
    return replace(stored.head, producers={**known, **stored.head.producers})


def plan_group(
    stored: HeadItem, commits: Sequence[UpdateCommit], evicted: Mapping[str, ProducerState | None]
) -> GroupPlan:
    """Judge commits in turn. Once one of a producer does not fit, its later ones wait: they keep their order."""
    plan, waiting, head = GroupPlan(stored, evicted), set[str](), head_with_producers(stored, evicted)
    for place, commit in enumerate(commits):
        producer_id = commit.producer_id
        if producer_id in waiting or (producer_id is not None and not _has_room(plan, producer_id)):
            waiting.add(str(producer_id))
            plan.others.append(place)
            continue
        if head is None or first_unmet(commit.requires, head) is not None:
            if producer_id is not None:
                waiting.add(producer_id)
            plan.others.append(place)
            continue
        changed = transition(StreamName(""), commit, lambda _, seen=head: seen)  # type: ignore[misc]
        assert isinstance(changed, tuple), "every requirement holds"
        head = changed[1].head
        assert head is not None, "an append leaves a head"
        plan.admitted.append(place)
        plan.heads.append(head)
        _note_effects(plan, commit)
    return plan


def _has_room(plan: GroupPlan, producer_id: str) -> bool:
    if producer_id in plan.producers:
        return True
    if len(plan.producers) >= GROUP_PRODUCERS_MAX or is_unknown(producer_id, plan.stored, plan.evicted):
        return False
    in_head = {} if plan.stored.head is None else plan.stored.head.producers
    return producer_id in in_head or len(in_head) + len(plan.new_producers) < GROUP_PRODUCERS_MAX


def is_unknown(producer_id: str, stored: HeadItem, evicted: Mapping[str, ProducerState | None]) -> bool:
    """Whether the head lacks a producer that may have a state outside it that was not looked up."""
    in_head = {} if stored.head is None else stored.head.producers
    return stored.evictions > 0 and producer_id not in in_head and producer_id not in evicted


def _note_effects(plan: GroupPlan, commit: UpdateCommit) -> None:
    for effect in commit.effects:
        if isinstance(effect, MoveProducer):
            plan.producers[effect.stamp.producer_id] = effect.stamp
        elif isinstance(effect, SetStreamSeq):
            plan.first_seq = plan.first_seq or SeqAfter(effect.stream_seq)
        elif isinstance(effect, RenewTtl) and (plan.renewed is None or effect.now_ms > plan.renewed.now_ms):
            plan.renewed = effect


def group_update(name: StreamName, plan: GroupPlan, elements: Sequence[StoredBatch]) -> Request:
    """The one UpdateItem that is the whole group; `elements` are its batches as the head holds them."""
    e, before, after = Expression(), plan.before, plan.heads[-1]
    buffer, tail = e.name(a.BUFFER), e.name(a.TAIL)
    requires: Iterable[SeqAfter | RoomAtTail] = (one for one in (plan.first_seq, RoomAtTail(plan.byte_count)) if one)
    clauses = [
        f"{e.name(a.INCARNATION)} = {e.value(encode_incarnation(before.incarnation))}",
        fence_is(plan.stored.fence, e),
        f"attribute_not_exists({e.name(a.SOFT_DELETED)})",
        f"attribute_not_exists({e.name(a.CLOSED)})",
        f"size({buffer}) <= {e.value(BUFFER_BATCHES_MAX - len(elements))}",
        *conditions_of(requires, e),
        *_producer_clauses(plan, e),
    ]
    sets = [
        f"{buffer} = list_append({buffer}, {e.value({'L': [{'B': encode_batch(one)} for one in elements]})})",
        f"{tail} = {tail} + {e.value(plan.byte_count)}",
        f"{e.name(a.APPENDED_MS)} = {e.value(after.appended_ms or 0)}",
        *format_sets(elements, e),
        *_producer_sets(plan, e),
    ]
    if plan.first_seq is not None:
        sets.append(f"{e.name(a.STREAM_SEQ)} = {e.value(after.stream_seq or '')}")
    if after.closed:
        sets.append(f"{e.name(a.CLOSED)} = {e.value(encode_closed(after.closed_by))}")
    if plan.renewed is not None:
        unmoved, moved = renewal(plan.renewed, before, e)
        clauses, sets = clauses + unmoved, sets + moved
    return guarded_update(name, e, clauses, f"SET {', '.join(sets)}")


def _producer_clauses(plan: GroupPlan, e: Expression) -> list[str]:
    """Each producer's state is as the plan has it; one that the head lacks has not come back or been evicted since."""
    clauses, known, new = list[str](), plan.before.producers, plan.new_producers
    for producer_id in plan.producers:
        path = producer_path(producer_id, e)
        if producer_id in known:
            state = known[producer_id]
            clauses += [f"{path}[0] = {e.value(state.epoch)}", f"{path}[1] = {e.value(state.seq)}"]
        else:
            clauses.append(f"attribute_not_exists({path})")
    if new:
        moved, count = e.name(a.EVICTIONS), e.name(a.PRODUCER_COUNT)
        evictions = plan.stored.evictions
        clauses.append(f"{moved} = {e.value(evictions)}" if evictions else f"attribute_not_exists({moved})")
        clauses.append(f"size({e.name(a.PRODUCERS)}) <= {e.value(GROUP_PRODUCERS_MAX - len(new))}")
        clauses.append(f"{count} <= {e.value(PRODUCERS_PER_STREAM_MAX - _uncounted(plan))}")
    return clauses


def _producer_sets(plan: GroupPlan, e: Expression) -> list[str]:
    used_s = 0 if plan.renewed is None else plan.renewed.now_ms // 1_000
    sets = [
        f"{producer_path(one, e)} = {e.value(encode_producer(stamp, used_s))}" for one, stamp in plan.producers.items()
    ]
    if uncounted := _uncounted(plan):
        count = e.name(a.PRODUCER_COUNT)
        sets.append(f"{count} = {count} + {e.value(uncounted)}")
    return sets


def _uncounted(plan: GroupPlan) -> int:
    """How many producers the stream has not seen before."""
    return sum(plan.evicted.get(one) is None for one in plan.new_producers)


def outcomes_of(plan: GroupPlan, stored: HeadItem, end: int) -> list[Applied]:
    """The outcome of each admitted commit, of a group that ends at `end` and is in `stored`."""
    now = stored.head
    assert now is not None, "a group has landed in a stream"
    moved_by, last = end - plan.heads[-1].tail, plan.heads[-1]
    outcomes = list[Applied]()
    for head in plan.heads:
        producers: Mapping[str, ProducerState] = now.producers
        if plan.producers:
            moved = {one: head.producers[one] for one in plan.producers if one in head.producers}
            producers = {**now.producers, **moved}
        as_it_was = replace(
            now,
            tail=head.tail + moved_by,
            appended_ms=head.appended_ms,
            closed=head.closed,
            closed_by=head.closed_by,
            stream_seq=now.stream_seq if plan.first_seq is None else head.stream_seq,
            producers=producers,
            producer_count=now.producer_count - (last.producer_count - head.producer_count),
        )
        outcomes.append(Applied(as_it_was))
    return outcomes


def missing_producers(stored: HeadItem, commits: Iterable[UpdateCommit]) -> Collection[str]:
    """The producers of commits that the head lacks, in the order in which they come."""
    in_head = {} if stored.head is None else stored.head.producers
    ids = (commit.producer_id for commit in commits)
    return dict.fromkeys(one for one in ids if one is not None and one not in in_head)
