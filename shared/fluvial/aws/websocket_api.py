"""Handles the events of API Gateway's WebSocket API: it stores connections, and the change feed sends to them.

A client connects to `wss://{api}/{stage}?stream={name}&offset={offset}&token={token}`. The name is the stream's path
below /v1/stream/, encoded as a query value. The token may be in the Authorization field, which browsers cannot send.
"""

from functools import partial
from typing import Any, Final
from urllib.parse import urlencode

from fluvial.access.authorizer import OPEN_ACCESS, Authorizer, Credentials
from fluvial.aws.connections import CONNECTION_S_MAX, Connection, Connections
from fluvial.clock import Clock
from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.names import parse_name
from fluvial.operations.open_read import OpenedRead, open_read
from fluvial.storage.dynamodb.store import DynamoDbStore
from fluvial.wire.http_head import check_subprotocols
from fluvial.wire.request import ReadQuery, parse_read
from fluvial.wire.response import Response, request_error_response
from fluvial.wire.websocket_messages import PONG, is_ping

Answer = dict[str, Any]

_PONG: Final[Answer] = {"statusCode": 200, "body": PONG}
_DONE: Final[Answer] = {"statusCode": 200}
_NOT_UNDERSTOOD: Final[Answer] = {"statusCode": 400, "body": '{"type":"error","message":"only pings are understood"}'}


class WebSocketApi:
    """Stores which client reads which stream, and where its read begins."""

    def __init__(self, store: DynamoDbStore, clock: Clock, authorizer: Authorizer) -> None:
        """The connections are in the store's table."""
        self._store, self._clock, self._authorizer = store, clock, authorizer
        self._connections = Connections(store.table)

    async def handle(self, event: dict[str, Any]) -> Answer:
        """Answer an event of the API. Raises StoreUnavailable, StoreUncertain, so that the function fails visibly."""
        connection_id: str = event["requestContext"]["connectionId"]
        match event["requestContext"]["eventType"]:
            case "CONNECT":
                try:
                    read = await self._open_read(event)
                except RequestError as exc:
                    read = request_error_response(exc)
                if isinstance(read, Response):
                    return {"statusCode": read.status, "body": read.body.decode()}
                await self._add_connection(connection_id, read)
                return _DONE
            case "DISCONNECT":
                await self._connections.remove(connection_id)
                return _DONE
            case _:
                return _PONG if is_ping(event.get("body")) else _NOT_UNDERSTOOD

    async def _open_read(self, event: dict[str, Any]) -> OpenedRead | Response:
        query: dict[str, list[str]] = event.get("multiValueQueryStringParameters") or {}
        if len(query.get("stream", ())) != 1:
            raise RequestError(ErrorCode.MALFORMED_QUERY, "stream must be given once")
        fields = {name.lower(): values for name, values in (event.get("multiValueHeaders") or {}).items()}
        check_subprotocols({key.encode(): values[-1].encode("latin-1", "replace") for key, values in fields.items()})
        name = parse_name(query["stream"][0])
        return await open_read(
            self._store,
            self._clock,
            self._authorizer,
            tenant=await self._authorizer.find_tenant(name),
            name=name,
            credentials=_credentials(fields, query),
            parse_query=partial(_parse_query, query),
        )

    async def _add_connection(self, connection_id: str, read: OpenedRead) -> None:
        now_ms = self._clock.now_ms()
        until_s = int(now_ms / 1_000 + min(CONNECTION_S_MAX, read.authorization.remaining_s(now_ms)))
        is_open = read.authorization is OPEN_ACCESS
        connection = Connection(connection_id, read.head.incarnation, read.position, until_s, needs_open=is_open)
        await self._connections.add(read.name, connection, now_ms // 1_000 + CONNECTION_S_MAX)


def _parse_query(query: dict[str, list[str]]) -> ReadQuery:
    offset = {"offset": query["offset"]} if "offset" in query else {}
    return parse_read(urlencode({**offset, "live": "websocket"}, doseq=True).encode())


def _credentials(fields: dict[str, list[str]], query: dict[str, list[str]]) -> Credentials:
    authorizations, tokens = fields.get("authorization", []), query.get("token", [])
    if len(authorizations) > 1 or len(tokens) > 1:
        raise RequestError(ErrorCode.MALFORMED_QUERY, "the token was given more than once")
    authorization = authorizations[0].encode("latin-1", "replace") if authorizations else None
    return Credentials(authorization, tokens[0] if tokens else None, is_read=True)
