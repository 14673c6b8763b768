"""The local server: uvicorn around the application, with this project's bounds, errors and way to stop."""

import asyncio
import contextlib
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

BACKLOG: Final = 2_048

#: What a request may have before its body; a head that came in pieces is cut off at the first piece past it.
HEAD_BYTES_MAX: Final = HEADER_BYTES_MAX + PATH_BYTES_MAX + QUERY_BYTES_MAX


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with a bound on a request's head, and with its own errors in the shape of all others."""

    _head_bytes = 0
    _is_in_head = False

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless it is one more piece of an endless head."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self._is_in_head and self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
            self._send_error(431, ErrorCode.HEADERS_TOO_LARGE, f"the header fields are over {HEADER_BYTES_MAX} bytes")

    def on_message_begin(self) -> None:
        """A head begins."""
        self._is_in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is whole; only one that came with much else needs measuring."""
        self._is_in_head = False
        is_suspect, self._head_bytes = self._head_bytes > HEADER_BYTES_MAX, 0
        if is_suspect and sum(len(name) + len(value) for name, value in self.headers) > HEADER_BYTES_MAX:
            raise OverflowError
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """What comes next is another head."""
        self._head_bytes = 0
        super().on_message_complete()

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


async def serve(settings: Settings, announce: Callable[[str], None]) -> None:
    """Serve until a signal; `announce` is told the URL once connections are taken. Raises StartupRefused."""
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
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_timeout)),
    )
