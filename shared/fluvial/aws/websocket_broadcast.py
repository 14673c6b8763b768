"""Broadcasting: what was committed goes to the WebSocket connections that API Gateway holds (docs/websocket.md).

Lambda hands on the records of a shard one batch after the other, so there is one broadcast of a stream at a time;
should there be two all the same, the note of the first refuses the second. Whatever leaves it open whether a connection
got a message closes that connection: its client comes back with its offset.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from fluvial.access.project_cache import ProjectCache
from fluvial.aws.connections import Connection, Connections
from fluvial.clock import Clock
from fluvial.model.errors import StoreUnavailable, StreamVanished
from fluvial.model.head import Head, StreamStatus, stream_status
from fluvial.model.limits import EVENT_BYTES_MAX
from fluvial.model.names import StreamName
from fluvial.model.page import Page
from fluvial.storage.dynamodb.store import DynamoDbStore
from fluvial.wire.websocket_messages import page_messages

log = logging.getLogger(__name__)

T = TypeVar("T")

#: What API Gateway refuses because it is busy is tried again this often.
BUSY_TRIES_MAX: Final = 5

#: Catch-ups from different offsets that are loaded and sent at once.
GROUPS_AT_ONCE: Final = 4

#: A connection that is being made is noted before API Gateway has it: until then it says that it is gone.
HANDSHAKE_TRIES_MAX: Final = 6

TOO_MANY_REQUESTS: Final = 429
GONE: Final = 410


@dataclass(frozen=True, slots=True)
class BroadcastLimits:
    """What is chosen when a broadcaster is made; each has the value that a function runs with."""

    #: Connections that are sent to at once; a call takes some ten milliseconds.
    posts_at_once: int = 32

    #: The first pause before a call is tried again that API Gateway was too busy for.
    busy_pause_s: float = 0.1

    #: What a connection is sent at once of what it has missed; then it is closed, and its client goes on from there.
    #: For more there are reads.
    catch_up_bytes_max: int = 1_048_576

    event_bytes_max: int = EVENT_BYTES_MAX


BROADCAST_LIMITS: Final = BroadcastLimits()


class ConnectionsClient(Protocol):
    """As much of boto3's client of API Gateway's connections as is used."""

    def post_to_connection(self, *, ConnectionId: str, Data: bytes) -> Any:  # noqa: ANN401, N803  boto3's own names
        """Send one message."""
        ...

    def delete_connection(self, *, ConnectionId: str) -> Any:  # noqa: ANN401, N803  boto3's own names
        """Close a connection."""
        ...


class Broadcaster:
    """Sends a stream's commits to its connections."""

    def __init__(
        self,
        store: DynamoDbStore,
        clock: Clock,
        client: ConnectionsClient,
        limits: BroadcastLimits = BROADCAST_LIMITS,
        project_cache: ProjectCache | None = None,
    ) -> None:
        """`client` posts to the connections; `directory` tells whether everybody may still read."""
        self.limits = limits
        self._store, self._clock, self._client = store, clock, client
        self._project_cache = project_cache or ProjectCache(store.projects, clock, closed=False)
        self._connections = Connections(store.table)

    async def broadcast(self, name: StreamName) -> None:
        """Send each connection what it lacks. Raises StoreUnavailable, StoreUncertain: it may be done again."""
        connections = await self._connections.of(name)
        if not connections:
            return
        known, head = await self._connections.broadcasts(name), await self._store.head(name)
        is_live = head is not None and stream_status(head, self._clock.now_ms()) is StreamStatus.EXISTS
        if head is None or not is_live or (known is not None and known.sending is not None):
            await self._end(name, connections)
            return
        now_s = self._clock.now_ms() / 1_000
        is_open = not any(one.needs_open for one in connections) or await self._project_cache.is_open()

        def may_read(one: Connection) -> bool:
            is_let_in = now_s < one.until_s and (is_open or not one.needs_open)
            return one.incarnation == head.incarnation and is_let_in

        await _each([one for one in connections if not may_read(one)], self._closed, self.limits.posts_at_once)
        connections = [one for one in connections if may_read(one)]
        done = known.position if known is not None and known.incarnation == head.incarnation else 0
        starts = {one.connection_id: max(one.position, done) if one.has_joined else one.position for one in connections}
        if not head.closed:
            connections = [one for one in connections if not one.has_joined or starts[one.connection_id] < head.tail]
        if not connections:
            return
        number = await self._connections.begin(name, known, head.incarnation, head.tail)
        groups: dict[int, list[Connection]] = {}
        for one in connections:
            groups.setdefault(starts[one.connection_id], []).append(one)
        # A group's news is let go of before the next one's is loaded: hundreds may come back from different offsets.
        await _each(list(groups.items()), lambda group: self._brought_up_to_date(name, head, *group), GROUPS_AT_ONCE)
        if head.closed:
            await self._end(name, connections)
        else:
            await self._connections.end(name, head.tail, number)

    async def _brought_up_to_date(
        self, name: StreamName, head: Head, start: int, connections: Sequence[Connection]
    ) -> None:
        """Send what those lack who have everything up to `start`."""
        messages, end = await self._news(name, head, start)

        async def send(one: Connection) -> None:
            if not await self._sent(one, messages):
                return
            if end < head.tail:
                await self._closed(one)
            elif not one.has_joined and not head.closed:
                await self._connections.joined(name, one.connection_id, head.tail)

        await _each(connections, send, self.limits.posts_at_once)

    async def _news(self, name: StreamName, head: Head, start: int) -> tuple[list[str], int]:
        """What brings a connection from a position towards the tail, and how far that is."""
        page, messages = Page(start, start, b""), list[str]()
        while not messages or page.end < min(head.tail, start + self.limits.catch_up_bytes_max):
            if page.end < head.tail:
                try:
                    page = await self._store.read(name, head, page.end, self.limits.event_bytes_max)
                except StreamVanished:
                    break
            messages += page_messages(head, page)
        return messages, page.end

    async def _sent(self, connection: Connection, messages: Sequence[str]) -> bool:
        """Send messages in order; a connection that does not take them all is closed."""
        for number, message in enumerate(messages):
            is_first = number == 0 and not connection.has_joined
            try:
                await self._called(
                    partial(self._client.post_to_connection, Data=message.encode()),
                    connection,
                    {TOO_MANY_REQUESTS: BUSY_TRIES_MAX, **({GONE: HANDSHAKE_TRIES_MAX} if is_first else {})},
                )
            except Exception as exc:  # noqa: BLE001  whatever it is, the connection is in doubt
                if not _is_gone(exc):
                    log.warning("connection_in_doubt", extra={"reason": type(exc).__name__})
                await self._closed(connection, is_waited_for=is_first and _is_gone(exc))
                return False
        return True

    async def _called(self, call: Callable[..., object], connection: Connection, tries_max: dict[int, int]) -> None:
        """Make a call, again after the answers that say that nothing was done."""
        tried = 0
        while True:
            try:
                await asyncio.to_thread(call, ConnectionId=connection.connection_id)
            except Exception as exc:
                tried += 1
                if tried >= tries_max.get(_status(exc) or 0, 1):
                    raise
                await asyncio.sleep(self.limits.busy_pause_s * 2**tried * (0.5 + self._clock.jitter()))
            else:
                return

    async def _closed(self, connection: Connection, *, is_waited_for: bool = False) -> None:
        """Close a connection. Raises StoreUnavailable when it may be open: then it must stay noted.

        One that has not joined may be in its handshake, unless it `is_waited_for` already: then it is not there yet.
        """
        tries_max = {TOO_MANY_REQUESTS: BUSY_TRIES_MAX}
        if not connection.has_joined and not is_waited_for:
            tries_max[GONE] = HANDSHAKE_TRIES_MAX
        try:
            await self._called(self._client.delete_connection, connection, tries_max)
        except Exception as exc:
            if not _is_gone(exc):
                log.warning("connection_not_closed", extra={"reason": type(exc).__name__})
                raise StoreUnavailable from exc
        await self._connections.remove(connection.connection_id)

    async def _end(self, name: StreamName, connections: Sequence[Connection]) -> None:
        await _each(connections, self._closed, self.limits.posts_at_once)
        await self._connections.forget_broadcasts(name)


async def _each(items: Sequence[T], do: Callable[[T], Awaitable[None]], at_once: int) -> None:
    """Do it for each, so many at once; the first error is raised once nobody is at work any more."""
    slots = asyncio.Semaphore(at_once)

    async def one(item: T) -> None:
        async with slots:
            await do(item)

    for result in await asyncio.gather(*map(one, items), return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def _status(error: Exception) -> int | None:
    """The status that API Gateway answered with, if it did."""
    response = getattr(error, "response", None) or {}
    status: int | None = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status


def _is_gone(error: Exception) -> bool:
    return _status(error) == GONE


def connections_client(url: str) -> ConnectionsClient:
    """A client that does not send a message twice."""
    import boto3  # noqa: PLC0415  whoever sends nothing needs none
    from botocore.config import Config  # noqa: PLC0415

    retries: Any = {"mode": "standard", "total_max_attempts": 1}
    config = Config(
        connect_timeout=1, read_timeout=5, retries=retries, max_pool_connections=BROADCAST_LIMITS.posts_at_once
    )
    client: ConnectionsClient = boto3.client("apigatewaymanagementapi", endpoint_url=url, config=config)
    return client
