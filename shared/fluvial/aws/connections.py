"""Connections: the WebSocket readers of a stream on API Gateway, and the progress of the stream's broadcasts.

- The head has a mark until when the stream may have connections, so that a commit to a stream without any takes no
  query. The mark is set after the connection was added and before the head is read for it. So a commit that the read
  does not find carries the mark, and its record has the change feed broadcast it.
- Progress is noted once per stream, not per connection and message: up to which position all joined connections have
  been sent the stream, and, while a broadcast runs, up to which position it sends.
- The broadcast is noted before its first message. Suppose that a function dies after 100 of 200 posts. The next one
  finds the broadcast still noted as running, and knows that the connections are in doubt: some of them have the
  messages, and API Gateway cannot tell which.
"""

from dataclasses import dataclass
from typing import Final

from fluvial.model.head import Incarnation
from fluvial.model.names import StreamName
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.expression import Expression
from fluvial.storage.dynamodb.table.items import decode_incarnation, encode_incarnation, number
from fluvial.storage.dynamodb.table.keys import (
    Item,
    Key,
    broadcast_key,
    connection_key,
    connection_stream_key,
    head_key,
)
from fluvial.storage.dynamodb.table.table import Table
from fluvial.storage.dynamodb.table.write_outcome import ConditionFailed, Written, require_known, require_written

CONNECTIONS_PER_QUERY = 1_000

#: API Gateway ends a connection after two hours. A stored one is kept a little longer, so that it outlasts the client.
#: https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html
CONNECTION_S_MAX: Final = 7_200 + 900


@dataclass(frozen=True, slots=True)
class Connection:
    """One reader of one incarnation of a stream.

    `position` is the one that it asked for and, once it has joined, that up to which it was sent the stream then. From
    `until_s` on, in seconds since 1970, it must be sent nothing. A connection that `needs_open` came without a token
    while the server was open to everybody: it must be sent nothing once the server is not.
    """

    connection_id: str
    incarnation: Incarnation
    position: int
    until_s: int
    has_joined: bool = False
    needs_open: bool = False


@dataclass(frozen=True, slots=True)
class BroadcastProgress:
    """The joined connections have an incarnation up to `position`; a broadcast up to `sending` has begun and not ended.

    `number` counts the stream's broadcasts, because the position does not tell that another function has broadcast
    since. Suppose that function A lists a new connection and reads the progress. Function B does, too, sends the
    connection what it has missed, and ends its broadcast at the same position, since the tail has not moved. If A now
    compared positions, it would go on and send that connection everything a second time. The number stops A.
    """

    incarnation: Incarnation
    position: int
    sending: int | None
    number: int


class Connections:
    """The connections in one table. Every method raises StoreUnavailable, those that write StoreUncertain."""

    def __init__(self, table: Table) -> None:
        """`table` is the store's own: a connection is an item beside the head of its stream."""
        self._table = table

    async def add(self, name: StreamName, connection: Connection, expires_s: int) -> None:
        """Add a connection, which the change feed will see; DynamoDB may delete it after `expires_s`."""
        ttl = number(expires_s)
        await self._put({**connection_stream_key(connection.connection_id), a.STREAM: {"S": name}, a.TTL: ttl})
        await self._put(
            {
                **connection_key(name, connection.connection_id),
                a.INCARNATION: encode_incarnation(connection.incarnation),
                a.TAIL: number(connection.position),
                a.UNTIL: number(connection.until_s),
                a.TTL: ttl,
                **({a.NEEDS_OPEN: number(1)} if connection.needs_open else {}),
            }
        )

    async def remove(self, connection_id: str) -> None:
        """Remove a connection, if it is there."""
        item = await self._table.get(connection_stream_key(connection_id))
        if item is not None:
            await self._delete(connection_key(StreamName(item[a.STREAM]["S"]), connection_id))
            await self._delete(connection_stream_key(connection_id))

    async def list_readers(self, name: StreamName) -> list[Connection]:
        """All connections that read a stream."""
        found, after = list[Connection](), a.CONNECTION_SK_PREFIX
        partition = connection_key(name, "")[a.PK]["S"]
        while items := await self._table.query(partition, after=after, limit=CONNECTIONS_PER_QUERY):
            after = items[-1][a.SK]["S"]
            connections = [item for item in items if item[a.SK]["S"].startswith(a.CONNECTION_SK_PREFIX)]
            found += map(_decode_connection, connections)
            if len(connections) < len(items):
                break
        return found

    async def mark_joined(self, name: StreamName, connection_id: str, position: int) -> None:
        """Note that a connection was sent everything up to a position; one that was removed is not added again."""
        e = Expression()
        joined, tail = e.name(a.JOINED), e.name(a.TAIL)
        update = f"SET {joined} = {e.value(1)}, {tail} = {e.value(position)}"
        condition = f"attribute_exists({a.PK})"
        await self._update(connection_key(name, connection_id), e, update, condition)

    async def mark_connected(self, name: StreamName, now_s: int) -> None:
        """Mark a stream's head for as long as a connection that has been added may last; seldom more than one write.

        The mark lasts for twice as long, so that connections that come within that time find it in place.
        """
        e = Expression()
        until = e.name(a.CONNECTED_UNTIL)
        ends_early = f"(attribute_not_exists({until}) OR {until} < {e.value(now_s + CONNECTION_S_MAX)})"
        condition = f"attribute_exists({e.name(a.INCARNATION)}) AND {ends_early}"
        update = f"SET {until} = {e.value(now_s + 2 * CONNECTION_S_MAX)}"
        await self._update(head_key(name), e, update, condition)

    async def load_progress(self, name: StreamName) -> BroadcastProgress | None:
        """The progress of a stream's broadcasts; None before the first one."""
        item = await self._table.get(broadcast_key(name))
        if item is None:
            return None
        sending = int(item[a.SENDING]["N"]) if a.SENDING in item else None
        number = int(item[a.BROADCASTS]["N"])
        return BroadcastProgress(decode_incarnation(item[a.INCARNATION]), int(item[a.TAIL]["N"]), sending, number)

    async def begin_broadcast(
        self, name: StreamName, known: BroadcastProgress | None, incarnation: Incarnation, to: int
    ) -> int:
        """Note that a broadcast up to a position begins; its number.

        Raises StoreUncertain when the progress is no longer the `known` one: another function broadcasts, or has since.
        """
        e = Expression()
        attribute, position, sending = e.name(a.INCARNATION), e.name(a.TAIL), e.name(a.SENDING)
        done = known.position if known is not None and known.incarnation == incarnation else 0
        update = f"SET {attribute} = {e.value(encode_incarnation(incarnation))}, {position} = {e.value(done)}"
        number, condition = 1, f"attribute_not_exists({a.PK})"
        if known is not None:
            number = known.number + 1
            condition = f"attribute_not_exists({sending}) AND {e.name(a.BROADCASTS)} = {e.value(known.number)}"
        update += f", {sending} = {e.value(to)}, {e.name(a.BROADCASTS)} = {e.value(number)}"
        await self._update_exclusively(broadcast_key(name), e, update, condition)
        return number

    async def end_broadcast(self, name: StreamName, to: int, number: int) -> None:
        """Note that the broadcast with this number has sent everything up to a position to every connection."""
        e = Expression()
        update = f"SET {e.name(a.TAIL)} = {e.value(to)} REMOVE {e.name(a.SENDING)}"
        await self._update_exclusively(broadcast_key(name), e, update, f"{e.name(a.BROADCASTS)} = {e.value(number)}")

    async def delete_progress(self, name: StreamName) -> None:
        """Delete the progress of a stream that has no connection any more."""
        await self._delete(broadcast_key(name))

    async def _put(self, item: Item) -> None:
        require_known(await self._table.put(item))

    async def _update(self, key: Key, expression: Expression, update: str, condition: str) -> Written | ConditionFailed:
        request = {"Key": key, "UpdateExpression": update, "ConditionExpression": condition, **expression.parameters()}
        return require_known(await self._table.update(request))

    async def _update_exclusively(self, key: Key, expression: Expression, update: str, condition: str) -> None:
        """Update an item. Raises StoreUncertain when the condition fails: another broadcast is under way."""
        require_written(await self._update(key, expression, update, condition))

    async def _delete(self, key: Key) -> None:
        require_known(await self._table.delete(key))


def _decode_connection(item: Item) -> Connection:
    return Connection(
        item[a.SK]["S"].removeprefix(a.CONNECTION_SK_PREFIX),
        decode_incarnation(item[a.INCARNATION]),
        int(item[a.TAIL]["N"]),
        int(item[a.UNTIL if a.UNTIL in item else a.TTL]["N"]),
        has_joined=a.JOINED in item,
        needs_open=a.NEEDS_OPEN in item,
    )
