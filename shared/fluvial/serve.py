"""The server process: runs the application under uvicorn, with limits on connections and a graceful stop."""

import asyncio
import contextlib
import errno
import gc
import ipaddress
import logging
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import uvicorn

from fluvial.app import check_store_is_installed, load_operator_secrets, open_application
from fluvial.clock import Clock
from fluvial.model.errors import SettingsError, StartupError, StoreError
from fluvial.server.application import Application
from fluvial.server.http1.bounds import IDLE_S
from fluvial.server.http1.protocol import BoundedHttpProtocol
from fluvial.server.http1.websocket_protocol import WebSocketProtocol
from fluvial.settings import Settings

log = logging.getLogger(__name__)

#: A connection ends when its peer acknowledges no data for so long, which bounds the memory of slow readers.
UNSENT_MS_MAX: Final = 30_000

BACKLOG: Final = 2_048

#: How often to look for a free port that is free at every address of a host.
PORT_TRIES_MAX: Final = 16

#: One of getaddrinfo's answers.
_Address = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]

#: Clients send nothing but pings.
SOCKET_MESSAGE_BYTES_MAX: Final = 4_096


class _Server(uvicorn.Server):
    """uvicorn's server, which stops at SIGTERM or SIGINT with exit status 0."""

    def __init__(self, config: uvicorn.Config, application: Application) -> None:
        super().__init__(config)
        self._application = application

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop gracefully at the first signal, and at once at the second."""
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


def open_listening_sockets(host: str, port: int) -> list[socket.socket]:
    """Open a listening socket for each address of a host, because `localhost` is ::1 as well as 127.0.0.1.

    All have the same port. Addresses that this machine does not have are skipped, unless it has none of them. Raises
    SettingsError for an unknown host, StartupError if listening fails, e.g. because the port is taken.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as exc:
        message = f"cannot listen on {host}: {getattr(exc, 'strerror', None) or exc}"
        raise SettingsError(message) from exc
    for is_last in (*[False] * (PORT_TRIES_MAX - 1), True):
        try:
            return _open_sockets(found)
        except OSError as exc:
            # A free port of the first address may be taken at the second one: look for another, free at both.
            if is_last or port != 0 or exc.errno != errno.EADDRINUSE:
                message = f"cannot listen on {host} port {port}: {exc.strerror or exc}"
                raise StartupError(message) from exc
    raise AssertionError("the last try has returned or raised")


def _open_sockets(found: Sequence[_Address]) -> list[socket.socket]:
    """Open sockets on all addresses that this machine has, with the port of the first. Raises OSError."""
    with contextlib.ExitStack() as opened:
        listeners, missing = list[socket.socket](), OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                listener = opened.enter_context(socket.socket(family, kind, protocol))
            except OSError as exc:
                missing = exc  # the machine has no IPv6 at all
                continue
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6 and len(found) > 1:  # otherwise :: would take the IPv4 addresses, too
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNSENT_MS_MAX)
            host, port, *scope = address
            try:
                listener.bind((host, listeners[0].getsockname()[1] if listeners else port, *scope))
                listener.listen(BACKLOG)
            except OSError as exc:
                if exc.errno != errno.EADDRNOTAVAIL:
                    raise
                missing = exc
                listener.close()
                continue
            listeners.append(listener)
        if not listeners:
            raise missing
        opened.pop_all()
    return listeners


def _raise_open_file_limit() -> None:
    """Raise the soft limit of open files to the hard limit: the usual 1,024 would allow fewer than 1,000 live reads."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS has a limit of its own below an unlimited hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _tune_cycle_collector() -> None:
    """Run Python's cycle collector less often, and never over the objects of the imports.

    A request's objects are freed by reference counting. By default the collector runs every 700 allocations, which cost
    a third of the appends per second, and caused pauses of tens of milliseconds.
    """
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


async def serve(settings: Settings, announce: Callable[[str], None]) -> None:
    """Serve until a signal; `announce` gets the URL once connections are accepted. Raises StartupError.

    The settings are checked before the port is bound, and the port is bound before the store is opened.
    """
    operators = load_operator_secrets(settings)
    check_store_is_installed(settings)
    _tune_cycle_collector()
    _raise_open_file_limit()
    with contextlib.ExitStack() as opened:
        listeners = [
            opened.enter_context(contextlib.closing(one))
            for one in open_listening_sockets(settings.host, settings.port)
        ]
        async with open_application(settings, Clock(), operators=operators) as application:
            if not settings.read_only:  # whose few control routes can wait, while Lambda bills each start
                application.load_control_app()  # now, so that no request waits for FastAPI's import
            if settings.console:
                application.load_console()
            await _warn_if_open_to_the_network(application, settings, listeners)
            server = _Server(uvicorn_config(settings, application), application)
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            announce(f"http://{host}:{listeners[0].getsockname()[1]}")
            await server.serve(sockets=listeners)
    log.info("stopped")


async def _warn_if_open_to_the_network(
    application: Application, settings: Settings, listeners: list[socket.socket]
) -> None:
    """Log a warning if the server is open and listens on an address that other machines can reach."""
    addresses = [listener.getsockname()[0].partition("%")[0] for listener in listeners]
    if all(ipaddress.ip_address(address).is_loopback for address in addresses):
        return
    with contextlib.suppress(StoreError):
        if await application.streams.authorizer.project_cache.is_open():
            may = "read" if settings.read_only else "read and write"
            hint = f"all who reach this machine may {may} every stream: create a project, or give --access projects"
            log.warning("open_to_everybody", extra={"host": settings.host, "hint": hint})


def uvicorn_config(settings: Settings, application: Application) -> uvicorn.Config:
    """How uvicorn runs the application, with the limits on its connections."""
    return uvicorn.Config(
        application,
        http=BoundedHttpProtocol,
        ws=WebSocketProtocol,
        ws_max_size=SOCKET_MESSAGE_BYTES_MAX,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_timeout)),
    )
