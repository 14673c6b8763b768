"""The lifecycle of streams: create, fork and delete. Only a fork and its deletion write more than one item.

A creation may be sent again as it is, because its incarnation is random and identifies it. A deletion leaves its commit
id in the tombstone for the same reason. The tombstone keeps the fence, so that a request that was sent to the ended
incarnation can never be carried out in the next one.
"""

from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from fluvial.clock import Clock
from fluvial.model.commit import (
    Applied,
    CommitId,
    CreateCommit,
    DeleteCommit,
    Outcome,
    PreconditionsHold,
    Requirement,
    SourceLink,
    Unmet,
    first_unmet,
)
from fluvial.model.errors import StoreError, StoreUnavailable, StoreUncertain
from fluvial.model.head import ForkOrigin, Head, Incarnation, ensure_born_after
from fluvial.model.lifetime import ExpiresAt
from fluvial.model.names import StreamName
from fluvial.model.plan import plan_expiry
from fluvial.storage.dynamodb.reads.listing import listing_shard
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.expression import Expression, Request
from fluvial.storage.dynamodb.table.head_cache import HeadCache
from fluvial.storage.dynamodb.table.items import (
    HeadItem,
    StoredBatch,
    decode_head_item,
    encode_head_item,
    encode_incarnation,
    number,
)
from fluvial.storage.dynamodb.table.keys import Item
from fluvial.storage.dynamodb.table.table import Table
from fluvial.storage.dynamodb.table.write_outcome import (
    ConditionFailed,
    InDoubt,
    TransactionConditionFailed,
    Written,
)
from fluvial.storage.dynamodb.writes.conditions import conditions_of
from fluvial.storage.dynamodb.writes.in_doubt import tombstone_until
from fluvial.storage.dynamodb.writes.payloads import Payloads
from fluvial.storage.dynamodb.writes.spill import Spiller
from fluvial.storage.dynamodb.writes.updates import fence_is, guarded_update

#: Tries of a creation or deletion while other writers change the same heads.
TRIES_MAX: Final = 16

#: A stream with a fixed expiry: DynamoDB may delete its head so many seconds after that moment.
EXPIRED_FOR_S: Final = 86_400

#: The attributes that a tombstone has. A deletion removes all others of the head.
_OF_TOMBSTONE: Final = {a.FENCE, a.BEGAN, a.BORN_US, a.ENDED_BY, a.ENDED_LIFE, a.TTL}
_NOT_OF_TOMBSTONE: Final = tuple(sorted(a.OF_HEAD - _OF_TOMBSTONE))


@dataclass(frozen=True, slots=True)
class DroppedIncarnation:
    """An incarnation whose data may be deleted, with the batches that its buffer held when it ended."""

    name: StreamName
    incarnation: Incarnation
    buffer: tuple[StoredBatch, ...]


@dataclass(frozen=True, slots=True)
class LifecycleResult:
    """The outcome of a creation or deletion, and the incarnations that it dropped."""

    outcome: Outcome
    dropped: tuple[DroppedIncarnation, ...] = ()


@dataclass(frozen=True, slots=True)
class _SourceChanged:
    """A fork's source has changed since it was loaded: nothing was written, and another try may succeed."""


@dataclass(frozen=True, slots=True)
class _Creation:
    """A creation under way: the item to put, the fence of the tombstone to put it over, and its history."""

    first: HeadItem
    fence: int | None = None
    in_doubt: bool = False
    dropped: tuple[DroppedIncarnation, ...] = ()


_PutOutcome = Written | ConditionFailed | InDoubt | Unmet | _SourceChanged


class Lifecycle:
    """Creates and deletes streams."""

    def __init__(self, table: Table, payloads: Payloads, spiller: Spiller, heads: HeadCache, clock: Clock) -> None:
        """`spiller` moves a source's bytes into segments before a fork refers to them."""
        self._table, self._payloads, self._spiller = table, payloads, spiller
        self._heads, self._clock = heads, clock

    # -- create ------------------------------------------------------------------------------------------------------

    async def create(self, name: StreamName, commit: CreateCommit) -> LifecycleResult:
        """Create a stream with its first batch in one item; an expired stream at the name is deleted first.

        Raises StoreUnavailable, StoreUncertain.
        """
        creation = _Creation(await self._first_item(name, commit))
        for _ in range(TRIES_MAX):
            result = await self._try_create(name, commit, creation)
            if isinstance(result, _Creation):
                creation = result
                continue
            if isinstance(result.outcome, Unmet):
                await self._payloads.discard(name, creation.first.buffer)
            return result
        raise _error_of(in_doubt=creation.in_doubt)

    async def _try_create(
        self, name: StreamName, commit: CreateCommit, creation: _Creation
    ) -> LifecycleResult | _Creation:
        """Send one request: the creation's result, or the creation as it is to be tried next."""
        try:
            outcome = await self._put_first(name, creation.first, creation.fence, commit.source)
        except StoreUnavailable as exc:
            raise _error_of(in_doubt=creation.in_doubt) from exc
        head = _head_of(creation.first)
        match outcome:
            case Written():
                return LifecycleResult(Applied(head), creation.dropped)
            case InDoubt():
                return replace(creation, in_doubt=True)
            case _SourceChanged():
                return creation
            case Unmet():
                if creation.in_doubt and await self._was_created(name, head):
                    return LifecycleResult(Applied(head), creation.dropped)
                return LifecycleResult(outcome, creation.dropped)
            case ConditionFailed(item):
                stored = self._heads.store(name, item)
                head = ensure_born_after(head, stored.born_us)
                judged = _judge_existing(commit, head, stored)
                if judged is not None:
                    return LifecycleResult(judged, creation.dropped)
                dropped = creation.dropped
                if stored.head is not None:
                    dropped += (await self.delete(name, plan_expiry(commit.now_ms))).dropped
                first = replace(creation.first, head=head)
                return replace(creation, first=first, fence=stored.fence, dropped=dropped)

    async def _was_created(self, name: StreamName, head: Head) -> bool:
        """Whether a creation in doubt was carried out; its incarnation may have ended since."""
        stored = await self._heads.load(name)
        return head.incarnation in {stored.ended_incarnation, None if stored.head is None else stored.head.incarnation}

    async def _first_item(self, name: StreamName, commit: CreateCommit) -> HeadItem:
        head = commit.first_head
        if commit.data is None:
            return HeadItem(head, 0, base=head.tail)
        now_ms = self._clock.now_ms()
        batch = await self._payloads.store(name, self._clock.new_commit_id(), commit.data, now_ms)
        return HeadItem(head, 0, base=commit.head.tail, buffer=(batch,))

    async def _put_first(
        self, name: StreamName, first: HeadItem, fence: int | None, source: SourceLink | None
    ) -> _PutOutcome:
        """Put a head where no item is, or over a tombstone with this fence."""
        e = Expression()
        condition = f"attribute_not_exists({e.name(a.PK)})"
        if fence is not None:
            is_tombstone = f"attribute_not_exists({e.name(a.INCARNATION)}) AND {fence_is(fence, e)}"
            condition = f"{condition} OR ({is_tombstone})"
            first = replace(first, fence=fence + 1, began=fence + 1)
        item = first_item(name, first)
        put = {"ConditionExpression": condition, **e.parameters()}
        if source is None:
            outcome: _PutOutcome = await self._table.put(item, **put)
        else:
            outcome = await self._put_fork({"Item": item, **put}, _head_of(first), source)
        if isinstance(outcome, Written):
            self._heads.store(name, item)
        return outcome

    async def _put_fork(self, put: dict[str, Any], head: Head, source: SourceLink) -> _PutOutcome:
        """Put a fork's head and count the fork at its source, once the source has spilled the inherited bytes."""
        unmet = await self._spill_source(source, head.own_start)
        if unmet is not None:
            return unmet
        e = Expression()
        references = e.name(a.REFERENCES)
        clauses = [*conditions_of(source.requires, e), f"{e.name(a.BASE)} >= {e.value(head.own_start)}"]
        count = f"{references} = if_not_exists({references}, {e.value(0)}) + {e.value(1)}"
        # While the source has forks, DynamoDB must not delete it, whatever its deadline.
        counted = guarded_update(source.name, e, clauses, f"SET {count} REMOVE {e.name(a.TTL)}")
        put["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        outcome = await self._table.transact([{"Put": put}, {"Update": counted}])
        if not isinstance(outcome, TransactionConditionFailed):
            return outcome
        if 0 in outcome.items:
            return ConditionFailed(outcome.items[0])
        stored = self._heads.store(source.name, outcome.items[1])
        requirement = first_unmet(source.requires, stored.head)
        return _SourceChanged() if requirement is None else Unmet(requirement, stored.head)

    async def _spill_source(self, source: SourceLink, position: int) -> Unmet | None:
        """Spill a fork's source up to a position; the requirement that the source does not meet, if there is one."""
        for _ in range(TRIES_MAX):
            stored = await self._heads.load(source.name)
            requirement = first_unmet(source.requires, stored.head)
            if requirement is not None:
                return Unmet(requirement, stored.head)
            if stored.base >= position:
                return None
            await self._spiller.spill(source.name, stored)
        raise StoreUnavailable

    # -- delete ------------------------------------------------------------------------------------------------------

    async def delete(self, name: StreamName, commit: DeleteCommit) -> LifecycleResult:
        """Delete a stream, or soft-delete it while it has forks. Raises StoreUnavailable, StoreUncertain."""
        commit_id, in_doubt = self._clock.new_commit_id(), False
        tried: Incarnation | None = None
        for _ in range(TRIES_MAX):
            try:
                stored = await self._heads.load(name)
                if in_doubt and stored.ended_by == commit_id:
                    return LifecycleResult(Applied(stored.head))  # the sweep deletes the data
                found = None if stored.head is None else stored.head.incarnation
                if in_doubt and found != tried:
                    return LifecycleResult(Applied(None))  # the incarnation has ended, and the next one has begun
                tried = found
                unmet = first_unmet(commit.requires, stored.head)
                if unmet is not None:
                    if in_doubt and _may_hold_again(unmet):
                        raise StoreUncertain
                    return LifecycleResult(Unmet(unmet, stored.head))
                result = await self._try_delete(name, stored, commit, commit_id)
            except StoreUnavailable as exc:
                raise _error_of(in_doubt=in_doubt) from exc
            match result:
                case LifecycleResult():
                    return result
                case InDoubt():
                    in_doubt = True
                case ConditionFailed() | TransactionConditionFailed():
                    pass
        raise _error_of(in_doubt=in_doubt)

    async def _try_delete(
        self, name: StreamName, stored: HeadItem, commit: DeleteCommit, commit_id: CommitId
    ) -> LifecycleResult | ConditionFailed | TransactionConditionFailed | InDoubt:
        head = stored.head
        assert head is not None, "a deletion requires that the stream exists"
        e = Expression()
        clauses = [*conditions_of(commit.requires, e), fence_is(stored.fence, e), _has_references(head.references, e)]
        if head.references:
            marks = f"{e.name(a.SOFT_DELETED)} = {e.value(1)}, {e.name(a.ENDED_BY)} = {e.value(commit_id)}"
            update = f"SET {marks}, {_next_fence(stored.fence, e)} REMOVE {e.name(a.LISTING)}"
            outcome = await self._table.update(guarded_update(name, e, clauses, update))
            if not isinstance(outcome, Written):
                return outcome
            return LifecycleResult(Applied(self._heads.store(name, outcome.item).head))
        request = self._tombstone_update(name, e, clauses, fence=stored.fence, head=head, commit_id=commit_id)
        if head.forked_from is None:
            outcome = await self._table.update({**request, "ReturnValues": "ALL_OLD"})
            if not isinstance(outcome, Written):
                return outcome
            self._heads.store(name, None)
            buffer = decode_head_item(outcome.item).buffer
            return LifecycleResult(Applied(None), (DroppedIncarnation(name, head.incarnation, buffer),))
        actions, dropped = await self._release_ancestors(head.forked_from, commit_id)
        transaction = await self._table.transact([{"Update": request}, *actions])
        if not isinstance(transaction, Written):
            return transaction
        self._heads.store(name, None)
        return LifecycleResult(Applied(None), (DroppedIncarnation(name, head.incarnation, stored.buffer), *dropped))

    def _tombstone_update(  # noqa: PLR0913  the last three are named
        self, name: StreamName, e: Expression, clauses: list[str], *, fence: int, head: Head, commit_id: CommitId
    ) -> Request:
        """The update that leaves a tombstone of a head."""
        sets = {
            a.TTL: number(tombstone_until(self._clock.now_ms())),
            a.ENDED_BY: {"B": commit_id},
            a.ENDED_LIFE: encode_incarnation(head.incarnation),
            a.BEGAN: number(fence + 1),
        }
        marks = ", ".join(f"{e.name(attribute)} = {e.value(value)}" for attribute, value in sets.items())
        removed = ", ".join(e.name(attribute) for attribute in _NOT_OF_TOMBSTONE)
        return guarded_update(name, e, clauses, f"SET {_next_fence(fence, e)}, {marks} REMOVE {removed}")

    async def _release_ancestors(
        self, origin: ForkOrigin | None, commit_id: CommitId
    ) -> tuple[list[dict[str, Any]], list[DroppedIncarnation]]:
        """The actions on a deleted fork's ancestors: soft-deleted ones that only it referred to end too (spec 4.2)."""
        actions, dropped = list[dict[str, Any]](), list[DroppedIncarnation]()
        while origin is not None:
            stored = await self._heads.load(origin.source)
            source = stored.head
            if source is None or source.incarnation != origin.incarnation:
                break
            e = Expression()
            clauses = [fence_is(stored.fence, e), _has_references(source.references, e)]
            clauses.append(f"{e.name(a.INCARNATION)} = {e.value(encode_incarnation(source.incarnation))}")
            soft_deleted = e.name(a.SOFT_DELETED)
            clauses.append(f"attribute_{'exists' if source.soft_deleted else 'not_exists'}({soft_deleted})")
            if source.soft_deleted and source.references == 1:
                update = self._tombstone_update(
                    origin.source, e, clauses, fence=stored.fence, head=source, commit_id=commit_id
                )
                actions.append({"Update": update})
                dropped.append(DroppedIncarnation(origin.source, source.incarnation, stored.buffer))
                origin = source.forked_from
                continue
            sets = [f"{e.name(a.REFERENCES)} = {e.value(source.references - 1)}"]
            if source.references == 1 and source.forked_from is None and isinstance(source.lifetime, ExpiresAt):
                sets.append(f"{e.name(a.TTL)} = {e.value(_deletable_at(source.lifetime))}")
            update = guarded_update(origin.source, e, clauses, f"SET {', '.join(sets)}")
            actions.append({"Update": update})
            break
        return actions, dropped


def _error_of(*, in_doubt: bool) -> StoreError:
    return StoreUncertain() if in_doubt else StoreUnavailable()


def _may_hold_again(unmet: Requirement) -> bool:
    """Whether a request still on its way may find the requirement met. No stream returns to an earlier state."""
    return isinstance(unmet, PreconditionsHold) and unmet.preconditions.if_none_match is not None


def _judge_existing(commit: CreateCommit, head: Head, stored: HeadItem) -> Outcome | None:
    """The outcome of a creation whose name has an item already; None when a new stream may take its place."""
    found = stored.head
    if stored.ended_incarnation == head.incarnation or (found is not None and found.incarnation == head.incarnation):
        return Applied(msgspec.structs.replace(head, born_us=stored.born_us))  # an earlier try has written it
    return None if commit.absent.holds(found) else Unmet(commit.absent, found)


def first_item(name: StreamName, first: HeadItem) -> Item:
    """The item of a new head, with its place in the listing index and the time after which DynamoDB may delete it.

    DynamoDB must not delete a fork by itself: the deletion of a fork releases its source.
    """
    item = encode_head_item(name, first)
    item[a.LISTING] = number(listing_shard(name))
    head = _head_of(first)
    if isinstance(head.lifetime, ExpiresAt) and head.forked_from is None:
        item[a.TTL] = number(_deletable_at(head.lifetime))
    return item


def _head_of(first: HeadItem) -> Head:
    assert first.head is not None, "a new stream's item has a head"
    return first.head


def _deletable_at(lifetime: ExpiresAt) -> int:
    return lifetime.at_ms // 1_000 + EXPIRED_FOR_S


def _has_references(count: int, e: Expression) -> str:
    references = e.name(a.REFERENCES)
    if count:
        return f"{references} = {e.value(count)}"
    return f"(attribute_not_exists({references}) OR {references} = {e.value(0)})"


def _next_fence(fence: int, e: Expression) -> str:
    return f"{e.name(a.FENCE)} = {e.value(fence + 1)}"
