"""Wakes: how long it takes from an append until a webhook's receiver has the request."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from bench.load import Measure, once, request
from fluvial.client.load.latencies import Latencies

#: Streams, each with a subscription of its own, that are appended to in turn.
STREAM_COUNT: Final = 16

#: A wake that takes longer is a fault of the server.
TIMEOUT_S: Final = 30.0

_DONE: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n"
_BODY: Final = b'{"done":true}'
_numbers = count()


@dataclass
class Receiver:
    """Answers each webhook with `{"done": true}`, and notes when it came, by the subscription's id."""

    came_at: dict[str, float] = field(default_factory=dict)
    came: dict[str, asyncio.Event] = field(default_factory=dict)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
                body = await reader.readexactly(int(fields[b"content-length"]))
                now = time.perf_counter()
                name = json.loads(body)["subscription_id"]
                writer.write(_DONE + _BODY)
                await writer.drain()
                self.came_at[name] = now
                self.came[name].set()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.close()


@asynccontextmanager
async def _receiving() -> AsyncIterator[tuple[Receiver, str]]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    async with server:
        yield receiver, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"


async def wakes(url: str, seconds: float) -> Measure:
    """Appends to streams in turn; each when the webhook of the one before has come."""
    group, latencies = f"wakes-{next(_numbers)}", Latencies()
    names = [f"{group}-{number}" for number in range(STREAM_COUNT)]
    async with _receiving() as (receiver, target):
        for name in names:
            receiver.came[name] = asyncio.Event()
            await once(url, request("PUT", f"/v1/stream/{group}/{name}"))
            body = {"type": "webhook", "pattern": f"{group}/{name}", "webhook": {"url": target}}
            await once(url, _control("PUT", name, json.dumps(body).encode()))
        began, number = time.perf_counter(), 0
        while time.perf_counter() < began + seconds:
            name = names[number % STREAM_COUNT]
            number += 1
            receiver.came[name].clear()
            sent_at = time.perf_counter()
            await once(url, request("POST", f"/v1/stream/{group}/{name}", b"x" * 100))
            await asyncio.wait_for(receiver.came[name].wait(), TIMEOUT_S)
            latencies.add(receiver.came_at[name] - sent_at)
        elapsed = time.perf_counter() - began
        for name in names:
            await once(url, _control("DELETE", name))
    return Measure(number / elapsed, latencies)


def _control(method: str, name: str, body: bytes = b"") -> bytes:
    return request(method, f"/v1/stream/__ds/subscriptions/{name}", body, "application/json")
