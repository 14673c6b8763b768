"""The whole server as one ASGI application: streams, WebSockets and control routes."""

import hmac
from typing import TYPE_CHECKING, Final

from starlette.types import ASGIApp, Receive, Scope, Send

from fluvial.fanout.deliveries import Deliveries
from fluvial.fanout.estuaries import Estuaries
from fluvial.server.streams import SAFE_METHODS, STREAM_ROOT_BYTES, StreamsApp, reject_write
from fluvial.server.websocket import WebSocketApp, reject_cdn_bypass, reject_websocket_path

if TYPE_CHECKING:
    from fluvial.server.console.app import ConsoleApp

#: The health check of load balancers and of the Lambda Web Adapter, which do not come through the CDN.
HEALTH: Final = b"/health"

CDN_HEADER: Final = b"x-fluvial-origin"


class Application:
    """The whole server as one ASGI application over one open store."""

    def __init__(self, streams: StreamsApp, *, read_only: bool, cdn_secret: str) -> None:
        """`cdn_secret` has the values that prove a request came through the CDN, with commas; empty is no CDN."""
        self.streams, self.live, self._read_only = streams, streams.live, read_only
        self._cdn_secrets = [secret.strip().encode() for secret in cdn_secret.split(",") if secret.strip()]
        self.sockets = WebSocketApp(self.live, streams.authorizer)
        self._control_app: ASGIApp | None = None
        self._console: ConsoleApp | None = None

    def load_console(self) -> None:
        """Serve the console from now on. The edge function does not, and imports none of it."""
        from fluvial.server.console.app import ConsoleApp  # noqa: PLC0415

        self._console = ConsoleApp(self.streams.authorizer.project_cache)

    def load_control_app(self) -> ASGIApp:
        """The control routes, built at the first call: importing FastAPI takes longer than all other imports."""
        if self._control_app is None:
            self._control_app = self._build_control_app()
        return self._control_app

    def _build_control_app(self) -> ASGIApp:
        from fluvial.server.control.app import build_control_app  # noqa: PLC0415

        streams = self.streams
        estuaries = Estuaries(streams.store, streams.clock, Deliveries(streams.store, streams.clock))
        return build_control_app(self.live, streams.store, estuaries, streams.authorizer, streams.clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route a request: stream paths straight to their applications, all other paths to the control routes."""
        is_stream = scope["raw_path"].startswith(STREAM_ROOT_BYTES)
        if self._cdn_secrets and scope["raw_path"] != HEALTH and not self._came_through_cdn(scope):
            await reject_cdn_bypass(scope, send)
        elif self._read_only and scope.get("method", "GET") not in SAFE_METHODS:
            await reject_write(scope, receive, send)
        elif scope["type"] == "websocket":
            await (self.sockets if is_stream else reject_websocket_path)(scope, receive, send)
        elif is_stream:
            await self.streams(scope, receive, send)
        elif self._console is not None and self._console.has_path(scope["raw_path"]):
            await self._console(scope, receive, send)
        else:
            await self.load_control_app()(scope, receive, send)

    def _came_through_cdn(self, scope: Scope) -> bool:
        proofs = [value for name, value in scope["headers"] if name == CDN_HEADER]
        matches = [hmac.compare_digest(proof, secret) for proof in proofs for secret in self._cdn_secrets]
        return len(proofs) == 1 and any(matches)
