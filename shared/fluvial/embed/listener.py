"""Listens for connections within a program's own event loop: without signal handlers, and stopped at once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

import uvicorn

from fluvial.serve import open_listening_sockets, uvicorn_config
from fluvial.server.application import Application
from fluvial.settings import Settings

#: How often to look whether the last connection has ended.
_STOP_INTERVAL_S: Final = 0.005


@contextlib.asynccontextmanager
async def listening(application: Application, settings: Settings) -> AsyncIterator[str]:
    """Serve the application over HTTP while the block runs; its URL, without a path. Raises StartupError.

    The end of the block ends all live reads, and waits for other requests for the settings' `shutdown_timeout`.
    """
    config = uvicorn_config(settings, application)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    listeners = open_listening_sockets(settings.host, settings.port)
    try:
        await server.startup(sockets=listeners)
        ticking = asyncio.create_task(server.main_loop(), name="listener")
        try:
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            yield f"http://{host}:{listeners[0].getsockname()[1]}"
        finally:
            application.live.stop()
            ticking.cancel()
            await _stop(server, settings.shutdown_timeout)
    finally:
        for listener in listeners:
            listener.close()


async def _stop(server: uvicorn.Server, timeout_s: float) -> None:
    """Accept no connections any more, and wait for the open ones."""
    for one in server.servers:
        one.close()
    state = server.server_state
    for connection in list(state.connections):
        connection.shutdown()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while state.connections or state.tasks:  # noqa: ASYNC110  uvicorn has no event for it
                await asyncio.sleep(_STOP_INTERVAL_S)
    for task in list(state.tasks):
        task.cancel()
