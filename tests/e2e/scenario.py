"""The scenario: three sources, hundreds of estuaries (fan-in streams), publishers by every way, readers that reconnect.

It ends when every reader and every estuary has every message of its sources; then their messages are compared.
`make test-e2e` plays it at its full size, and `make check` a smaller one.
"""

import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from fluvial.model.limits import INLINE_SUBSCRIBERS_MAX

SOURCES = ("p/a", "p/b", "p/c")
TIMEOUT_S = 600
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Size:
    """How many messages each publisher sends to a source, and how many estuaries follow the first, the second, and all.

    The first has more followers than are delivered to before its publisher is answered.
    """

    messages: int
    first: int
    second: int
    every: int


SIZE = Size(6, 230, 45, 25) if os.environ.get("SCENARIO") == "full" else Size(2, INLINE_SUBSCRIBERS_MAX + 5, 10, 5)

#: Publishes one message to a source; returns when it is accepted.
Publish = Callable[[str, dict[str, Any]], Awaitable[None]]


@dataclass
class Place:
    """Where the scenario runs: its HTTP root, the URL of a WebSocket, and the ways to publish by."""

    root: Callable[[], str]
    socket_url: Callable[[str, str], str]
    doors: dict[str, Publish]
    rng: random.Random = field(default_factory=lambda: random.Random(5))


async def until(ask: Callable[[], Awaitable[httpx.Response]], *statuses: int) -> httpx.Response:
    """Repeat a request until its answer has one of these statuses; that answer."""
    while True:
        try:
            answer = await ask()
        except httpx.TransportError:
            await asyncio.sleep(0.05)
            continue
        if answer.status_code in statuses:
            return answer
        assert answer.status_code >= 500, f"{answer.status_code} {answer.text}"
        await asyncio.sleep(0.05)


@dataclass
class Reader:
    """Follows one stream, disconnects now and then, and goes on from its last offset."""

    place: Place
    name: str
    data: list[Any] = field(default_factory=list)
    offset: str = "-1"
    drops: int = 0

    def take(self, messages: list[Any], offset: str) -> bool:
        """Add messages; whether to disconnect now."""
        self.data += messages
        self.offset = offset
        is_dropping = self.place.rng.random() < 0.15
        self.drops += is_dropping
        return is_dropping

    async def wait_for(self, count: int) -> None:
        """Wait until this many messages have come."""
        while len(self.data) < count:  # noqa: ASYNC110  it polls seldom
            await asyncio.sleep(0.05)

    async def read_by_sse(self, http: httpx.AsyncClient) -> None:
        """Read by server-sent events until cancelled."""
        while True:
            try:
                await self._read_one_event_stream(http)
            except httpx.TransportError:
                await asyncio.sleep(0.05)

    async def _read_one_event_stream(self, http: httpx.AsyncClient) -> None:
        query = {"offset": self.offset, "live": "sse"}
        async with http.stream("GET", f"{self.place.root()}/v1/stream/{self.name}", params=query) as answer:
            if answer.status_code != 200:
                await asyncio.sleep(0.1)
                return
            kind, pending = "", list[Any]()
            async for line in answer.aiter_lines():
                if line.startswith("event:"):
                    kind = line.removeprefix("event:").strip()
                elif line.startswith("data:") and kind == "data":
                    pending += json.loads(line.removeprefix("data:"))
                elif line.startswith("data:"):
                    if self.take(pending, json.loads(line.removeprefix("data:"))["streamNextOffset"]):
                        return
                    pending = []

    async def read_by_socket(self, _http: httpx.AsyncClient) -> None:
        """Read over a WebSocket until cancelled."""
        while True:
            try:
                await self._read_one_socket()
            except (ConnectionClosed, InvalidHandshake, OSError, TimeoutError):
                await asyncio.sleep(0.1)

    async def _read_one_socket(self) -> None:
        async with connect(self.place.socket_url(self.name, self.offset), open_timeout=20) as socket:
            text = ""
            async for received in socket:
                message = json.loads(received)
                if message["type"] == "data":
                    text += message["payload"]
                    continue
                if self.take(json.loads(text or "[]"), message["streamNextOffset"]):
                    return
                text = ""


async def contents(http: httpx.AsyncClient, place: Place, name: str) -> list[Any]:
    """All messages of a stream."""
    messages, offset = list[Any](), "-1"
    while True:
        url = f"{place.root()}/v1/stream/{name}?offset={offset}"
        page = await until(lambda url=url: http.get(url), 200)  # type: ignore[misc]
        messages += page.json()
        offset = page.headers["stream-next-offset"]
        if "stream-up-to-date" in page.headers:
            return messages


def estuary_subscriptions() -> dict[str, tuple[str, Sequence[str]]]:
    """The mode and the sources of each estuary."""
    return {
        **{f"first-{number:03}": ("raw", SOURCES[:1]) for number in range(SIZE.first)},
        **{f"second-{number:03}": ("raw", SOURCES[1:2]) for number in range(SIZE.second)},
        **{f"every-{number:03}": ("envelope", SOURCES) for number in range(SIZE.every)},
    }


async def play(place: Place) -> None:
    """Run the scenario, from the first stream to the last comparison."""
    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=64)) as http:
        for name in SOURCES:
            await until(lambda name=name: http.put(f"{place.root()}/v1/stream/{name}", headers=JSON), 200, 201)  # type: ignore[misc]
        estuaries = estuary_subscriptions()
        await subscribe(http, place, estuaries)
        some = ["p/first-000", f"p/first-{SIZE.first - 1:03}", "p/second-000", "p/every-000"]
        readers = [Reader(place, name) for name in (*SOURCES, *some) for _ in range(2)]
        reading = [
            asyncio.create_task(reader.read_by_socket(http) if at % 2 else reader.read_by_sse(http))
            for at, reader in enumerate(readers)
        ]
        async with asyncio.timeout(TIMEOUT_S):
            await asyncio.gather(*(publish(place, name, door) for name in SOURCES for door in place.doors))
            sources = {name: await wait_until_complete(http, place, name) for name in SOURCES}
            await asyncio.gather(*(check_estuary(http, place, name, sources) for name in estuaries.items()))
            for reader in readers:
                expected = sources.get(reader.name) or await contents(http, place, reader.name)
                await reader.wait_for(len(expected))
                assert reader.data == expected
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        assert sum(reader.drops for reader in readers) > 0


async def subscribe(http: httpx.AsyncClient, place: Place, estuaries: dict[str, tuple[str, Sequence[str]]]) -> None:
    """Let every estuary follow its sources, which creates it."""
    slots = asyncio.Semaphore(8)

    async def follow(name: str, mode: str, sources: Sequence[str]) -> None:
        async with slots:
            for source in sources:
                url, body = f"{place.root()}/v1/estuary/subscribe/{source}", {"estuaryId": name, "mode": mode}
                await until(lambda url=url, body=body: http.post(url, json=body), 200, 201)  # type: ignore[misc]

    await asyncio.gather(*(follow(name, mode, sources) for name, (mode, sources) in estuaries.items()))


async def publish(place: Place, name: str, door: str) -> None:
    """Publish one publisher's messages, one after the other."""
    for number in range(SIZE.messages):
        await place.doors[door](name, {"door": door, "number": number})


async def wait_until_complete(http: httpx.AsyncClient, place: Place, name: str) -> list[Any]:
    """Wait until a source has each message that was published to it once; its messages."""
    expected = Counter((door, number) for door in place.doors for number in range(SIZE.messages))
    while True:
        messages = await contents(http, place, name)
        found = Counter((message["door"], message["number"]) for message in messages)
        assert not found - expected, "a message is there twice, or was never published"
        if found == expected:
            return messages
        await asyncio.sleep(0.1)


async def check_estuary(
    http: httpx.AsyncClient,
    place: Place,
    estuary: tuple[str, tuple[str, Sequence[str]]],
    sources: dict[str, list[Any]],
) -> None:
    """Wait until an estuary has every message of its sources, once and in the source's order."""
    name, (mode, followed) = estuary
    while True:
        messages = await contents(http, place, f"p/{name}")
        if mode == "raw":
            by_source = {followed[0]: messages}
        else:
            by_source = {source: [one["payload"] for one in messages if one["stream"] == source] for source in followed}
        for source, found in by_source.items():
            assert found == sources[source][: len(found)], f"{name} differs from {source}"
        if all(len(found) == len(sources[source]) for source, found in by_source.items()):
            return
        await asyncio.sleep(0.2)
