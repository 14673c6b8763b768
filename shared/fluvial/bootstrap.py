"""The composition root: settings and an open store become an application."""

from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from fluvial.settings import Settings
from fluvial.stores.contract import Store
from fluvial.transports.admin import admin_app
from fluvial.transports.asgi import STREAM_ROOT_BYTES, StreamsApp
from fluvial.transports.live import LiveLimits, LiveReads
from fluvial.world import World


@dataclass(frozen=True, slots=True)
class Application:
    """The whole server as one ASGI application over one open store."""

    streams: StreamsApp
    admin: ASGIApp
    live: LiveReads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Streams go the short way; all else goes to the framework."""
        if scope["type"] == "http" and scope["raw_path"].startswith(STREAM_ROOT_BYTES):
            await self.streams(scope, receive, send)
        elif scope["type"] == "http":
            await self.admin(scope, receive, send)
        else:
            raise AssertionError(f"the server offers no {scope['type']}")


def build_application(settings: Settings, store: Store, world: World) -> Application:
    """The application over an open store."""
    limits = LiveLimits(settings.long_poll_timeout, settings.sse_max_age, settings.max_live_reads)
    live = LiveReads(store, world, limits)
    streams = StreamsApp(store, world, live, settings.max_body)
    return Application(streams, admin_app(live), live)
