"""Followers: one item for each estuary that follows an incarnation, in one partition per incarnation."""

from fluvial.model.followers import Follower, SubscriptionId
from fluvial.model.head import EstuaryMode, Incarnation
from fluvial.model.names import StreamName
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.keys import Item, follower_key, followers_partition
from fluvial.storage.dynamodb.table.table import Table
from fluvial.storage.dynamodb.table.write_outcome import require_known


async def add_follower(table: Table, source: Incarnation, follower: Follower) -> None:
    """See Store.add_follower."""
    item: Item = {
        **follower_key(source, follower.estuary),
        a.ESTUARY: {"S": follower.mode.value},
        a.SUBSCRIPTION: {"B": follower.subscription},
    }
    require_known(await table.put(item))


async def remove_follower(table: Table, source: Incarnation, follower: Follower) -> None:
    """See Store.remove_follower."""
    outcome = await table.delete(
        follower_key(source, follower.estuary),
        ConditionExpression=f"{a.SUBSCRIPTION} = :id",
        ExpressionAttributeValues={":id": {"B": follower.subscription}},
    )
    require_known(outcome)  # when the condition fails, the follower is gone, or follows by a later subscription


async def list_followers(table: Table, source: Incarnation, after: str, count_max: int) -> list[Follower]:
    """See Store.followers."""
    found = list[Follower]()
    while len(found) < count_max:
        last = found[-1].estuary if found else after
        items = await table.query(followers_partition(source), after=last, limit=count_max - len(found))
        if not items:
            break
        found += map(_follower, items)
    return found


async def load_follower(table: Table, source: Incarnation, estuary: StreamName) -> Follower | None:
    """See Store.follower."""
    item = await table.get(follower_key(source, estuary))
    return None if item is None else _follower(item)


def _follower(item: Item) -> Follower:
    return Follower(
        StreamName(item[a.SK]["S"]), EstuaryMode(item[a.ESTUARY]["S"]), SubscriptionId(item[a.SUBSCRIPTION]["B"])
    )
