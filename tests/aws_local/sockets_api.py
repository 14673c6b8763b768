"""API Gateway's WebSocket API on one machine: sends the sockets function events, and posts messages to connections."""

import asyncio
import json
import random
from typing import Any
from urllib.parse import parse_qsl
from uuid import uuid4

from starlette.types import Receive, Scope, Send

from tests.aws_local.environments import Environments, FunctionFailedError
from tests.aws_local.token_bucket import TokenBucket, stage_throttle


class SocketsApi:
    """The open connections, by their ids."""

    def __init__(
        self, function: Environments, lost_disconnections: float = 0.0, throttle: TokenBucket | None = None
    ) -> None:
        """`lost_disconnections` is the share of disconnections of which the function gets no event.

        The throttle is that of the stage: `DefaultRouteSettings`.
        """
        self._function, self._lost_disconnections = function, lost_disconnections
        self._throttle = throttle or stage_throttle()
        self._connections: dict[str, Send] = {}

    async def connect(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, from its handshake to its end."""
        connection_id = f"{uuid4().hex[:14]}="
        query: dict[str, list[str]] = {}
        for key, value in parse_qsl(scope["query_string"].decode(), keep_blank_values=True):
            query.setdefault(key, []).append(value)
        status = 429
        if self._throttle.take():
            status, _ = await self._notify(connection_id, "CONNECT", multiValueQueryStringParameters=query)
        if status != 200:
            await send({"type": "websocket.http.response.start", "status": status, "headers": []})
            await send({"type": "websocket.http.response.body", "body": b""})
            return
        await send({"type": "websocket.accept"})
        self._connections[connection_id] = send
        while (message := await receive())["type"] != "websocket.disconnect":
            if message["type"] == "websocket.receive":
                _, body = await self._notify(connection_id, "MESSAGE", body=message.get("text") or "")
                if body:  # the template's route response
                    await send({"type": "websocket.send", "text": body})
        self._connections.pop(connection_id, None)
        if random.random() >= self._lost_disconnections:
            await self._notify(connection_id, "DISCONNECT")

    async def manage(self, connection_id: str, method: str, body: bytes) -> int:
        """Post to a connection or close it, and return the status of the answer."""
        send = self._connections.get(connection_id)
        if send is None:
            return 410
        try:
            if method == "POST":
                await asyncio.wait_for(send({"type": "websocket.send", "text": body.decode()}), 5)
            else:
                self._connections.pop(connection_id, None)
                await send({"type": "websocket.close", "code": 1000})
        except Exception:  # noqa: BLE001  the client has disconnected
            self._connections.pop(connection_id, None)
            return 410
        return 200

    async def _notify(self, connection_id: str, kind: str, **more: Any) -> tuple[int, str]:  # noqa: ANN401  an event's
        context = {"connectionId": connection_id, "eventType": kind}
        try:
            answer = await self._function.invoke(json.dumps({"requestContext": context, **more}).encode())
        except (FunctionFailedError, TimeoutError):
            return 500, ""
        found = json.loads(answer)
        return found["statusCode"], found.get("body") or ""
