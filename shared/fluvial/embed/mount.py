"""The server as an ASGI application below any path of another application, or by itself."""

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Protocol
from urllib.parse import quote, unquote

from starlette.types import Receive, Scope, Send

from fluvial.embed.engine import Engine, NotOpen


class OpenForLifespan(Protocol):
    """`Fluvial.lifespan`: the server is open while the block runs."""

    def __call__(self, _app: object, /) -> AbstractAsyncContextManager[None]:
        """Open the server for an application."""
        ...


class MountedApp:
    """Passes requests on to the open server, with the path that they have below the mount."""

    def __init__(self, engine: Engine, lifespan: OpenForLifespan) -> None:
        """`lifespan` opens the server if this is the outermost application, to which the lifespan events come."""
        self._engine, self._lifespan = engine, lifespan

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request. Raises NotOpen."""
        if scope["type"] == "lifespan":
            return await self._run_lifespan(receive, send)
        session = self._engine.session
        if session.loop is not asyncio.get_running_loop():
            raise NotOpen("the server was opened in another event loop: give fluvial.lifespan to your application")
        return await session.application(scope_below_mount(scope), receive, send)

    async def _run_lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        if self._engine.current is not None:  # the program has opened the server, and will close it
            await send({"type": "lifespan.startup.complete"})
            await receive()
            return await send({"type": "lifespan.shutdown.complete"})
        is_started = False
        try:
            async with self._lifespan(self):
                is_started = True
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except Exception as exc:
            await send({"type": f"lifespan.{'shutdown' if is_started else 'startup'}.failed", "message": str(exc)})
            raise
        return await send({"type": "lifespan.shutdown.complete"})


def scope_below_mount(scope: Scope) -> Scope:
    """The scope whose `raw_path` begins below the mount, and whose `root_path` is spelt as in the URL.

    The server finds streams by `raw_path`. Frameworks leave it whole, as the client has sent it, and put the mount's
    path decoded into `root_path`.
    """
    raw_path: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    prefix = _raw_prefix(raw_path, scope.get("root_path", ""))
    below = raw_path[len(prefix) :] or b"/"
    root = prefix.decode("latin-1")
    # Frameworks remove `root_path` from the beginning of `path`, so both spell it in the same way.
    path = root + unquote(below.decode("latin-1"))
    return {**scope, "raw_path": below, "path": path, "root_path": root}


def _raw_prefix(raw_path: bytes, root_path: str) -> bytes:
    """The part of a raw path that `root_path` is decoded from; empty if a server in front has removed it."""
    root = root_path.rstrip("/")
    if not root:
        return b""
    end = raw_path.find(b"/", 1)
    while 0 < end <= 12 * len(root):  # a character is at most twelve bytes of percent-encoding
        if unquote(raw_path[:end].decode("latin-1")) == root:
            return raw_path[:end]
        end = raw_path.find(b"/", end + 1)
    return raw_path if end < 0 and unquote(raw_path.decode("latin-1")) == root else b""
