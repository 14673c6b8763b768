"""Lives: how a stream begins, forks and ends. Only a fork and its end touch more than one item."""

import logging
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from fluvial.clock import Clock
from fluvial.model.commit import (
    Absent,
    Applied,
    Commit,
    CommitId,
    Outcome,
    PreconditionsHold,
    Requirement,
    SourceLink,
    Unmet,
    first_unmet,
)
from fluvial.model.errors import StoreError, StoreUnavailable, StoreUncertain
from fluvial.model.head import ForkOrigin, Head, Incarnation, born_after
from fluvial.model.lifetime import ExpiresAt
from fluvial.model.names import StreamName
from fluvial.model.plan import plan_expiry
from fluvial.model.transition import transition
from fluvial.storage.dynamodb.reads.listing import listing_shard
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.aws_client import ConditionFailed, OutcomeUnknown, TransactionConditionFailed
from fluvial.storage.dynamodb.table.expression import Expression
from fluvial.storage.dynamodb.table.head_cache import HeadCache
from fluvial.storage.dynamodb.table.items import (
    HeadItem,
    StoredBatch,
    head_item,
    head_of_item,
    incarnation_value,
    number,
)
from fluvial.storage.dynamodb.table.keys import Item, head_key
from fluvial.storage.dynamodb.table.table import Table
from fluvial.storage.dynamodb.writes.conditions import condition_of
from fluvial.storage.dynamodb.writes.in_doubt import tombstone_until
from fluvial.storage.dynamodb.writes.payloads import Payloads
from fluvial.storage.dynamodb.writes.spilling import Spiller
from fluvial.storage.dynamodb.writes.updates import Request, fence_is, guarded

log = logging.getLogger(__name__)

#: How often a beginning or an end is tried when others change the same heads meanwhile.
TRIES_MAX: Final = 16

#: A day after its moment has passed, DynamoDB may delete the head of a stream that expires at one.
EXPIRED_FOR_S: Final = 86_400

#: What a tombstone still has, or has instead; everything else of the head goes with its life.
_OF_TOMBSTONE: Final = {a.FENCE, a.BEGAN, a.BORN_US, a.ENDED_BY, a.ENDED_LIFE, a.TTL}
_CONFIGURATION: Final = tuple(sorted(a.OF_HEAD - _OF_TOMBSTONE))


@dataclass(frozen=True, slots=True)
class DroppedIncarnation:
    """A life of which nothing is needed any more, with what its buffer held when it ended."""

    name: StreamName
    incarnation: Incarnation
    buffer: tuple[StoredBatch, ...]


@dataclass(frozen=True, slots=True)
class LifecycleResult:
    """A beginning's or an end's outcome, and the lives that it dropped."""

    outcome: Outcome
    dropped: tuple[DroppedIncarnation, ...] = ()


class Lifecycle:
    """Begins and ends the lives of streams."""

    def __init__(self, table: Table, payloads: Payloads, spiller: Spiller, heads: HeadCache, clock: Clock) -> None:
        """Nothing begins yet."""
        self._table, self._payloads, self._spiller = table, payloads, spiller
        self._heads, self._clock = heads, clock

    # -- beginnings --------------------------------------------------------------------------------------------------

    async def begin(self, name: StreamName, commit: Commit) -> LifecycleResult:
        """A first batch and all, in one item; an expired life makes way first.

        Raises StoreUnavailable, StoreUncertain. It may be sent again as it is: the incarnation tells whose it is.
        """
        first = await self._first_item(name, commit)
        life, in_doubt = _begun(first), False
        dropped, fence = tuple[DroppedIncarnation, ...](), None
        for _ in range(TRIES_MAX):
            try:
                await self._put_first(name, first, fence, commit.source)
                return LifecycleResult(Applied(life), dropped)
            except _Unmet as exc:
                if in_doubt and await self._has_begun(name, life):
                    return LifecycleResult(Applied(life), dropped)
                return await self._refused(name, first, LifecycleResult(exc.outcome, dropped))
            except (_Again, OutcomeUnknown) as exc:
                in_doubt = in_doubt or isinstance(exc, OutcomeUnknown)
            except StoreUnavailable as exc:
                raise _as_it_is(in_doubt=in_doubt) from exc
            except ConditionFailed as exc:
                stored = self._heads.note(name, exc.item)
                life = born_after(life, stored.born_us)
                first = replace(first, head=life)
                outcome = _beginning_judged(commit, life, stored)
                if isinstance(outcome, Applied):
                    return LifecycleResult(outcome, dropped)
                if outcome is not None:
                    return await self._refused(name, first, LifecycleResult(outcome, dropped))
                if stored.head is not None:
                    dropped += (await self.end(name, plan_expiry(_now_of(commit)))).dropped
                fence = stored.fence
        raise _as_it_is(in_doubt=in_doubt)

    async def _has_begun(self, name: StreamName, life: Head) -> bool:
        """Whether a beginning whose answer was lost was carried out, though its life may be over by now."""
        stored = self._heads.note(name, await self._table.get(head_key(name)))
        return life.incarnation in {stored.ended_life, None if stored.head is None else stored.head.incarnation}

    async def _refused(self, name: StreamName, first: HeadItem, changed: LifecycleResult) -> LifecycleResult:
        """A refusal, with nothing left of the first batch."""
        await self._payloads.discard(name, first.buffer)
        return changed

    async def _first_item(self, name: StreamName, commit: Commit) -> HeadItem:
        result = transition(name, Commit(commit.requires, commit.effects), lambda _: None)
        assert not isinstance(result, Unmet), "where nothing is, a stream may begin"
        change, applied = result
        head = applied.head
        assert head is not None, "a beginning leaves a head"
        if change.batch is None:
            return HeadItem(head, 0, base=head.tail)
        data, now_ms = change.batch.data, self._clock.now_ms()
        batch = await self._payloads.laid_out(name, self._clock.new_commit_id(), data, now_ms)
        return HeadItem(head, 0, base=change.batch.start, buffer=(batch,))

    async def _put_first(self, name: StreamName, first: HeadItem, fence: int | None, source: SourceLink | None) -> None:
        """Put a head where nothing is, or over a tombstone with this fence."""
        e = Expression()
        condition = f"attribute_not_exists({e.name(a.PK)})"
        if fence is not None:
            is_tombstone = f"attribute_not_exists({e.name(a.INCARNATION)}) AND {fence_is(fence, e)}"
            condition = f"{condition} OR ({is_tombstone})"
            first = replace(first, fence=fence + 1, began=fence + 1)
        put = {"Item": first_item(name, first), "ConditionExpression": condition, **e.parameters()}
        if source is None:
            item = put.pop("Item")
            await self._table.put(item, **put)
            self._heads.note(name, item)
        else:
            await self._put_fork(put, first, source)
            self._heads.note(name, put["Item"])

    async def _put_fork(self, put: dict[str, Any], first: HeadItem, source: SourceLink) -> None:
        """Put a fork's head and count it at its source, which must have spilled what is inherited."""
        head = first.head
        assert head is not None
        await self._spilled_source(source, head.own_start)
        e = Expression()
        references = e.name(a.REFERENCES)
        clauses = [*condition_of(source.requires, e), f"{e.name(a.BASE)} >= {e.value(head.own_start)}"]
        count = f"{references} = if_not_exists({references}, {e.value(0)}) + {e.value(1)}"
        # While it has forks, DynamoDB must not delete it, whatever its deadline.
        counted = guarded(source.name, e, clauses, f"SET {count} REMOVE {e.name(a.TTL)}")
        put["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        try:
            await self._table.transact([{"Put": put}, {"Update": counted}])
        except TransactionConditionFailed as exc:
            if 0 in exc.items:
                raise ConditionFailed(exc.items[0]) from exc
            stored = self._heads.note(source.name, exc.items[1])
            unmet = first_unmet(source.requires, stored.head)
            if unmet is not None:
                raise _Unmet(Unmet(unmet, stored.head)) from exc
            raise _Again from exc

    async def _spilled_source(self, source: SourceLink, position: int) -> None:
        for _ in range(TRIES_MAX):
            item = await self._table.get(head_key(source.name))
            stored = self._heads.note(source.name, item)
            unmet = first_unmet(source.requires, stored.head)
            if unmet is not None:
                raise _Unmet(Unmet(unmet, stored.head))
            if stored.base >= position:
                return
            await self._spiller.spill(source.name, stored)
        raise StoreUnavailable

    # -- ends --------------------------------------------------------------------------------------------------------

    async def end(self, name: StreamName, commit: Commit) -> LifecycleResult:
        """End a life, or hide it while forks need it. Raises StoreUnavailable, StoreUncertain.

        The request raises the fence and leaves its id, so it may be sent again until one of them has landed.
        """
        commit_id, in_doubt = self._clock.new_commit_id(), False
        tried: Incarnation | None = None
        for _ in range(TRIES_MAX):
            try:
                stored = self._heads.note(name, await self._table.get(head_key(name)))
                if in_doubt and stored.ended_by == commit_id:
                    return LifecycleResult(Applied(stored.head))  # what it left is swept
                found = None if stored.head is None else stored.head.incarnation
                if in_doubt and found != tried:
                    return LifecycleResult(Applied(None))  # the life is over, and what has begun since is another one
                tried = found
                unmet = first_unmet(commit.requires, stored.head)
                if unmet is not None:
                    if in_doubt and _may_hold_again(unmet):
                        raise StoreUncertain
                    return LifecycleResult(Unmet(unmet, stored.head))
                return await self._ended(name, stored, commit, commit_id)
            except (ConditionFailed, TransactionConditionFailed):
                continue
            except OutcomeUnknown:
                in_doubt = True
            except StoreUnavailable as exc:
                raise _as_it_is(in_doubt=in_doubt) from exc
        raise _as_it_is(in_doubt=in_doubt)

    async def _ended(self, name: StreamName, stored: HeadItem, commit: Commit, commit_id: CommitId) -> LifecycleResult:
        head = stored.head
        assert head is not None, "the requirements include that it exists"
        e = Expression()
        clauses = [*condition_of(commit.requires, e), fence_is(stored.fence, e), _has_references(head.references, e)]
        if head.references:
            marks = f"{e.name(a.HIDDEN)} = {e.value(1)}, {e.name(a.ENDED_BY)} = {e.value(commit_id)}"
            update = f"SET {marks}, {_next_fence(stored.fence, e)} REMOVE {e.name(a.LISTING)}"
            item = await self._table.update(guarded(name, e, clauses, update))
            return LifecycleResult(Applied(self._heads.note(name, item).head))
        request = self._tombstone(name, head, (e, clauses, stored.fence), commit_id)
        if head.forked_from is None:
            old = head_of_item(await self._table.update({**request, "ReturnValues": "ALL_OLD"}))
            self._heads.note(name, None)
            return LifecycleResult(Applied(None), (DroppedIncarnation(name, head.incarnation, old.buffer),))
        actions, dropped = await self._released(head.forked_from, commit_id)
        await self._table.transact([{"Update": request}, *actions])
        self._heads.note(name, None)
        return LifecycleResult(Applied(None), (DroppedIncarnation(name, head.incarnation, stored.buffer), *dropped))

    def _tombstone(
        self, name: StreamName, head: Head, guard: tuple[Expression, list[str], int], commit_id: CommitId
    ) -> Request:
        e, clauses, fence = guard
        sets = {
            a.TTL: number(tombstone_until(self._clock.now_ms())),
            a.ENDED_BY: {"B": commit_id},
            a.ENDED_LIFE: incarnation_value(head.incarnation),
            a.BEGAN: number(fence + 1),
        }
        marks = ", ".join(f"{e.name(attribute)} = {e.value(value)}" for attribute, value in sets.items())
        removed = ", ".join(e.name(attribute) for attribute in _CONFIGURATION)
        return guarded(name, e, clauses, f"SET {_next_fence(fence, e)}, {marks} REMOVE {removed}")

    async def _released(
        self, origin: ForkOrigin | None, commit_id: CommitId
    ) -> tuple[list[dict[str, Any]], list[DroppedIncarnation]]:
        """What the end of a fork does to its ancestors: those that only it kept end with it (spec 4.2)."""
        actions, dropped = list[dict[str, Any]](), list[DroppedIncarnation]()
        while origin is not None:
            stored = self._heads.note(origin.source, await self._table.get(head_key(origin.source)))
            source = stored.head
            if source is None or source.incarnation != origin.incarnation:
                break
            e = Expression()
            clauses = [fence_is(stored.fence, e), _has_references(source.references, e)]
            clauses.append(f"{e.name(a.INCARNATION)} = {e.value(incarnation_value(source.incarnation))}")
            hidden = e.name(a.HIDDEN)
            clauses.append(f"attribute_{'exists' if source.soft_deleted else 'not_exists'}({hidden})")
            if source.soft_deleted and source.references == 1:
                guard = (e, clauses, stored.fence)
                actions.append({"Update": self._tombstone(origin.source, source, guard, commit_id)})
                dropped.append(DroppedIncarnation(origin.source, source.incarnation, stored.buffer))
                origin = source.forked_from
                continue
            sets = [f"{e.name(a.REFERENCES)} = {e.value(source.references - 1)}"]
            if source.references == 1 and source.forked_from is None and isinstance(source.lifetime, ExpiresAt):
                sets.append(f"{e.name(a.TTL)} = {e.value(_collectable_at(source.lifetime))}")
            update = f"SET {', '.join(sets)}"
            actions.append({"Update": guarded(origin.source, e, clauses, update)})
            break
        return actions, dropped


class _Unmet(Exception):
    """A fork's source does not meet its requirements."""

    def __init__(self, outcome: Unmet) -> None:
        super().__init__()
        self.outcome = outcome


class _Again(Exception):
    """A fork's source has changed since it was looked at, and nothing was written."""


def _as_it_is(*, in_doubt: bool) -> StoreError:
    return StoreUncertain() if in_doubt else StoreUnavailable()


def _may_hold_again(unmet: Requirement) -> bool:
    """Whether a request that is still on its way may find it met. A stream comes back to no state that it had."""
    return isinstance(unmet, PreconditionsHold) and unmet.preconditions.if_none_match is not None


def _beginning_judged(commit: Commit, life: Head, stored: HeadItem) -> Outcome | None:
    """What it means that something is at the name already; None when it makes way."""
    found = stored.head
    if stored.ended_life == life.incarnation or (found is not None and found.incarnation == life.incarnation):
        return Applied(msgspec.structs.replace(life, born_us=stored.born_us))  # as an earlier try has written it
    unmet = first_unmet(commit.requires, found)
    return None if unmet is None else Unmet(unmet, found)


def first_item(name: StreamName, first: HeadItem) -> Item:
    """The item of a head as it begins, with what lists and collects it.

    DynamoDB itself must not delete a fork: the end of a fork releases its source.
    """
    item = head_item(name, first)
    item[a.LISTING] = number(listing_shard(name))
    head = _begun(first)
    if isinstance(head.lifetime, ExpiresAt) and head.forked_from is None:
        item[a.TTL] = number(_collectable_at(head.lifetime))
    return item


def _begun(first: HeadItem) -> Head:
    assert first.head is not None, "a first item has a head"
    return first.head


def _collectable_at(lifetime: ExpiresAt) -> int:
    return lifetime.at_ms // 1_000 + EXPIRED_FOR_S


def _now_of(commit: Commit) -> int:
    absent = commit.requires[0]
    assert isinstance(absent, Absent), "a beginning requires an empty place first"
    return absent.now_ms


def _has_references(count: int, e: Expression) -> str:
    references = e.name(a.REFERENCES)
    if count:
        return f"{references} = {e.value(count)}"
    return f"(attribute_not_exists({references}) OR {references} = {e.value(0)})"


def _next_fence(fence: int, e: Expression) -> str:
    return f"{e.name(a.FENCE)} = {e.value(fence + 1)}"
