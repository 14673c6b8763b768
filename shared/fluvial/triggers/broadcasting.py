"""Broadcasting: what was committed goes to the WebSocket connections that API Gateway holds (docs/websocket.md).

The feed's records of one stream come one after the other, so there is one broadcast of a stream at a time. Whatever
leaves it open whether a connection got a message closes that connection: its client comes back with its offset.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

from fluvial.core.errors import StreamVanished
from fluvial.core.frames import page_frames
from fluvial.core.head import Head, Life, life_of
from fluvial.core.limits import EVENT_BYTES_MAX
from fluvial.core.names import StreamName
from fluvial.core.page import Page
from fluvial.stores.dynamodb.connections import Connection
from fluvial.stores.dynamodb.store import DynamoDbStore
from fluvial.world import World

log = logging.getLogger(__name__)

#: Connections that are sent to at once; a call takes some ten milliseconds.
POSTS_AT_ONCE: Final = 32

#: What API Gateway refuses because it is busy is tried again this often.
BUSY_TRIES_MAX: Final = 5
BUSY_PAUSE_S: Final = 0.1

TOO_MANY_REQUESTS: Final = 429
GONE: Final = 410


class PostsToConnections(Protocol):
    """As much of boto3's client of API Gateway's connections as is used."""

    def post_to_connection(self, *, ConnectionId: str, Data: bytes) -> Any:  # noqa: ANN401, N803  boto3's own names
        """Send one message."""
        ...

    def delete_connection(self, *, ConnectionId: str) -> Any:  # noqa: ANN401, N803  boto3's own names
        """Close a connection."""
        ...


class Broadcaster:
    """Sends a stream's commits to its connections."""

    def __init__(self, store: DynamoDbStore, world: World, client: PostsToConnections) -> None:
        """`client` posts to the connections."""
        self._store, self._world, self._client = store, world, client
        self._connections = store.connections

    async def broadcast(self, name: StreamName) -> None:
        """Send each connection what it lacks. Raises StoreUnavailable, StoreUncertain: it may be done again."""
        connections = await self._connections.of(name)
        if not connections:
            return
        known, head = await self._connections.broadcasts(name), await self._store.head(name)
        is_live = head is not None and life_of(head, self._world.now_ms()) is Life.LIVE
        if head is None or not is_live or (known is not None and known.sending is not None):
            await self._end(name, connections)
            return
        await self._each([one for one in connections if one.incarnation != head.incarnation], self._closed)
        connections = [one for one in connections if one.incarnation == head.incarnation]
        done = known.position if known is not None and known.incarnation == head.incarnation else 0
        starts = {one.connection_id: max(one.position, done) if one.has_joined else one.position for one in connections}
        if not head.closed:
            connections = [one for one in connections if not one.has_joined or starts[one.connection_id] < head.tail]
        if not connections:
            return
        await self._connections.begin(name, known, head.incarnation, head.tail)
        messages = {start: await self._messages(name, head, start) for start in set(starts.values())}

        async def send(one: Connection) -> None:
            if await self._sent(one, messages[starts[one.connection_id]]) and not one.has_joined and not head.closed:
                await self._connections.joined(name, one.connection_id, head.tail)

        await self._each(connections, send)
        if head.closed:
            await self._end(name, connections)
        else:
            await self._connections.end(name, head.tail)

    async def _messages(self, name: StreamName, head: Head, start: int) -> list[str]:
        """What brings a connection from a position to the tail."""
        page, messages = Page(start, start, b""), list[str]()
        while page.end < head.tail or not messages:
            if page.end < head.tail:
                try:
                    page = await self._store.read(name, head, page.end, EVENT_BYTES_MAX)
                except StreamVanished:
                    break
            messages += page_frames(head, page)
        return messages

    async def _sent(self, connection: Connection, messages: Sequence[str]) -> bool:
        """Send messages in order; a connection that does not take them all is closed."""
        for message in messages:
            try:
                await self._posted(connection, message.encode())
            except Exception as exc:  # noqa: BLE001  whatever it is, the connection is in doubt
                if not _is_gone(exc):
                    log.warning("connection_in_doubt", extra={"reason": type(exc).__name__})
                await self._closed(connection)
                return False
        return True

    async def _posted(self, connection: Connection, data: bytes) -> None:
        """Send one message. What API Gateway was too busy for was not sent, so it may be sent again."""
        for tried in range(BUSY_TRIES_MAX):
            try:
                await asyncio.to_thread(
                    self._client.post_to_connection, ConnectionId=connection.connection_id, Data=data
                )
            except Exception as exc:
                if _status(exc) != TOO_MANY_REQUESTS or tried == BUSY_TRIES_MAX - 1:
                    raise
                await asyncio.sleep(BUSY_PAUSE_S * 2**tried * (0.5 + self._world.jitter()))
            else:
                return

    async def _closed(self, connection: Connection) -> None:
        try:
            await asyncio.to_thread(self._client.delete_connection, ConnectionId=connection.connection_id)
        except Exception as exc:  # noqa: BLE001  it is gone already, or API Gateway will close it in time
            if not _is_gone(exc):
                log.warning("connection_not_closed", extra={"reason": type(exc).__name__})
        await self._connections.remove(connection.connection_id)

    async def _end(self, name: StreamName, connections: Sequence[Connection]) -> None:
        await self._each(connections, self._closed)
        await self._connections.forget_broadcasts(name)

    @staticmethod
    async def _each(connections: Sequence[Connection], do: Callable[[Connection], Awaitable[None]]) -> None:
        slots = asyncio.Semaphore(POSTS_AT_ONCE)

        async def one(connection: Connection) -> None:
            async with slots:
                await do(connection)

        await asyncio.gather(*map(one, connections))


def _status(error: Exception) -> int | None:
    """The status that API Gateway answered with, if it did."""
    response = getattr(error, "response", None) or {}
    status: int | None = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status


def _is_gone(error: Exception) -> bool:
    return _status(error) == GONE


def connections_client(url: str) -> PostsToConnections:
    """A client that does not send a message twice."""
    import boto3  # noqa: PLC0415  whoever sends nothing needs none
    from botocore.config import Config  # noqa: PLC0415

    retries: Any = {"mode": "standard", "total_max_attempts": 1}
    config = Config(connect_timeout=1, read_timeout=5, retries=retries, max_pool_connections=POSTS_AT_ONCE)
    client: PostsToConnections = boto3.client("apigatewaymanagementapi", endpoint_url=url, config=config)
    return client
