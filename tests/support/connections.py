"""API Gateway's side of WebSocket connections, and clients that reconnect with their last offset."""

import json
import random
from base64 import b64decode
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError, ReadTimeoutError


class ConnectionDiedError(BaseException):
    """The function's process has died while sending."""


@dataclass
class Client:
    """A reader: the data that it has received, and the offset that it goes on from."""

    data: bytes = b""
    offset: str = "-1"
    closed: bool = False
    is_connected: bool = False
    _pending: bytes = b""

    def take(self, message: dict[str, Any]) -> None:
        """Receive a message as docs/websocket.md says."""
        if message["type"] == "data":
            payload: str = message["payload"]
            self._pending += b64decode(payload) if message.get("encoding") == "base64" else payload.encode()
            return
        self.data, self._pending = self.data + self._pending, b""
        self.offset = message["streamNextOffset"]
        self.closed = message.get("streamClosed", False)

    def drop_connection(self) -> None:
        """Lose the connection, and the data whose control message has not come."""
        self.is_connected, self._pending = False, b""


@dataclass
class ConnectionApi:
    """Posts messages to connections; a post may be lost, be throttled, or kill the process that sends it."""

    clients: dict[str, Client] = field(default_factory=dict)
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    unknown: float = 0.0
    throttled: float = 0.0
    death: float = 0.0
    posts: int = 0
    handshakes: dict[str, int] = field(default_factory=dict)  # posts that fail before a handshake is complete
    closings_refused: int = 0

    def post_to_connection(self, *, ConnectionId: str, Data: bytes) -> None:  # noqa: N803  boto3's own names
        """Post a message to a connection."""
        assert len(Data) <= 32_768, "larger than a frame"
        if self.handshakes.get(ConnectionId, 0) > 0:
            self.handshakes[ConnectionId] -= 1
            raise client_error("GoneException", 410)
        fate = self.rng.random()
        if fate < self.throttled:
            raise client_error("LimitExceededException", 429)
        client = self._client(ConnectionId)
        self.posts += 1
        arrives = self.rng.random() < 0.5
        if fate > 1 - self.unknown:
            if arrives:
                client.take(json.loads(Data))
            raise ReadTimeoutError(endpoint_url="https://connections")
        if fate > 1 - self.unknown - self.death:
            if arrives:
                client.take(json.loads(Data))
            raise ConnectionDiedError
        client.take(json.loads(Data))

    def delete_connection(self, *, ConnectionId: str) -> None:  # noqa: N803  boto3's own names
        """Close a connection."""
        if self.handshakes.get(ConnectionId, 0) > 0:
            self.handshakes[ConnectionId] -= 1
            raise client_error("GoneException", 410)
        if self.closings_refused > 0:
            self.closings_refused -= 1
            raise client_error("LimitExceededException", 429)
        self._client(ConnectionId).drop_connection()
        del self.clients[ConnectionId]

    def _client(self, connection_id: str) -> Client:
        if connection_id not in self.clients:
            raise client_error("GoneException", 410)
        return self.clients[connection_id]


def client_error(code: str, status: int) -> ClientError:
    """An error of API Gateway."""
    error = {"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(error, "PostToConnection")  # type: ignore[arg-type]
