"""The embedded server: opened and closed by a program, in its own event loop or in a thread."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import Future
from os import PathLike
from threading import Thread
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from fluvial.app import open_application
from fluvial.clock import Clock
from fluvial.embed.engine import Engine, NotOpen, Session
from fluvial.embed.mount import MountedApp
from fluvial.embed.stream import Stream
from fluvial.model.errors import SettingsError
from fluvial.model.names import StreamName, parse_name
from fluvial.settings import Settings, settings_from

T = TypeVar("T")

#: How many names `Fluvial.names` returns at most.
NAMES_MAX = 1_000


class Fluvial:
    """A server for Durable Streams in this program.

    `async with` runs it in the running event loop, `with` in a thread of its own. Several servers may be open at once,
    but only one on a data folder. It handles no signals, reads no environment variables and configures no logs.
    """

    def __init__(
        self,
        store: Literal["memory", "sqlite", "dynamodb"] = "memory",
        *,
        data_dir: str | PathLike[str] | None = None,
        listen: bool = True,
        clock: Clock | None = None,
        **settings: Any,  # noqa: ANN401  each setting has a type of its own
    ) -> None:
        """`settings` are those of `fluvial serve` by their names, e.g. `max_body=1_000_000`; `port` is a free one.

        Without `listen` it takes no port: mount `app`, or use it without HTTP. Raises SettingsError.
        """
        values: dict[str, object] = {"port": 0, **settings, "store": store}
        if data_dir is not None:
            values["data_dir"] = str(data_dir)
        for name in values:
            if name not in Settings.__struct_fields__:
                raise SettingsError(f"there is no setting {name}")
        self.settings = settings_from(values)
        self._clock, self._listens = clock or Clock(), listen
        self._engine, self._url = Engine(), ""
        self._opened: contextlib.AsyncExitStack | _Thread | None = None
        #: The ASGI application, to be mounted below any path: `app.mount("/streams", fluvial.app)`.
        self.app = MountedApp(self._engine, self.lifespan)

    @property
    def url(self) -> str:
        """The URL at which the server listens, without a path. Raises NotOpen if it does not."""
        _ = self._engine.session
        if not self._url:
            raise NotOpen("the server does not listen on a port: it was opened for a mount, or with listen=False")
        return self._url

    @property
    def stream_url(self) -> str:
        """The URL to which the name of a stream is added. Raises NotOpen if the server does not listen."""
        return f"{self.url}/v1/stream/"

    def stream(self, name: str) -> Stream:
        """A stream by its name, which is spelt as in its URL below /v1/stream/. It need not exist.

        Raises RequestError for a name that no stream can have.
        """
        return Stream(self._engine, parse_name(name))

    async def names(self, prefix: str = "", after: str = "", count_max: int = NAMES_MAX) -> list[StreamName]:
        """The names of streams that begin with `prefix` and come after `after`, in order; at most `count_max`."""
        return await self._engine.call(self._names(prefix, after, count_max))

    async def _names(self, prefix: str, after: str, count_max: int) -> list[StreamName]:
        return await self._engine.application.streams.store.names(prefix, after, min(count_max, NAMES_MAX))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Wait for a coroutine from a program without an event loop: `fluvial.run(stream.append(b"x"))`."""
        return self._engine.run(coroutine)

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: object = None) -> AsyncIterator[None]:
        """Open the server while an application runs: `FastAPI(lifespan=fluvial.lifespan)`. It takes no port."""
        async with self._open(listens=False):
            yield

    async def __aenter__(self) -> Self:
        """Open the server. Raises StartupError."""
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._open(listens=self._listens))
            self._opened = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the server: live reads and followers end, and requests in progress are answered."""
        opened, self._opened = self._opened, None
        assert isinstance(opened, contextlib.AsyncExitStack), "it was opened by async with"
        await opened.__aexit__(kind, error, traceback)

    def __enter__(self) -> Self:
        """Open the server in a thread. Raises StartupError."""
        opened = _Thread(self._open(listens=self._listens))
        opened.start()
        self._opened = opened
        return self

    def __exit__(self, *_: object) -> None:
        """Close the server, and wait for its thread."""
        opened, self._opened = self._opened, None
        assert isinstance(opened, _Thread), "it was opened by with"
        opened.stop()

    @contextlib.asynccontextmanager
    async def _open(self, *, listens: bool) -> AsyncIterator[None]:
        """Open the server while the block runs, in the running event loop."""
        if self._engine.current is not None:
            raise RuntimeError("the server is open already")
        loop = asyncio.get_running_loop()
        session: Session | None = None
        async with contextlib.AsyncExitStack() as stack:
            application = await stack.enter_async_context(open_application(self.settings, self._clock))
            session = Session(application, loop, loop.create_future())
            if listens:
                from fluvial.embed.listener import listening  # noqa: PLC0415  a mount needs no HTTP server

                self._url = await stack.enter_async_context(listening(application, self.settings))
            self._engine.current = session
            try:
                yield
            finally:
                session.closing.set_result(None)
                await asyncio.sleep(0)  # so that followers end before the store closes
                self._engine.current, self._url = None, ""


class _Thread:
    """A thread that opens a server in an event loop of its own."""

    def __init__(self, server: contextlib.AbstractAsyncContextManager[None]) -> None:
        self._server = server
        self._is_open = Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]()
        self._thread = Thread(target=self._run, name="fluvial", daemon=True)

    def start(self) -> None:
        """Start the thread, and wait until the server is open. Raises what has kept it from opening."""
        self._thread.start()
        try:
            self._is_open.result()
        except BaseException:
            self._thread.join()
            raise

    def stop(self) -> None:
        """Close the server."""
        loop, closing = self._is_open.result()
        loop.call_soon_threadsafe(closing.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as exc:
            if self._is_open.done():
                raise
            self._is_open.set_exception(exc)

    async def _serve(self) -> None:
        closing = asyncio.Event()
        async with self._server:
            self._is_open.set_result((asyncio.get_running_loop(), closing))
            await closing.wait()
