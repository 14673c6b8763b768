"""The composition root: settings and an open store become an application."""

from functools import cached_property

from starlette.types import ASGIApp, Receive, Scope, Send

from fluvial.fanout.estuaries import Estuaries
from fluvial.fanout.publishing import Backlog, Publisher
from fluvial.settings import Settings
from fluvial.stores.contract import Store
from fluvial.transports.asgi import SAFE_METHODS, STREAM_ROOT_BYTES, StreamsApp, refuse_change
from fluvial.transports.live import LiveLimits, LiveReads, SseDelivery
from fluvial.transports.websocket import SocketsApp, no_socket
from fluvial.world import World


class Application:
    """The whole server as one ASGI application over one open store."""

    def __init__(self, streams: StreamsApp, live: LiveReads, *, read_only: bool) -> None:
        """`live` is what `streams` reads live with."""
        self.streams, self.live, self._read_only = streams, live, read_only
        self.sockets = SocketsApp(live)

    @cached_property
    def admin(self) -> ASGIApp:
        """What is not a stream; made when it is asked for, because FastAPI takes longer to import than all else."""
        from fluvial.transports.admin import admin_app  # noqa: PLC0415

        estuaries = Estuaries(self.streams.store, self.streams.world, self.streams.publisher)
        return admin_app(self.live, self.streams.store, estuaries)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Streams go the short way; all else goes to the framework."""
        is_stream = scope["raw_path"].startswith(STREAM_ROOT_BYTES)
        if self._read_only and scope.get("method", "GET") not in SAFE_METHODS:
            await refuse_change(scope, receive, send)
        elif scope["type"] == "websocket":
            await (self.sockets if is_stream else no_socket)(scope, receive, send)
        elif is_stream:
            await self.streams(scope, receive, send)
        else:
            await self.admin(scope, receive, send)


def build_application(
    settings: Settings, store: Store, world: World, backlog: Backlog, sse: SseDelivery = SseDelivery.STREAMED
) -> Application:
    """The application over an open store; `sse` tells whether what it sends leaves at once.

    `backlog` takes the deliveries that no publisher waits for.
    """
    limits = LiveLimits(settings.long_poll_timeout, settings.sse_max_age, settings.max_live_reads, sse)
    live = LiveReads(store, world, limits)
    publisher = Publisher(store, world, backlog)
    streams = StreamsApp(store, world, live, publisher, settings.max_body)
    return Application(streams, live, read_only=settings.read_only)
