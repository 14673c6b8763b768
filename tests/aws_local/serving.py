"""Serving until SIGTERM, with a chance to clean up afterwards: uvicorn's own way ends the process at once."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at a signal, and do not send it again."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        yield

    def _stop(self) -> None:
        self.should_exit = True


async def serve(application: ASGIApp, listener: socket.socket) -> None:
    """Serve HTTP and WebSockets on a socket; connections get a second to end."""
    config = uvicorn.Config(
        application,
        http="httptools",
        ws="websockets-sansio",
        lifespan="off",
        log_level="error",
        timeout_graceful_shutdown=1,
    )
    await _Server(config).serve([listener])
