"""Sockets: what API Gateway tells of WebSocket connections. Who connects is noted; the change feed does the rest.

`wss://{api}/{stage}?stream={name}&offset={offset}`: the stream's path below /v1/stream/, encoded as a query value.
"""

from typing import Any, Final
from urllib.parse import urlencode

from fluvial.core.commit import Unmet
from fluvial.core.errors import ErrorCode, RefusedRequest
from fluvial.core.frames import PONG, is_ping
from fluvial.core.names import parse_name
from fluvial.core.request import parse_read
from fluvial.core.response import Response, not_live_response, refused_response
from fluvial.operations.reading import page_at, position_in, used_head
from fluvial.stores.dynamodb.connections import Connection
from fluvial.stores.dynamodb.store import DynamoDbStore
from fluvial.world import World

#: API Gateway ends a connection after two hours; some more, so that nothing is forgotten that still lives.
#: https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html
CONNECTION_S_MAX: Final = 7_200 + 900

Answer = dict[str, Any]

_PONG: Final[Answer] = {"statusCode": 200, "body": PONG}
_DONE: Final[Answer] = {"statusCode": 200}
_NOT_UNDERSTOOD: Final[Answer] = {"statusCode": 400, "body": '{"type":"error","message":"only pings are understood"}'}


class Sockets:
    """Notes who reads what."""

    def __init__(self, store: DynamoDbStore, world: World) -> None:
        """Nobody is connected yet."""
        self._store, self._world = store, world

    async def handle(self, event: dict[str, Any]) -> Answer:
        """The answer to an event of the API. Raises StoreUnavailable, StoreUncertain."""
        connection_id: str = event["requestContext"]["connectionId"]
        match event["requestContext"]["eventType"]:
            case "CONNECT":
                try:
                    refusal = await self._connected(connection_id, event.get("multiValueQueryStringParameters") or {})
                except RefusedRequest as exc:
                    refusal = refused_response(exc)
                if refusal is None:
                    return _DONE
                return {"statusCode": refusal.status, "body": refusal.body.decode()}
            case "DISCONNECT":
                await self._store.connections.remove(connection_id)
                return _DONE
            case _:
                return _PONG if is_ping(event.get("body")) else _NOT_UNDERSTOOD

    async def _connected(self, connection_id: str, query: dict[str, list[str]]) -> Response | None:
        if len(query.get("stream", ())) != 1:
            raise RefusedRequest(ErrorCode.MALFORMED_QUERY, "stream must be given once")
        name = parse_name(query["stream"][0])
        known = {key: query[key] for key in ("offset",) if key in query}
        read = parse_read(urlencode({**known, "live": "websocket"}, doseq=True).encode())
        head = await used_head(self._store, self._world, name)
        if isinstance(head, Unmet):
            return not_live_response(head.head, self._world.now_ms())
        position = position_in(head, read.read_from)
        await page_at(self._store, name, head, position, 1)  # refuses an offset that no server ever issued
        connection = Connection(connection_id, head.incarnation, position)
        await self._store.connections.add(name, connection, self._world.now_ms() // 1_000 + CONNECTION_S_MAX)
        return None
