"""The table: the requests that the store sends to DynamoDB, one method each.

All items pass here: every put says the item's format, and what a newer release has written is refused
(fluvial.storage.dynamodb.table.format).
"""

from typing import Any, Final

from fluvial.model.errors import StoreUnavailable
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.aws_client import Aws, OnBusy
from fluvial.storage.dynamodb.table.expression import Request
from fluvial.storage.dynamodb.table.format import require_understood, with_format
from fluvial.storage.dynamodb.table.keys import Item, Key
from fluvial.storage.dynamodb.table.write_outcome import (
    ConditionFailed,
    TransactionConditionFailed,
    TransactionOutcome,
    WriteOutcome,
)

#: BatchGetItem's and BatchWriteItem's own limits.
#: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ServiceQuotas.html
BATCH_GET_MAX: Final = 100

#: How often DynamoDB may leave keys for another request without a single item more.
BATCH_GET_TRIES_MAX: Final = 4


class Table:
    """One table. Writes return their outcome and raise StoreUnavailable; reads raise StoreUnavailable.

    Both raise ItemTooNew, which is a StoreUnavailable.
    """

    def __init__(self, aws: Aws, name: str) -> None:
        """No request is sent yet."""
        self._aws, self.name, self.region = aws, name, aws.region

    async def update(self, request: Request, on_busy: OnBusy | None = None) -> WriteOutcome:
        """Send an UpdateItem; `Written.item` is the item that the request asks to return. `on_busy`: see Aws.write."""
        send = self._aws.writes.update_item
        return _understood(await self._aws.write(send, on_busy, TableName=self.name, **request))

    async def put(self, item: Item, **condition: Any) -> WriteOutcome:  # noqa: ANN401  boto3's own parameters
        """Send a PutItem under a condition."""
        outcome = await self._aws.write(
            self._aws.writes.put_item,
            TableName=self.name,
            Item=with_format(item),
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
            **condition,
        )
        return _understood(outcome)

    async def delete(self, key: Key, **condition: Any) -> WriteOutcome:  # noqa: ANN401  boto3's own parameters
        """Send a DeleteItem under a condition."""
        return await self._aws.write(self._aws.writes.delete_item, TableName=self.name, Key=key, **condition)

    async def transact(self, actions: list[dict[str, Any]]) -> TransactionOutcome:
        """Carry out all actions or none."""
        for action in actions:
            for request in action.values():
                request["TableName"] = self.name
                request.pop("ReturnValues", None)
                if "Item" in request:
                    request["Item"] = with_format(request["Item"])
        send = self._aws.writes.transact_write_items
        outcome = await self._aws.write_transaction(send, TransactItems=actions)
        if isinstance(outcome, TransactionConditionFailed):
            require_understood(*outcome.items.values())
        return outcome

    async def get(self, key: Key, *, consistent: bool = True) -> Item | None:
        """The item at a key."""
        answer = await self._aws.read(self._aws.reads.get_item, TableName=self.name, Key=key, ConsistentRead=consistent)
        item: Item | None = answer.get("Item")
        require_understood(item)
        return item

    async def get_many(self, keys: list[Key], *, consistent: bool = True) -> list[Item]:
        """The items at the keys, in any order; those that are not there are left out.

        Without `consistent`, which costs twice as much, one that was put a moment ago may be left out.
        """
        found = list[Item]()
        for _ in range(len(keys) + BATCH_GET_TRIES_MAX):
            if not keys:
                return found
            wanted, keys = keys[:BATCH_GET_MAX], keys[BATCH_GET_MAX:]
            request = {self.name: {"Keys": wanted, "ConsistentRead": consistent}}
            answer = await self._aws.read(self._aws.reads.batch_get_item, RequestItems=request)
            items: list[Item] = answer["Responses"].get(self.name, [])
            require_understood(*items)
            found += items
            keys = answer.get("UnprocessedKeys", {}).get(self.name, {}).get("Keys", []) + keys
        raise StoreUnavailable

    async def query(  # noqa: PLR0913  all are named, and DynamoDB's own
        self,
        partition: str,
        *,
        after: str = "",
        limit: int,
        backwards: bool = False,
        before: str | None = None,
        consistent: bool = True,
    ) -> list[Item]:
        """Items of a partition in the order of their sort keys, strictly after `after` and, backwards, up to `before`.

        At most `limit`, and at most the 1 MB that one answer carries. Without `consistent`, which costs twice as much,
        they are as they were a moment ago.
        """
        condition, values = f"{a.PK} = :pk AND {a.SK} > :after", {":pk": {"S": partition}, ":after": {"S": after}}
        if before is not None:
            condition = f"{a.PK} = :pk AND {a.SK} BETWEEN :after AND :before"
            values[":before"] = {"S": before}
        elif not after:
            condition = f"{a.PK} = :pk"
            del values[":after"]
        answer = await self._aws.read(
            self._aws.reads.query,
            TableName=self.name,
            KeyConditionExpression=condition,
            ExpressionAttributeValues=values,
            ConsistentRead=consistent,
            ScanIndexForward=not backwards,
            Limit=limit,
        )
        items: list[Item] = answer["Items"]
        require_understood(*items)
        return items

    async def scan(self, start: Key | None) -> tuple[list[Item], Key | None]:
        """Items of the whole table after a key, about a megabyte of them, and the last one's key if there are more.

        They are as they were a moment ago. What is done about one must look again. They may be of a newer format.
        """
        from_there = {} if start is None else {"ExclusiveStartKey": start}
        answer = await self._aws.read(self._aws.reads.scan, TableName=self.name, **from_there)
        return answer["Items"], answer.get("LastEvaluatedKey")

    async def list_heads(self, shard: int, low: str, high: str, limit: int) -> list[Item]:
        """Keys of the heads in one partition of the listing index, with partition keys from `low` to `high`."""
        answer = await self._aws.read(
            self._aws.reads.query,
            TableName=self.name,
            IndexName=a.LISTING_INDEX,
            KeyConditionExpression=f"{a.LISTING} = :shard AND {a.PK} BETWEEN :low AND :high",
            ExpressionAttributeValues={":shard": {"N": str(shard)}, ":low": {"S": low}, ":high": {"S": high}},
            Limit=limit,
        )
        items: list[Item] = answer["Items"]
        return items


def _understood(outcome: WriteOutcome) -> WriteOutcome:
    """The outcome of a write. Raises ItemTooNew when its condition failed on an item of a newer format."""
    if isinstance(outcome, ConditionFailed):
        require_understood(outcome.item)
    return outcome
