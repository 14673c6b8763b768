"""Connections: who reads a stream over a WebSocket on API Gateway, and how far they have been sent it.

There is one note per stream of how far all have been sent, none per connection and message. Before anything is sent
the note says up to where; a note that still says so later is of a process that died, and what it sent is not known.
"""

from dataclasses import dataclass

from fluvial.model.errors import StoreUncertain
from fluvial.model.head import Incarnation
from fluvial.model.names import StreamName
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.expression import Expression
from fluvial.storage.dynamodb.table.items import incarnation_of, incarnation_value, number
from fluvial.storage.dynamodb.table.keys import Item, Key, broadcast_key, connection_key, connection_stream_key
from fluvial.storage.dynamodb.table.table import Table
from fluvial.storage.dynamodb.table.write_outcome import ConditionFailed, Written, require_known

CONNECTIONS_PER_QUERY = 1_000


@dataclass(frozen=True, slots=True)
class Connection:
    """One reader of one life of a stream; until it has joined, `position` is what it asked for.

    From `until_s` on, in seconds since 1970, it must be sent nothing. One that `needs_open` showed no token, because
    the server was open to everybody: it must be sent nothing once it is not.
    """

    connection_id: str
    incarnation: Incarnation
    position: int
    until_s: int
    has_joined: bool = False
    needs_open: bool = False


@dataclass(frozen=True, slots=True)
class Broadcasts:
    """How far all who have joined were sent a life; `sending` is up to where somebody began to send and did not end.

    `number` counts the broadcasts, so that what was read is known to be still so, although positions may come again.
    """

    incarnation: Incarnation
    position: int
    sending: int | None
    number: int


class Connections:
    """The connections of one table. Every method raises StoreUnavailable, those that write StoreUncertain."""

    def __init__(self, table: Table) -> None:
        """Nobody is connected yet."""
        self._table = table

    async def add(self, name: StreamName, connection: Connection, noted_until_s: int) -> None:
        """Note a connection, which the feed will see; DynamoDB may forget it after `noted_until_s`."""
        ttl = number(noted_until_s)
        await self._put({**connection_stream_key(connection.connection_id), a.STREAM: {"S": name}, a.TTL: ttl})
        await self._put(
            {
                **connection_key(name, connection.connection_id),
                a.INCARNATION: incarnation_value(connection.incarnation),
                a.TAIL: number(connection.position),
                a.UNTIL: number(connection.until_s),
                a.TTL: ttl,
                **({a.NEEDS_OPEN: number(1)} if connection.needs_open else {}),
            }
        )

    async def remove(self, connection_id: str) -> None:
        """Forget a connection."""
        item = await self._table.get(connection_stream_key(connection_id))
        if item is not None:
            await self._delete(connection_key(StreamName(item[a.STREAM]["S"]), connection_id))
            await self._delete(connection_stream_key(connection_id))

    async def of(self, name: StreamName) -> list[Connection]:
        """All who read a stream."""
        found, after = list[Connection](), a.CONNECTION_SK_PREFIX
        partition = connection_key(name, "")[a.PK]["S"]
        while items := await self._table.query(partition, after=after, limit=CONNECTIONS_PER_QUERY):
            after = items[-1][a.SK]["S"]
            connections = [item for item in items if item[a.SK]["S"].startswith(a.CONNECTION_SK_PREFIX)]
            found += map(_connection, connections)
            if len(connections) < len(items):
                break
        return found

    async def joined(self, name: StreamName, connection_id: str, position: int) -> None:
        """Note that a connection has been sent everything up to a position; nothing happens when it has gone."""
        e = Expression()
        joined, tail = e.name(a.JOINED), e.name(a.TAIL)
        update = f"SET {joined} = {e.value(1)}, {tail} = {e.value(position)}"
        condition = f"attribute_exists({a.PK})"
        await self._update(connection_key(name, connection_id), e, update, condition)

    async def broadcasts(self, name: StreamName) -> Broadcasts | None:
        """How far the stream's broadcasts have come; None where there were none."""
        item = await self._table.get(broadcast_key(name))
        if item is None:
            return None
        sending = int(item[a.SENDING]["N"]) if a.SENDING in item else None
        number = int(item[a.BROADCASTS]["N"])
        return Broadcasts(incarnation_of(item[a.INCARNATION]), int(item[a.TAIL]["N"]), sending, number)

    async def begin(self, name: StreamName, known: Broadcasts | None, incarnation: Incarnation, to: int) -> int:
        """Note that a broadcast up to a position begins, unless another one is under way or has been since.

        The broadcast's number.
        """
        e = Expression()
        life, position, sending = e.name(a.INCARNATION), e.name(a.TAIL), e.name(a.SENDING)
        done = known.position if known is not None and known.incarnation == incarnation else 0
        update = f"SET {life} = {e.value(incarnation_value(incarnation))}, {position} = {e.value(done)}"
        number, condition = 1, f"attribute_not_exists({a.PK})"
        if known is not None:
            number = known.number + 1
            condition = f"attribute_not_exists({sending}) AND {e.name(a.BROADCASTS)} = {e.value(known.number)}"
        update += f", {sending} = {e.value(to)}, {e.name(a.BROADCASTS)} = {e.value(number)}"
        await self._update_exclusively(broadcast_key(name), e, update, condition)
        return number

    async def end(self, name: StreamName, to: int, number: int) -> None:
        """Note that everybody was sent everything up to a position, by the broadcast with this number."""
        e = Expression()
        update = f"SET {e.name(a.TAIL)} = {e.value(to)} REMOVE {e.name(a.SENDING)}"
        await self._update_exclusively(broadcast_key(name), e, update, f"{e.name(a.BROADCASTS)} = {e.value(number)}")

    async def forget_broadcasts(self, name: StreamName) -> None:
        """Nobody reads the stream any more."""
        await self._delete(broadcast_key(name))

    async def _put(self, item: Item) -> None:
        require_known(await self._table.put(item))

    async def _update(self, key: Key, expression: Expression, update: str, condition: str) -> Written | ConditionFailed:
        request = {"Key": key, "UpdateExpression": update, "ConditionExpression": condition, **expression.parameters()}
        return require_known(await self._table.update(request))

    async def _update_exclusively(self, key: Key, expression: Expression, update: str, condition: str) -> None:
        """Update an item. Raises StoreUncertain when the condition fails: another broadcast is under way."""
        if isinstance(await self._update(key, expression, update, condition), ConditionFailed):
            raise StoreUncertain

    async def _delete(self, key: Key) -> None:
        require_known(await self._table.delete(key))


def _connection(item: Item) -> Connection:
    return Connection(
        item[a.SK]["S"].removeprefix(a.CONNECTION_SK_PREFIX),
        incarnation_of(item[a.INCARNATION]),
        int(item[a.TAIL]["N"]),
        int(item[a.UNTIL if a.UNTIL in item else a.TTL]["N"]),
        has_joined=a.JOINED in item,
        needs_open=a.NEEDS_OPEN in item,
    )
