"""What an embedded server runs in: the open application, and the event loop that its store belongs to."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fluvial.model.errors import FluvialError
from fluvial.server.application import Application

T = TypeVar("T")


class NotOpen(FluvialError):
    """The server was used before it was opened, or after it was closed."""


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """An open application. `closing` is done when it begins to close."""

    application: Application
    loop: asyncio.AbstractEventLoop
    closing: asyncio.Future[None]


@dataclass(slots=True, eq=False)
class Engine:
    """The session of a server that may be open or not. Calls from other event loops run in the session's own."""

    current: Session | None = field(default=None)

    @property
    def session(self) -> Session:
        """The session. Raises NotOpen."""
        if self.current is None:
            raise NotOpen("the server is not open: use `async with fluvial:`, or give your application its lifespan")
        return self.current

    @property
    def application(self) -> Application:
        """The open application. Raises NotOpen."""
        return self.session.application

    async def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the session's loop. Raises NotOpen, and what it raises."""
        try:
            loop = self.session.loop
        except NotOpen:
            coroutine.close()
            raise
        if loop is asyncio.get_running_loop():
            return await coroutine
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, loop))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the session's loop, from a thread without a loop. Raises NotOpen, and what it raises."""
        loop = None if self.current is None else self.current.loop
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            if loop is not None:
                return asyncio.run_coroutine_threadsafe(coroutine, loop).result()
        coroutine.close()
        if loop is None:
            raise NotOpen("the server is not open: use `with fluvial:`")
        raise RuntimeError("an event loop is running in this thread: await the coroutine instead")

    async def until_closing(self, coroutine: Coroutine[Any, Any, T]) -> T | None:
        """The coroutine's result; None if the session begins to close first. Runs in the session's loop."""
        closing: asyncio.Future[Any] = self.session.closing
        task: asyncio.Future[Any] = asyncio.ensure_future(coroutine)
        try:
            await asyncio.wait({task, closing}, return_when=asyncio.FIRST_COMPLETED)
            result: T | None = task.result() if task.done() else None
            return result
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
