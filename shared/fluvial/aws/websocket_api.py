"""Sockets: what API Gateway tells of WebSocket connections. Who connects is noted; the change feed does the rest.

`wss://{api}/{stage}?stream={name}&offset={offset}&token={token}`: the stream's path below /v1/stream/, encoded as a
query value. The token may come in the Authorization field, which browsers cannot send.
"""

from typing import Any, Final
from urllib.parse import urlencode

from fluvial.access.authorizer import OPEN, Authorizer, Credentials, check_anonymous
from fluvial.aws.connections import Connection, Connections
from fluvial.clock import Clock
from fluvial.model.commit import Unmet
from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.names import parse_name
from fluvial.model.permissions import Permission
from fluvial.operations.open_read import load_head_and_renew, resolve_position
from fluvial.storage.dynamodb.store import DynamoDbStore
from fluvial.wire.http_head import check_subprotocols
from fluvial.wire.request import parse_read
from fluvial.wire.response import Response, not_found_or_gone_response, request_error_response
from fluvial.wire.websocket_messages import PONG, is_ping

#: API Gateway ends a connection after two hours; some more, so that nothing is forgotten that still lives.
#: https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html
CONNECTION_S_MAX: Final = 7_200 + 900

Answer = dict[str, Any]

_PONG: Final[Answer] = {"statusCode": 200, "body": PONG}
_DONE: Final[Answer] = {"statusCode": 200}
_NOT_UNDERSTOOD: Final[Answer] = {"statusCode": 400, "body": '{"type":"error","message":"only pings are understood"}'}


class WebSocketApi:
    """Notes who reads what."""

    def __init__(self, store: DynamoDbStore, clock: Clock, authorizer: Authorizer) -> None:
        """Nobody is connected yet."""
        self._store, self._clock, self._authorizer = store, clock, authorizer
        self._connections = Connections(store.table)

    async def handle(self, event: dict[str, Any]) -> Answer:
        """The answer to an event of the API. Raises StoreUnavailable, StoreUncertain."""
        connection_id: str = event["requestContext"]["connectionId"]
        match event["requestContext"]["eventType"]:
            case "CONNECT":
                try:
                    refusal = await self._connected(connection_id, event)
                except RequestError as exc:
                    refusal = request_error_response(exc)
                if refusal is None:
                    return _DONE
                return {"statusCode": refusal.status, "body": refusal.body.decode()}
            case "DISCONNECT":
                await self._connections.remove(connection_id)
                return _DONE
            case _:
                return _PONG if is_ping(event.get("body")) else _NOT_UNDERSTOOD

    async def _connected(self, connection_id: str, event: dict[str, Any]) -> Response | None:
        query: dict[str, list[str]] = event.get("multiValueQueryStringParameters") or {}
        if len(query.get("stream", ())) != 1:
            raise RequestError(ErrorCode.MALFORMED_QUERY, "stream must be given once")
        fields = {name.lower(): values for name, values in (event.get("multiValueHeaders") or {}).items()}
        check_subprotocols({key.encode(): values[-1].encode("latin-1", "replace") for key, values in fields.items()})
        name = parse_name(query["stream"][0])
        tenant = await self._authorizer.tenant(name)
        permit = self._authorizer.permit(tenant, name, Permission.READ, _credentials(fields, query))
        known = {key: query[key] for key in ("offset",) if key in query}
        try:
            read = parse_read(urlencode({**known, "live": "websocket"}, doseq=True).encode())
        except RequestError:
            await check_anonymous(self._store, self._clock, name, permit)
            raise
        head = await load_head_and_renew(self._store, self._clock, name, permit.check)
        if isinstance(head, Unmet):
            return not_found_or_gone_response(head.head, self._clock.now_ms())
        position = resolve_position(head, read.read_from)
        now_ms = self._clock.now_ms()
        until_s = int(now_ms / 1_000 + min(CONNECTION_S_MAX, permit.remaining_s(now_ms)))
        connection = Connection(connection_id, head.incarnation, position, until_s, needs_open=permit is OPEN)
        await self._connections.add(name, connection, now_ms // 1_000 + CONNECTION_S_MAX)
        return None


def _credentials(fields: dict[str, list[str]], query: dict[str, list[str]]) -> Credentials:
    sent, tokens = fields.get("authorization", []), query.get("token", [])
    if len(sent) > 1 or len(tokens) > 1:
        raise RequestError(ErrorCode.MALFORMED_QUERY, "the token was given more than once")
    authorization = sent[0].encode("latin-1", "replace") if sent else None
    return Credentials(authorization, tokens[0] if tokens else None, reads=True)
