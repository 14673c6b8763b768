"""The composition root: settings and an open store become an application."""

import hmac
from functools import cached_property
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from fluvial.access.gate import OperatorSecrets
from fluvial.fanout.estuaries import Estuaries
from fluvial.fanout.publishing import Backlog, Publisher
from fluvial.guarding import gate_of
from fluvial.settings import Settings
from fluvial.stores.contract import Store
from fluvial.transports.asgi import SAFE_METHODS, STREAM_ROOT_BYTES, StreamsApp, refuse_change
from fluvial.transports.live import LiveLimits, LiveReads, SseDelivery
from fluvial.transports.websocket import SocketsApp, no_socket, refuse_detour
from fluvial.world import World

#: Where a load balancer or the Lambda Web Adapter looks whether the process answers, without passing a CDN.
HEALTH: Final = b"/health"

CDN_HEADER: Final = b"x-fluvial-origin"


class Application:
    """The whole server as one ASGI application over one open store."""

    def __init__(self, streams: StreamsApp, *, read_only: bool, cdn_secret: str) -> None:
        """`cdn_secret` is what proves that a request came through the CDN, or several of them with commas between."""
        self.streams, self.live, self._read_only = streams, streams.live, read_only
        self._cdn_secrets = [secret.strip().encode() for secret in cdn_secret.split(",") if secret.strip()]
        self.sockets = SocketsApp(self.live, streams.gate)

    @cached_property
    def admin(self) -> ASGIApp:
        """What is not a stream; made when it is asked for, because FastAPI takes longer to import than all else."""
        from fluvial.transports.admin import admin_app  # noqa: PLC0415

        streams = self.streams
        estuaries = Estuaries(streams.store, streams.world, streams.publisher)
        return admin_app(self.live, streams.store, estuaries, streams.gate, streams.world)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Streams go the short way; all else goes to the framework."""
        is_stream = scope["raw_path"].startswith(STREAM_ROOT_BYTES)
        if self._cdn_secrets and scope["raw_path"] != HEALTH and not self._came_through_the_cdn(scope):
            await refuse_detour(scope, send)
        elif self._read_only and scope.get("method", "GET") not in SAFE_METHODS:
            await refuse_change(scope, receive, send)
        elif scope["type"] == "websocket":
            await (self.sockets if is_stream else no_socket)(scope, receive, send)
        elif is_stream:
            await self.streams(scope, receive, send)
        else:
            await self.admin(scope, receive, send)

    def _came_through_the_cdn(self, scope: Scope) -> bool:
        proofs = [value for name, value in scope["headers"] if name == CDN_HEADER]
        matches = [hmac.compare_digest(proof, secret) for proof in proofs for secret in self._cdn_secrets]
        return len(proofs) == 1 and any(matches)


def build_application(  # noqa: PLR0913  the last one is for who had to look it up before
    settings: Settings,
    store: Store,
    world: World,
    backlog: Backlog,
    sse: SseDelivery = SseDelivery.STREAMED,
    *,
    operators: OperatorSecrets | None = None,
) -> Application:
    """The application over an open store; `sse` tells whether what it sends leaves at once.

    `backlog` takes the deliveries that no publisher waits for, `operators` has what `operators_of` has found.
    """
    limits = LiveLimits(settings.long_poll_timeout, settings.sse_max_age, settings.max_live_reads, sse)
    gate = gate_of(settings, store.projects, world, operators)
    live = LiveReads(store, world, limits, gate.throttle)
    publisher = Publisher(store, world, backlog)
    streams = StreamsApp(store, world, live, publisher, gate, settings.max_body, bool(settings.cdn_secret))
    return Application(streams, read_only=settings.read_only, cdn_secret=settings.cdn_secret)
