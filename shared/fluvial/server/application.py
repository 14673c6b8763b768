"""The whole server as one ASGI application: streams, WebSockets and control routes."""

import hmac
from functools import cached_property
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from fluvial.fanout.estuaries import Estuaries
from fluvial.server.streams import SAFE_METHODS, STREAM_ROOT_BYTES, StreamsApp, reject_write
from fluvial.server.websocket import WebSocketApp, reject_cdn_bypass, reject_websocket_path

#: Where a load balancer or the Lambda Web Adapter looks whether the process answers, without passing a CDN.
HEALTH: Final = b"/health"

CDN_HEADER: Final = b"x-fluvial-origin"


class Application:
    """The whole server as one ASGI application over one open store."""

    def __init__(self, streams: StreamsApp, *, read_only: bool, cdn_secret: str) -> None:
        """`cdn_secret` is what proves that a request came through the CDN, or several of them with commas between."""
        self.streams, self.live, self._read_only = streams, streams.live, read_only
        self._cdn_secrets = [secret.strip().encode() for secret in cdn_secret.split(",") if secret.strip()]
        self.sockets = WebSocketApp(self.live, streams.authorizer)

    @cached_property
    def admin(self) -> ASGIApp:
        """What is not a stream; made when it is asked for, because FastAPI takes longer to import than all else."""
        from fluvial.server.control.app import admin_app  # noqa: PLC0415

        streams = self.streams
        estuaries = Estuaries(streams.store, streams.clock, streams.publisher)
        return admin_app(self.live, streams.store, estuaries, streams.authorizer, streams.clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Streams go the short way; all else goes to the framework."""
        is_stream = scope["raw_path"].startswith(STREAM_ROOT_BYTES)
        if self._cdn_secrets and scope["raw_path"] != HEALTH and not self._came_through_the_cdn(scope):
            await reject_cdn_bypass(scope, send)
        elif self._read_only and scope.get("method", "GET") not in SAFE_METHODS:
            await reject_write(scope, receive, send)
        elif scope["type"] == "websocket":
            await (self.sockets if is_stream else reject_websocket_path)(scope, receive, send)
        elif is_stream:
            await self.streams(scope, receive, send)
        else:
            await self.admin(scope, receive, send)

    def _came_through_the_cdn(self, scope: Scope) -> bool:
        proofs = [value for name, value in scope["headers"] if name == CDN_HEADER]
        matches = [hmac.compare_digest(proof, secret) for proof in proofs for secret in self._cdn_secrets]
        return len(proofs) == 1 and any(matches)
