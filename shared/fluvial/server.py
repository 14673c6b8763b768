"""The local server: uvicorn around the application, with this project's bounds, errors and way to stop."""

import asyncio
import contextlib
import gc
import logging
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Final

import uvicorn

from fluvial.bootstrap import Application, build_application
from fluvial.core.errors import StartupRefused
from fluvial.fanout.working import DeliveryWorker
from fluvial.opening import open_store
from fluvial.settings import Settings
from fluvial.stores.contract import KeepsUndelivered
from fluvial.transports.http_protocol import IDLE_S, BoundedHttpProtocol, SocketProtocol
from fluvial.world import World

log = logging.getLogger(__name__)

#: Data that a peer does not take for so long ends its connection; it bounds what slow readers hold.
UNSENT_MS_MAX: Final = 30_000

BACKLOG: Final = 2_048

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
    """Serve until a signal; `announce` is told the URL once connections are taken. Raises StartupRefused."""
    _collect_garbage_seldom()
    _take_all_descriptors()
    world = World()
    with contextlib.closing(listening_socket(settings.host, settings.port)) as listener:
        store = await open_store(settings, world)
        worker = DeliveryWorker(store, store.undelivered if isinstance(store, KeepsUndelivered) else None)
        try:
            application = build_application(settings, store, world, worker)
            if not settings.read_only:
                worker.start(application.streams.publisher)
            assert application.admin is not None, "it is made before the first request waits for it"
            server = _Server(_uvicorn_config(settings, application), application)
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            announce(f"http://{host}:{listener.getsockname()[1]}")
            await server.serve(sockets=[listener])
        finally:
            await worker.stop()
            await store.close()
    log.info("stopped")


def _uvicorn_config(settings: Settings, application: Application) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        http=BoundedHttpProtocol,
        ws=SocketProtocol,
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
