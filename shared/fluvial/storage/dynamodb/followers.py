"""Followers: one item for each estuary that follows a life of a stream, in a partition that goes with the life."""

from fluvial.model.errors import StoreUncertain
from fluvial.model.followers import Follower, SubscriptionId
from fluvial.model.head import EstuaryMode, Incarnation
from fluvial.model.names import StreamName
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.aws_client import ConditionFailed, OutcomeUnknown
from fluvial.storage.dynamodb.table.keys import Item, follower_key, followers_partition
from fluvial.storage.dynamodb.table.table import Table


async def add_follower(table: Table, source: Incarnation, follower: Follower) -> None:
    """See Store.add_follower."""
    item: Item = {
        **follower_key(source, follower.estuary),
        a.ESTUARY: {"S": follower.mode.value},
        a.SUBSCRIPTION: {"B": follower.subscription},
    }
    try:
        await table.put(item)
    except OutcomeUnknown as exc:
        raise StoreUncertain from exc


async def remove_follower(table: Table, source: Incarnation, follower: Follower) -> None:
    """See Store.remove_follower."""
    try:
        await table.delete(
            follower_key(source, follower.estuary),
            ConditionExpression=f"{a.SUBSCRIPTION} = :id",
            ExpressionAttributeValues={":id": {"B": follower.subscription}},
        )
    except ConditionFailed:
        pass  # it is gone already, or there is a later one
    except OutcomeUnknown as exc:
        raise StoreUncertain from exc


async def listed_followers(table: Table, source: Incarnation, after: str, count_max: int) -> list[Follower]:
    """See Store.followers."""
    found = list[Follower]()
    while len(found) < count_max:
        last = found[-1].estuary if found else after
        items = await table.query(followers_partition(source), after=last, limit=count_max - len(found))
        if not items:
            break
        found += map(_follower, items)
    return found


async def one_follower(table: Table, source: Incarnation, estuary: StreamName) -> Follower | None:
    """See Store.follower."""
    item = await table.get(follower_key(source, estuary))
    return None if item is None else _follower(item)


def _follower(item: Item) -> Follower:
    return Follower(
        StreamName(item[a.SK]["S"]), EstuaryMode(item[a.ESTUARY]["S"]), SubscriptionId(item[a.SUBSCRIPTION]["B"])
    )
