"""Sockets: what API Gateway tells of WebSocket connections. Who connects is noted; the change feed does the rest.

`wss://{api}/{stage}?stream={name}&offset={offset}&token={token}`: the stream's path below /v1/stream/, encoded as a
query value. The token may come in the Authorization field, which browsers cannot send.
"""

from typing import Any, Final
from urllib.parse import urlencode

from fluvial.access.gate import OPEN, Credentials, Gate, check_stranger
from fluvial.core.commit import Unmet
from fluvial.core.errors import ErrorCode, RefusedRequest
from fluvial.core.frames import PONG, is_ping
from fluvial.core.grant import Need
from fluvial.core.http_head import check_subprotocols
from fluvial.core.names import parse_name
from fluvial.core.request import parse_read
from fluvial.core.response import Response, not_live_response, refused_response
from fluvial.operations.reading import position_in, used_head
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

    def __init__(self, store: DynamoDbStore, world: World, gate: Gate) -> None:
        """Nobody is connected yet."""
        self._store, self._world, self._gate = store, world, gate

    async def handle(self, event: dict[str, Any]) -> Answer:
        """The answer to an event of the API. Raises StoreUnavailable, StoreUncertain."""
        connection_id: str = event["requestContext"]["connectionId"]
        match event["requestContext"]["eventType"]:
            case "CONNECT":
                try:
                    refusal = await self._connected(connection_id, event)
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

    async def _connected(self, connection_id: str, event: dict[str, Any]) -> Response | None:
        query: dict[str, list[str]] = event.get("multiValueQueryStringParameters") or {}
        if len(query.get("stream", ())) != 1:
            raise RefusedRequest(ErrorCode.MALFORMED_QUERY, "stream must be given once")
        fields = {name.lower(): values for name, values in (event.get("multiValueHeaders") or {}).items()}
        check_subprotocols({key.encode(): values[-1].encode("latin-1", "replace") for key, values in fields.items()})
        name = parse_name(query["stream"][0])
        tenant = await self._gate.tenant(name)
        permit = self._gate.permit(tenant, name, Need.READ, _credentials(fields, query))
        known = {key: query[key] for key in ("offset",) if key in query}
        try:
            read = parse_read(urlencode({**known, "live": "websocket"}, doseq=True).encode())
        except RefusedRequest:
            await check_stranger(self._store, self._world, name, permit)
            raise
        head = await used_head(self._store, self._world, name, permit.check)
        if isinstance(head, Unmet):
            return not_live_response(head.head, self._world.now_ms())
        position = position_in(head, read.read_from)
        now_ms = self._world.now_ms()
        until_s = int(now_ms / 1_000 + min(CONNECTION_S_MAX, permit.rest_s(now_ms)))
        connection = Connection(connection_id, head.incarnation, position, until_s, needs_open=permit is OPEN)
        await self._store.connections.add(name, connection, now_ms // 1_000 + CONNECTION_S_MAX)
        return None


def _credentials(fields: dict[str, list[str]], query: dict[str, list[str]]) -> Credentials:
    sent, tokens = fields.get("authorization", []), query.get("token", [])
    if len(sent) > 1 or len(tokens) > 1:
        raise RefusedRequest(ErrorCode.MALFORMED_QUERY, "the token was given more than once")
    authorization = sent[0].encode("latin-1", "replace") if sent else None
    return Credentials(authorization, tokens[0] if tokens else None, reads=True)
