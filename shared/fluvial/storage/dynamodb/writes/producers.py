"""Evicted producers: those that have not written lately leave the head, and return with their next batch."""

from typing import Final

from fluvial.concurrency import map_bounded
from fluvial.model.errors import StoreUnavailable
from fluvial.model.head import Head, Incarnation, ProducerStamp, ProducerState
from fluvial.model.names import StreamName
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.expression import Expression
from fluvial.storage.dynamodb.table.head_cache import HeadCache
from fluvial.storage.dynamodb.table.items import HeadItem, encode_incarnation, number
from fluvial.storage.dynamodb.table.keys import Item, producer_key, producers_partition
from fluvial.storage.dynamodb.table.table import Table
from fluvial.storage.dynamodb.table.write_outcome import ConditionFailed, InDoubt, Written
from fluvial.storage.dynamodb.writes.conditions import producer_path
from fluvial.storage.dynamodb.writes.updates import HEAD_PRODUCERS_MAX, guarded_update

#: How many producers are evicted at once, so that the next new ones find room.
EVICTED_AT_ONCE: Final = HEAD_PRODUCERS_MAX // 2

PUTS_AT_ONCE: Final = 8


async def find_producer(table: Table, incarnation: Incarnation, producer_id: str) -> ProducerState | None:
    """The state of an evicted producer; stale when the producer is in the head again."""
    item = await table.get(producer_key(incarnation, producer_id))
    return None if item is None else _evicted_state(item)


async def list_producers(table: Table, head: Head, count_max: int) -> list[ProducerStamp]:
    """See Store.producers. Of a producer that is in the head again, the state outside is stale."""
    states, after = dict[str, ProducerState](), ""
    while head.producer_count > len(head.producers) and len(states) < count_max:
        limit = count_max - len(states)
        items = await table.query(producers_partition(head.incarnation), after=after, limit=limit)
        if not items:
            break
        after = str(items[-1][a.SK]["S"])
        states |= {str(item[a.SK]["S"]): _evicted_state(item) for item in items}
    states |= head.producers
    return [ProducerStamp(one, states[one].epoch, states[one].seq) for one in sorted(states)][:count_max]


def _evicted_state(item: Item) -> ProducerState:
    return ProducerState(int(item[a.EPOCH]["N"]), int(item[a.SEQ]["N"]))


async def evict_producers(
    table: Table, heads: HeadCache, name: StreamName, stored: HeadItem, count: int
) -> HeadItem | None:
    """Move producers out of a full head; the head item as it is then, None when another process was first.

    Those leave that have not written for longest.

    Their states are stored outside before they leave the head. A state only advances, so a late or repeated request
    cannot set one back.
    """
    head = stored.head
    assert head is not None, "only a head has producers"
    by_use = sorted(head.producers, key=lambda producer_id: stored.used_s.get(producer_id, 0))
    leaving = {producer_id: head.producers[producer_id] for producer_id in by_use[:count]}

    async def put(producer_id: str) -> None:
        await _put_evicted(table, name, (head.incarnation, producer_id), leaving[producer_id])

    await map_bounded(leaving, put, PUTS_AT_ONCE)
    e = Expression()
    moved, paths = e.name(a.EVICTIONS), {one: producer_path(one, e) for one in leaving}
    clauses = [f"{e.name(a.INCARNATION)} = {e.value(encode_incarnation(head.incarnation))}"]
    for one, path in paths.items():
        clauses += [f"{path}[0] = {e.value(leaving[one].epoch)}", f"{path}[1] = {e.value(leaving[one].seq)}"]
    clauses.append(f"{moved} = {e.value(stored.evictions)}" if stored.evictions else f"attribute_not_exists({moved})")
    update = f"SET {moved} = {e.value(stored.evictions + 1)} REMOVE {', '.join(paths.values())}"
    match await table.update(guarded_update(name, e, clauses, update)):
        case Written(item):
            return heads.store(name, item)
        case ConditionFailed(item):
            heads.store(name, item)
            return None
        case InDoubt(cause):
            raise StoreUnavailable from cause


async def _put_evicted(table: Table, owner: StreamName, key: tuple[Incarnation, str], state: ProducerState) -> None:
    e = Expression()
    epoch, seq = e.name(a.EPOCH), e.name(a.SEQ)
    same_epoch = f"{epoch} = {e.value(state.epoch)} AND {seq} <= {e.value(state.seq)}"
    is_behind = f"{epoch} < {e.value(state.epoch)} OR ({same_epoch})"
    item = {**producer_key(*key), a.EPOCH: number(state.epoch), a.SEQ: number(state.seq), a.OWNER: {"S": owner}}
    condition = f"attribute_not_exists({e.name(a.PK)}) OR {is_behind}"
    outcome = await table.put(item, ConditionExpression=condition, **e.parameters())
    if isinstance(outcome, InDoubt):
        raise StoreUnavailable from outcome.cause
    # When the condition fails, a later state of the producer is outside the head already.
