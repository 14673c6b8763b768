"""Serves an ASGI application until SIGTERM, and then returns: uvicorn itself would end the process at once."""

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
        """Stop at a signal; uvicorn would raise the signal again after the shutdown."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        yield

    def _stop(self) -> None:
        self.should_exit = True


async def serve(application: ASGIApp, listener: socket.socket) -> None:
    """Serve HTTP and WebSockets on a socket until SIGTERM or Ctrl-C; connections then get a second to end."""
    config = uvicorn.Config(
        application,
        http="httptools",
        ws="websockets-sansio",
        lifespan="off",
        log_level="error",
        # uvicorn's 5 s are about what HTTP clients keep a connection for: on a slow machine a request meets the close.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
    )
    await _Server(config).serve([listener])
