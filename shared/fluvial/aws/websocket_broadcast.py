"""Broadcasting: commits are sent to the WebSocket connections that API Gateway holds (docs/websocket.md).

- Each connection gets the stream's bytes once and in order. Lambda hands over a shard's batches one after the other, so
  that one function at a time broadcasts a stream. If there are two all the same, the broadcast number stops one of them
  (fluvial.aws.connections).
- API Gateway does not tell which messages a connection has. A connection is therefore in doubt when a function died
  during a broadcast, or when the answer to a post was lost. To send again might send twice, to go on might leave a gap:
  so it is closed, and its client comes back with its offset.
- A connection that may be open stays listed until it is closed for certain. A client that is connected but not listed
  would never be sent anything again.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from fluvial.access.project_cache import ProjectCache
from fluvial.aws.connections import Connection, Connections
from fluvial.aws.feed_observer import UNOBSERVED_FEED, FeedObserver
from fluvial.clock import Clock
from fluvial.concurrency import backoff_s, map_bounded
from fluvial.model.errors import StoreUnavailable, StreamVanished
from fluvial.model.head import Head, StreamStatus, stream_status
from fluvial.model.limits import EVENT_BYTES_MAX
from fluvial.model.names import StreamName
from fluvial.model.page import Page
from fluvial.storage.dynamodb.store import DynamoDbStore
from fluvial.storage.dynamodb.table.items import HeadItem
from fluvial.wire.websocket_messages import page_messages

log = logging.getLogger(__name__)

#: Tries of a call that API Gateway refuses because it is busy.
BUSY_TRIES_MAX: Final = 5

#: Groups of connections that are sent to at once; the connections of a group have the same position.
GROUPS_AT_ONCE: Final = 4

#: Tries of the first call to a connection. It is listed during its handshake, when API Gateway still says it is gone.
HANDSHAKE_TRIES_MAX: Final = 6

TOO_MANY_REQUESTS: Final = 429
GONE: Final = 410


@dataclass(frozen=True, slots=True)
class BroadcastLimits:
    """Limits that tests make small; the defaults are the values that a function runs with."""

    #: Calls to API Gateway at the same time, for all connections together; a call takes some ten milliseconds.
    posts_at_once: int = 32

    #: The shortest pause before a call is tried again; it doubles with each try.
    busy_pause_s: float = 0.1

    #: Bytes of missed data that a connection is sent by one broadcast; then it is closed, and its client comes back for
    #: the rest. Clients should read old data with GETs.
    catch_up_bytes_max: int = 1_048_576

    event_bytes_max: int = EVENT_BYTES_MAX


BROADCAST_LIMITS: Final = BroadcastLimits()


class ConnectionsClient(Protocol):
    """The part of boto3's client for API Gateway's connections that is used."""

    def post_to_connection(self, *, ConnectionId: str, Data: bytes) -> Any:  # noqa: ANN401, N803  boto3's own names
        """Send one message."""
        ...

    def delete_connection(self, *, ConnectionId: str) -> Any:  # noqa: ANN401, N803  boto3's own names
        """Close a connection."""
        ...


class Broadcaster:
    """Sends a stream's commits to its connections."""

    def __init__(  # noqa: PLR0913  its clients, its limits, and what observes it
        self,
        store: DynamoDbStore,
        clock: Clock,
        client: ConnectionsClient,
        limits: BroadcastLimits = BROADCAST_LIMITS,
        project_cache: ProjectCache | None = None,
        *,
        observer: FeedObserver = UNOBSERVED_FEED,
    ) -> None:
        """`client` posts to the connections; `project_cache` tells whether the server is still open to everybody."""
        self.limits, self._observer = limits, observer
        self._store, self._clock, self._client = store, clock, client
        self._project_cache = project_cache or ProjectCache(store.projects, clock, closed=False)
        self._connections = Connections(store.table)
        # The loop's own executor has a few threads per processor: six, where Lambda shows two processors.
        self._posts = ThreadPoolExecutor(limits.posts_at_once, thread_name_prefix="fluvial-post")

    def is_due(self, head: HeadItem) -> bool:
        """Whether a stream whose head was just written may have connections."""
        return head.connected_until_s is None or self._now_s() < head.connected_until_s

    async def broadcast(self, name: StreamName, *, has_new_reader: bool = True) -> None:
        """Send each connection the bytes that it lacks; the stream is marked first if it has a new one.

        Raises StoreUnavailable, StoreUncertain: call it again. A broadcast that is still noted as running then closes
        the connections, which are in doubt.
        """
        if has_new_reader:
            await self._connections.mark_connected(name, self._now_s())
        connections = await self._connections.list_readers(name)
        if not connections:
            return
        progress, head = await self._connections.load_progress(name), await self._store.head(name)
        exists = head is not None and stream_status(head, self._clock.now_ms()) is StreamStatus.EXISTS
        has_died = progress is not None and progress.sending is not None
        if head is None or not exists or has_died:
            await self._close_all(name, connections)
            return
        connections = await self._close_unauthorized(head, connections)
        sent_to = progress.position if progress is not None and progress.incarnation == head.incarnation else 0
        groups: dict[int, list[Connection]] = {}
        for one in connections:
            start = max(one.position, sent_to) if one.has_joined else one.position
            if head.closed or not one.has_joined or start < head.tail:
                groups.setdefault(start, []).append(one)
        if not groups:
            return
        began_s = time.monotonic()
        number = await self._connections.begin_broadcast(name, progress, head.incarnation, head.tail)

        async def catch_up(group: tuple[int, list[Connection]]) -> None:
            await self._catch_up(name, head, *group)

        # Hundreds of clients may come back with different offsets: the messages of four groups are in memory at once.
        await map_bounded(list(groups.items()), catch_up, GROUPS_AT_ONCE)
        self._observer.on_broadcast(len(connections), time.monotonic() - began_s)
        if head.closed:
            await self._close_all(name, connections)
        else:
            await self._connections.end_broadcast(name, head.tail, number)

    def _now_s(self) -> int:
        return self._clock.now_ms() // 1_000

    async def _close_unauthorized(self, head: Head, connections: Sequence[Connection]) -> list[Connection]:
        """Close the connections of earlier incarnations and those whose authorization is over; the others."""
        now_s = self._clock.now_ms() / 1_000
        is_open = not any(one.needs_open for one in connections) or await self._project_cache.is_open()

        def may_read(one: Connection) -> bool:
            is_authorized = now_s < one.until_s and (is_open or not one.needs_open)
            return one.incarnation == head.incarnation and is_authorized

        await map_bounded([one for one in connections if not may_read(one)], self._close, self.limits.posts_at_once)
        return [one for one in connections if may_read(one)]

    async def _catch_up(self, name: StreamName, head: Head, start: int, connections: Sequence[Connection]) -> None:
        """Send connections that have everything up to `start` the rest."""
        messages, end = await self._load_messages(name, head, start)

        async def send(one: Connection) -> None:
            if not await self._send(one, messages):
                return
            if end < head.tail:
                await self._close(one)
            elif not one.has_joined and not head.closed:
                await self._connections.mark_joined(name, one.connection_id, head.tail)

        await map_bounded(connections, send, self.limits.posts_at_once)

    async def _load_messages(self, name: StreamName, head: Head, start: int) -> tuple[list[str], int]:
        """The messages from a position towards the tail, and the position where they end."""
        page, messages = Page(start, start, b""), list[str]()
        while not messages or page.end < min(head.tail, start + self.limits.catch_up_bytes_max):
            if page.end < head.tail:
                try:
                    page = await self._store.read(name, head, page.end, self.limits.event_bytes_max)
                except StreamVanished:
                    break
            messages += page_messages(head, page)
        return messages, page.end

    async def _send(self, connection: Connection, messages: Sequence[str]) -> bool:
        """Send messages in order; False when the connection did not take them all, and was closed."""
        for index, message in enumerate(messages):
            is_first = index == 0 and not connection.has_joined
            try:
                await self._call_with_retries(
                    partial(self._client.post_to_connection, Data=message.encode()),
                    connection,
                    {TOO_MANY_REQUESTS: BUSY_TRIES_MAX, **({GONE: HANDSHAKE_TRIES_MAX} if is_first else {})},
                )
            except Exception as exc:  # noqa: BLE001  any error leaves the connection in doubt
                if not _is_gone(exc):
                    log.warning("connection_in_doubt", extra={"reason": type(exc).__name__})
                await self._close(connection, has_awaited_handshake=is_first and _is_gone(exc))
                return False
        return True

    async def _call_with_retries(
        self, call: Callable[..., object], connection: Connection, tries_max: dict[int, int]
    ) -> None:
        """Make a call, up to so many times as `tries_max` has for the status of an answer that says it did nothing."""
        tries = 0
        while True:
            try:
                post = partial(call, ConnectionId=connection.connection_id)
                await asyncio.get_running_loop().run_in_executor(self._posts, post)
            except Exception as exc:
                tries += 1
                if tries >= tries_max.get(_http_status(exc) or 0, 1):
                    raise
                await asyncio.sleep(backoff_s(self.limits.busy_pause_s, tries, self._clock.jitter()))
            else:
                return

    async def _close(self, connection: Connection, *, has_awaited_handshake: bool = False) -> None:
        """Close a connection and remove it. Raises StoreUnavailable when it may still be open: then it stays listed.

        A connection that has not joined may be in its handshake: API Gateway says that it is gone, and opens it a
        moment later. So that answer is believed after several tries only; the caller may have made them already.
        """
        tries_max = {TOO_MANY_REQUESTS: BUSY_TRIES_MAX}
        if not connection.has_joined and not has_awaited_handshake:
            tries_max[GONE] = HANDSHAKE_TRIES_MAX
        try:
            await self._call_with_retries(self._client.delete_connection, connection, tries_max)
        except Exception as exc:
            if not _is_gone(exc):
                log.warning("connection_not_closed", extra={"reason": type(exc).__name__})
                raise StoreUnavailable from exc
        await self._connections.remove(connection.connection_id)

    async def _close_all(self, name: StreamName, connections: Sequence[Connection]) -> None:
        await map_bounded(connections, self._close, self.limits.posts_at_once)
        await self._connections.delete_progress(name)


def _http_status(error: Exception) -> int | None:
    """The status of API Gateway's answer; None when there was no answer."""
    response = getattr(error, "response", None) or {}
    status: int | None = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status


def _is_gone(error: Exception) -> bool:
    return _http_status(error) == GONE


def connections_client(url: str) -> ConnectionsClient:
    """A client that does not send a message twice."""
    import boto3  # noqa: PLC0415  a broadcaster with a client of its own needs none
    from botocore.config import Config  # noqa: PLC0415

    retries: Any = {"mode": "standard", "total_max_attempts": 1}
    config = Config(
        connect_timeout=1, read_timeout=5, retries=retries, max_pool_connections=BROADCAST_LIMITS.posts_at_once
    )
    client: ConnectionsClient = boto3.client("apigatewaymanagementapi", endpoint_url=url, config=config)
    return client
