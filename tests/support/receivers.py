"""Receivers of webhooks on this machine, of whatever behaviour."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ssl import SSLContext

Behaviour = Callable[["Receiver", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

#: A receiver sends this much more than its client can have read before it gives up.
_SENT_BYTES_MAX = 64 * 1_048_576


@dataclass
class Receiver:
    """What a receiver has seen: the requests, as far as it reads them, and how much it could send."""

    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    sent_bytes: int = 0
    connections: int = 0

    _has_request: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, request: bytes) -> None:
        """Keep a request."""
        self.requests.append(request)
        self._has_request.set()

    async def wait_for_requests(self, count: int) -> None:
        """Wait until there are so many requests."""
        while len(self.requests) < count:
            self._has_request.clear()
            await self._has_request.wait()

    @property
    def url(self) -> str:
        """A URL of the receiver."""
        return f"http://127.0.0.1:{self.port}/hook"


@asynccontextmanager
async def receiver(behaviour: Behaviour, tls: SSLContext | None = None) -> AsyncIterator[Receiver]:
    """A receiver on a free port."""
    running, tasks = Receiver(), set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.connections += 1
        try:
            await behaviour(running, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(begin, "127.0.0.1", 0, ssl=tls)
    running.port = server.sockets[0].getsockname()[1]
    try:
        yield running
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """The bytes of one request that has a Content-Length."""
    head = await reader.readuntil(b"\r\n\r\n")
    [length] = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return head + await reader.readexactly(int(length.partition(b":")[2]))


def answers(*parts: bytes) -> Behaviour:
    """A receiver that reads the request, and answers with these bytes."""

    async def behave(running: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.note(await read_request(reader))
        for part in parts:
            writer.write(part)
            await writer.drain()

    return behave


def answers_without_end(first: bytes, repeated: bytes) -> Behaviour:
    """A receiver that answers with the first bytes, and then with the others again and again."""

    async def behave(running: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.note(await read_request(reader))
        writer.write(first)
        while running.sent_bytes < _SENT_BYTES_MAX:
            writer.write(repeated)
            await writer.drain()
            running.sent_bytes += len(repeated)

    return behave


def trickles(first: bytes, repeated: bytes) -> Behaviour:
    """A receiver that never stops to answer, a few bytes at a time."""

    async def behave(_: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(first)
        while True:
            writer.write(repeated)
            await writer.drain()
            await asyncio.sleep(0.01)

    return behave


async def hang(running: Receiver, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Read a request, and never answer."""
    running.note(await read_request(reader))
    await asyncio.get_running_loop().create_future()


async def never_read(_running: Receiver, _reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Accept the connection, and read nothing more than the system does."""
    await asyncio.get_running_loop().create_future()
