"""The local server: uvicorn around the application, with this project's bounds, errors and way to stop."""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fluvial.bootstrap import Application, build_application, open_store
from fluvial.core.errors import ErrorCode, StartupRefused
from fluvial.core.limits import HEADER_BYTES_MAX, PATH_BYTES_MAX, QUERY_BYTES_MAX
from fluvial.core.response import error_response
from fluvial.settings import Settings
from fluvial.world import World

log = logging.getLogger(__name__)

#: An idle connection is kept so long; longer than the usual 60 s of proxies, so that they close first.
KEEP_ALIVE_S: Final = 75

#: Data that a peer does not take for so long ends its connection; it bounds what slow readers hold.
UNSENT_MS_MAX: Final = 30_000

#: How long a request may pause on its way in.
ARRIVAL_S: Final = 30

BACKLOG: Final = 2_048

#: What a request may have before its body; a head that came in pieces is cut off at the first piece past it.
HEAD_BYTES_MAX: Final = HEADER_BYTES_MAX + PATH_BYTES_MAX + QUERY_BYTES_MAX


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with bounds on a request's head and arrival, and its own errors in the shape of all others."""

    _head_bytes = 0
    _is_in_head = False
    _is_arriving = False
    _arrival: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Parse what came; a request that is not whole then must go on in time, and its head must end some day."""
        if self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None
        self._head_bytes += len(data)
        super().data_received(data)
        if self._is_arriving and not self.transport.is_closing():
            if self._is_in_head and self._head_bytes > HEAD_BYTES_MAX:
                self._send_error(
                    431,
                    ErrorCode.HEADERS_TOO_LARGE,
                    f"header fields may have {HEADER_BYTES_MAX} bytes",
                )
            else:
                self._arrival = self.loop.call_later(ARRIVAL_S, self._stopped_arriving)

    def on_message_begin(self) -> None:
        """A request begins."""
        self._is_arriving = self._is_in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is whole; only one that came with much else needs measuring."""
        self._is_in_head = False
        is_suspect, self._head_bytes = self._head_bytes > HEADER_BYTES_MAX, 0
        if is_suspect and sum(len(name) + len(value) for name, value in self.headers) > HEADER_BYTES_MAX:
            self._send_error(431, ErrorCode.HEADERS_TOO_LARGE, f"header fields may have {HEADER_BYTES_MAX} bytes")
            return
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._is_arriving = False
        self._head_bytes = 0
        if not self.transport.is_closing():
            super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        """A part of a body, unless the request was refused for its head."""
        if not self.transport.is_closing():
            super().on_body(body)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more will arrive."""
        if self._arrival is not None:
            self._arrival.cancel()
        super().connection_lost(exc)

    def _stopped_arriving(self) -> None:
        is_answering = not self._is_in_head and self.cycle.response_started and not self.cycle.response_complete
        if not is_answering:
            self._send_error(
                408,
                ErrorCode.REQUEST_TIMEOUT,
                f"no more of the request came in {ARRIVAL_S} seconds",
            )
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """The answer to what is not HTTP."""
        self._send_error(400, ErrorCode.MALFORMED_REQUEST, msg)

    def _send_error(self, status: int, code: ErrorCode, message: str) -> None:
        response = error_response(status, code, message, (b"connection", b"close"))
        fields = b"".join(b"%s: %s\r\n" % field for field in response.headers)
        phrase = HTTPStatus(status).phrase.encode()
        self.transport.write(b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (status, phrase, fields, response.body))
        self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn's server, told to stop by SIGTERM or SIGINT, and ending with exit status 0 when it was."""

    def __init__(self, config: uvicorn.Config, application: Application) -> None:
        super().__init__(config)
        self._application = application

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at the first signal; at the second one, without waiting for anybody."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
        self._application.live.stop()


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises StartupRefused, e.g. when the port is taken."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as exc:
        message = f"cannot listen on {host}: {exc.strerror or exc}"
        raise StartupRefused(message) from exc
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNSENT_MS_MAX)
    try:
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as exc:
        listener.close()
        message = f"cannot listen on {host} port {port}: {exc.strerror or exc}"
        raise StartupRefused(message) from exc
    return listener


def _collect_garbage_seldom() -> None:
    """Run the cycle collector less often, and never over what the imports left.

    A request's objects go when their count drops; the collector's default is to look through them every 700
    allocations, which took a third of the appends a second and showed as pauses of tens of milliseconds.
    """
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


async def serve(settings: Settings, announce: Callable[[str], None]) -> None:
    """Serve until a signal; `announce` is told the URL once connections are taken. Raises StartupRefused."""
    _collect_garbage_seldom()
    world = World()
    with contextlib.closing(listening_socket(settings.host, settings.port)) as listener:
        store = await open_store(settings, world)
        try:
            application = build_application(settings, store, world)
            server = _Server(_uvicorn_config(settings, application), application)
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            announce(f"http://{host}:{listener.getsockname()[1]}")
            await server.serve(sockets=[listener])
        finally:
            await store.close()
    log.info("stopped")


def _uvicorn_config(settings: Settings, application: Application) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        http=BoundedHttpProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_timeout)),
    )
