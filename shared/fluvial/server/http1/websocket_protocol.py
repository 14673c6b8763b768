"""uvicorn's WebSocket protocol, with handshakes that may be answered in plain HTTP.

The one rule: a handshake that was answered is complete, whichever way it was answered. uvicorn sets
`handshake_complete` when it accepts a handshake, but not when the application answers one over HTTP. Without that:

1. The application answers a handshake with `websocket.http.response.start` and `.body`, e.g. 404, and returns.
2. uvicorn sees a handshake that is not complete, and logs "ASGI callable returned without completing handshake".
3. Every client that asks for a missing stream writes an error into the log.
"""

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket connection, from its handshake on."""

    async def send(self, message: ASGISendEvent) -> None:
        """Send the application's next message."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True
