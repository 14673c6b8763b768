"""The local server: uvicorn around the application, with this project's bounds, errors and way to stop."""

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

from fluvial.access.project_cache import OPEN_CACHE_S
from fluvial.app import build_application, check_store, load_operator_secrets, open_store
from fluvial.clock import Clock
from fluvial.fanout.delivery_worker import DeliveryWorker
from fluvial.model.errors import SettingsError, StartupError, StoreError
from fluvial.server.application import Application
from fluvial.server.http1.bounds import IDLE_S
from fluvial.server.http1.protocol import BoundedHttpProtocol
from fluvial.server.http1.websocket_protocol import WebSocketProtocol
from fluvial.settings import Settings
from fluvial.storage.contract import UndeliveredIndex

log = logging.getLogger(__name__)

#: Data that a peer does not take for so long ends its connection; it bounds what slow readers hold.
UNSENT_MS_MAX: Final = 30_000

BACKLOG: Final = 2_048

#: How often a free port is looked for that is free at each address of a host.
PORT_TRIES_MAX: Final = 16

#: One of getaddrinfo's answers.
_Address = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]

#: Clients send pings, and nothing else.
SOCKET_MESSAGE_BYTES_MAX: Final = 4_096


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


def listening_sockets(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen there: one for each address of the host, for `localhost` is ::1 as well as 127.0.0.1.

    All of them have the same port; an address that this machine has not is left out when it has another. Raises
    SettingsError for what is no host, StartupError when it cannot be listened on, e.g. because the port is taken.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as exc:
        message = f"cannot listen on {host}: {getattr(exc, 'strerror', None) or exc}"
        raise SettingsError(message) from exc
    for is_last in (*[False] * (PORT_TRIES_MAX - 1), True):
        try:
            return _listening(found)
        except OSError as exc:
            # A free port of the first address may be taken at the second one: then another one is free at both.
            if is_last or port != 0 or exc.errno != errno.EADDRINUSE:
                message = f"cannot listen on {host} port {port}: {exc.strerror or exc}"
                raise StartupError(message) from exc
    raise AssertionError("the last try has returned or raised")


def _listening(found: Sequence[_Address]) -> list[socket.socket]:
    """Sockets on all addresses that are this machine's, with the port of the first. Raises OSError."""
    with contextlib.ExitStack() as opened:
        listeners, missing = list[socket.socket](), OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                listener = opened.enter_context(socket.socket(family, kind, protocol))
            except OSError as exc:
                missing = exc  # the machine has no IPv6 at all
                continue
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6 and len(found) > 1:  # else :: would take those of IPv4, too
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


def _take_all_descriptors() -> None:
    """Raise the soft limit of open files to the hard one: at its usual 1,024 a thousand live reads would use it up."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS has a limit of its own below an unlimited hard one
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _collect_garbage_seldom() -> None:
    """Run the cycle collector less often, and never over what the imports left.

    A request's objects go when their count drops; the collector's default is to look through them every 700
    allocations, which took a third of the appends a second and showed as pauses of tens of milliseconds.
    """
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


async def serve(settings: Settings, announce: Callable[[str], None]) -> None:
    """Serve until a signal; `announce` is told the URL once connections are taken. Raises StartupError.

    What can be wrong with the settings is found before the port is taken, and the port is taken before the data.
    """
    operators = load_operator_secrets(settings)
    check_store(settings)
    _collect_garbage_seldom()
    _take_all_descriptors()
    clock = Clock()
    with contextlib.ExitStack() as opened:
        listeners = [
            opened.enter_context(contextlib.closing(one)) for one in listening_sockets(settings.host, settings.port)
        ]
        store = await open_store(settings, clock)
        worker = DeliveryWorker(store, store.undelivered if isinstance(store, UndeliveredIndex) else None)
        watching: asyncio.Task[None] | None = None
        try:
            application = build_application(settings, store, clock, worker, operators=operators)
            if not settings.read_only:
                worker.start(application.streams.publisher)
            assert application.admin is not None, "it is made before the first request waits for it"
            watching = asyncio.create_task(end_open_reads(application))
            await _warn_when_open_to_the_world(application, settings, listeners)
            server = _Server(_uvicorn_config(settings, application), application)
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            announce(f"http://{host}:{listeners[0].getsockname()[1]}")
            await server.serve(sockets=listeners)
        finally:
            if watching is not None:
                watching.cancel()
            await worker.stop()
            await store.close()
    log.info("stopped")


async def end_open_reads(application: Application, pause_s: float = OPEN_CACHE_S / 2) -> None:
    """End the live reads of who was let in without a token, as soon as the first project closes the server."""
    project_cache, live = application.streams.authorizer.project_cache, application.live
    while not live.has_closed:
        await asyncio.sleep(pause_s)
        # A store that cannot answer is asked again: until then requests are refused, and who is connected stays.
        try:
            if live.count and not await project_cache.is_open():
                live.end_anonymous()
        except StoreError as exc:
            log.warning("openness_not_known", extra={"reason": str(exc.__cause__ or exc)})
        except Exception:  # whatever it is, the next look may do better
            log.exception("openness_not_known")


async def _warn_when_open_to_the_world(
    application: Application, settings: Settings, listeners: list[socket.socket]
) -> None:
    """Say that everybody who reaches this machine may do everything, when that is so."""
    addresses = [listener.getsockname()[0].partition("%")[0] for listener in listeners]
    if all(ipaddress.ip_address(address).is_loopback for address in addresses):
        return
    with contextlib.suppress(StoreError):
        if await application.streams.authorizer.project_cache.is_open():
            may = "read" if settings.read_only else "read and write"
            hint = f"whoever reaches this machine may {may} every stream: make a project, or give --access projects"
            log.warning("open_to_everybody", extra={"host": settings.host, "hint": hint})


def _uvicorn_config(settings: Settings, application: Application) -> uvicorn.Config:
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
