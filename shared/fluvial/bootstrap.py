"""The composition root: settings become a store and an application; nobody else chooses an implementation."""

from dataclasses import dataclass
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from fluvial.settings import Settings, StoreKind
from fluvial.stores.contract import Store
from fluvial.stores.memory import MemoryStore
from fluvial.stores.sqlite.store import open_sqlite_store
from fluvial.transports.admin import admin_app
from fluvial.transports.asgi import STREAM_ROOT_BYTES, StreamsApp
from fluvial.transports.live import LiveLimits, LiveReads
from fluvial.world import World


async def open_store(settings: Settings, world: World) -> Store:
    """The store that the settings name. Raises StartupRefused."""
    match settings.store:
        case StoreKind.MEMORY:
            return MemoryStore()
        case StoreKind.SQLITE:
            return await open_sqlite_store(Path(settings.data_dir), world)


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
