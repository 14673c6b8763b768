"""The whole server as one ASGI application: streams, WebSockets and control routes."""

import hmac
from typing import TYPE_CHECKING, Final

from starlette.types import ASGIApp, Receive, Scope, Send

from fluvial.fanout.deliveries import Deliveries
from fluvial.fanout.estuaries import Estuaries
from fluvial.model.errors import ErrorCode
from fluvial.model.names import RESERVED_SEGMENT
from fluvial.server.asgi_send import send_response
from fluvial.server.exchange import Observers
from fluvial.server.monitoring import Monitoring
from fluvial.server.streams import STREAM_ROOT_BYTES, StreamsApp
from fluvial.server.subscriptions import ServedSubscriptions, SubscriptionsApp
from fluvial.server.websocket import WebSocketApp, reject_cdn_bypass, reject_websocket_path
from fluvial.wire.response import error_response

if TYPE_CHECKING:
    from fluvial.server.console.app import ConsoleApp

#: The checks of load balancers and of the Lambda Web Adapter, which do not come through the CDN.
CHECKS: Final = frozenset({b"/health", b"/ready"})

#: The methods of a read-only server.
SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")

#: What the protocol's own routes have in their paths.
RESERVED_BYTES: Final = f"/{RESERVED_SEGMENT}".encode()

CDN_HEADER: Final = b"x-fluvial-origin"


class Application:
    """The whole server as one ASGI application over one open store."""

    def __init__(
        self, streams: StreamsApp, observers: Observers, monitoring: Monitoring, *, read_only: bool, cdn_secret: str
    ) -> None:
        """`cdn_secret` has the values that prove a request came through the CDN, with commas; empty is no CDN."""
        self.streams, self.live, self._read_only = streams, streams.live, read_only
        self.observers, self.monitoring = observers, monitoring
        self._cdn_secrets = [secret.strip().encode() for secret in cdn_secret.split(",") if secret.strip()]
        self.sockets = WebSocketApp(self.live, streams.authorizer)
        self._subscriptions = SubscriptionsApp(streams, None)
        self._control_app: ASGIApp | None = None
        self._console: ConsoleApp | None = None

    def load_console(self) -> None:
        """Serve the console from now on. The edge function does not, and imports none of it."""
        from fluvial.server.console.app import ConsoleApp  # noqa: PLC0415

        self._console = ConsoleApp(self.streams.authorizer.project_cache)

    def serve_subscriptions(self, served: ServedSubscriptions) -> None:
        """Serve subscriptions from now on; until then, the routes below `__ds` answer with 501."""
        self._subscriptions = SubscriptionsApp(self.streams, served)

    def load_control_app(self) -> ASGIApp:
        """The control routes, built at the first call: importing FastAPI takes longer than all other imports."""
        if self._control_app is None:
            self._control_app = self._build_control_app()
        return self._control_app

    def _build_control_app(self) -> ASGIApp:
        from fluvial.server.control.app import build_control_app  # noqa: PLC0415

        streams = self.streams
        estuaries = Estuaries(streams.store, streams.clock, Deliveries(streams.store, streams.clock))
        return build_control_app(
            self.live, streams.store, estuaries, streams.authorizer, streams.clock, monitoring=self.monitoring
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, and tell the observers."""
        exchange = self.observers.begin(scope, send)
        try:
            await self.application_for(scope)(scope, receive, exchange.send)
        finally:
            self.observers.end(exchange)

    def application_for(self, scope: Scope) -> ASGIApp:
        """Stream paths go straight to their applications, all other paths to the control routes."""
        is_stream = scope["raw_path"].startswith(STREAM_ROOT_BYTES)
        if self._cdn_secrets and scope["raw_path"] not in CHECKS and not self._came_through_cdn(scope):
            return reject_cdn_bypass
        if self._read_only and scope.get("method", "GET") not in SAFE_METHODS:
            return reject_write
        if scope["type"] == "websocket":
            return self.sockets if is_stream else reject_websocket_path
        if is_stream:
            return self._subscriptions if RESERVED_BYTES in scope["raw_path"] else self.streams
        if self._console is not None and self._console.has_path(scope["raw_path"]):
            return self._console
        return self.load_control_app()

    def _came_through_cdn(self, scope: Scope) -> bool:
        proofs = [value for name, value in scope["headers"] if name == CDN_HEADER]
        matches = [hmac.compare_digest(proof, secret) for proof in proofs for secret in self._cdn_secrets]
        return len(proofs) == 1 and any(matches)


async def reject_write(_scope: Scope, _receive: Receive, send: Send) -> None:
    """The answer of a read-only server to a request that is not a read."""
    allow = (b"allow", ", ".join(SAFE_METHODS).encode())
    message = "this server only reads; send what changes streams to another one"
    await send_response(send, error_response(405, ErrorCode.METHOD_NOT_ALLOWED, message, allow))
