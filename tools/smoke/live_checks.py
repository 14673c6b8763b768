"""Checks of answers that wait: long-polls, server-sent events and WebSockets."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tools.smoke.place import JSON, Place, open_client
from tools.smoke.report import CheckFailedError, CheckSkippedError, check_that, expect

#: How long an event stream may take to end after its stream was closed.
END_S: Final = 10.0
#: How long a message may take from its append to a reader that waits; on AWS a WebSocket's goes by the change feed.
DELIVERY_S: Final = 30.0
#: How long a long-poll is let wait before the append that ends it.
HELD_S: Final = 0.5
_UPGRADE_REQUIRED: Final = 426
_NORMAL_CLOSURE: Final = 1000


async def check_long_poll_timeout(place: Place) -> str:
    """A long-poll without news is a 204 in time, and the connection can be used again.

    It has no body, and so it is the answer that a streaming function is the likeliest never to end.
    """
    await place.create("quiet")
    tail = (await place.read("quiet")).headers["stream-next-offset"]
    limit_s = place.waits.long_poll_s + place.waits.empty_answer_s
    async with open_client(connection_count=1) as http:
        url, fields = place.stream_url("quiet"), place.headers()
        began_s = time.perf_counter()
        query = {"offset": tail, "live": "long-poll"}
        try:
            async with asyncio.timeout(limit_s):
                answer = expect(await http.get(url, params=query, headers=fields, timeout=limit_s), 204)
        except (TimeoutError, httpx.TimeoutException) as exc:
            raise CheckFailedError(f"no whole answer within {limit_s:g} s, which has no body") from exc
        took_s = time.perf_counter() - began_s
        check_that(answer.content == b"", "a 204 has a body")
        check_that(answer.headers.get("stream-next-offset") == tail, "it has no Stream-Next-Offset")
        expect(await http.get(url, params={"offset": tail}, headers=fields), 200)
    return f"204 after {took_s:.1f} s"


async def check_long_poll_hit(place: Place) -> str:
    """A long-poll that waits gets what is appended."""
    await place.create("polled")
    tail = (await place.read("polled")).headers["stream-next-offset"]
    polling = asyncio.create_task(place.read("polled", offset=tail, live="long-poll"))
    try:
        await asyncio.sleep(HELD_S)
        check_that(not polling.done(), "the long-poll did not wait")
        began_s = time.perf_counter()
        await place.append_json("polled", "news")
        answer = await polling
    finally:
        polling.cancel()
    check_that(answer.json() == ["news"], f"it got {answer.text[:100]}")
    return f"{time.perf_counter() - began_s:.2f} s after the append began"


async def check_event_stream(place: Place) -> str:
    """Server-sent events begin within a second, pass appends on, and end with the stream.

    Where a gateway collects an answer before it passes it on, the first event comes with the end.
    """
    await place.create("events", b'"first"')
    await place.read("events")  # so that a function has started: the second is one of an environment that runs
    began_s = time.perf_counter()
    async with place.http.stream(
        "GET", place.stream_url("events"), params={"offset": "-1", "live": "sse"}, headers=place.headers()
    ) as answer:
        expect(answer, 200)
        events = _events(answer)
        kind, data = await anext(events)
        first_s = time.perf_counter() - began_s
        check_that((kind, json.loads(data)) == ("data", ["first"]), f"the first event is {kind}: {data[:100]}")
        await place.append_json("events", "second")
        async with asyncio.timeout(DELIVERY_S):
            await _wait_for(events, "second")
        await _close(place, "events")
        async with asyncio.timeout(END_S):
            last = [event async for event in events]
    check_that(bool(last) and json.loads(last[-1][1]).get("streamClosed") is True, f"it ended with {last[-1:]}")
    limit_s = place.waits.first_event_s
    check_that(first_s < limit_s, f"the first event came after {first_s:.2f} s, later than {limit_s:g} s")
    return f"first event after {first_s:.2f} s"


async def _events(answer: httpx.Response) -> AsyncIterator[tuple[str, str]]:
    """The kind and data of each event as it comes."""
    kind, data = "", list[str]()
    async for line in answer.aiter_lines():
        name, _, value = line.partition(":")
        if name == "event":
            kind = value.strip()
        elif name == "data":
            data.append(value.removeprefix(" "))
        elif not line and data:
            yield kind, "\n".join(data)
            kind, data = "", []


async def _wait_for(events: AsyncIterator[tuple[str, str]], message: str) -> None:
    async for kind, data in events:
        if kind == "data":
            check_that(json.loads(data) == [message], f"an event has {data[:100]}")
            return
    raise CheckFailedError("the events ended before the append came")


async def _close(place: Place, name: str) -> None:
    fields = {**place.headers(), **JSON, "Stream-Closed": "true"}
    expect(await place.http.post(place.stream_url(name), headers=fields), 200, 204)


async def check_web_socket(place: Place) -> str:
    """A WebSocket sends what is there, answers a ping, passes an append on, and is closed after the stream's end."""
    await place.create("socket", b'"first"')
    async with _connect(place, "socket") as socket, asyncio.timeout(2 * DELIVERY_S):
        check_that(await _messages(socket) == ["first"], "the first messages are not what the stream has")
        await socket.send('{"type":"ping"}')
        answer = json.loads(await socket.recv())
        while answer.get("type") != "pong":  # a repeated control message may come first
            answer = json.loads(await socket.recv())
        began_s = time.perf_counter()
        await place.append_json("socket", "second")
        found = list[Any]()
        while not found:
            found = await _messages(socket)
        check_that(found == ["second"], f"the append came as {found}")
        took_s = time.perf_counter() - began_s
        await _close(place, "socket")
        await _wait_for_close(socket)
    return f"{took_s:.2f} s from an append to its message"


@asynccontextmanager
async def _connect(place: Place, name: str) -> AsyncIterator[ClientConnection]:
    try:
        async with connect(place.socket_url_of(name), open_timeout=DELIVERY_S) as socket:
            yield socket
    except InvalidStatus as exc:
        status = exc.response.status_code
        if status == _UPGRADE_REQUIRED and place.socket_url is None:
            raise CheckSkippedError("needs SOCKET_URL or STACK: this URL takes no WebSockets") from exc
        raise CheckFailedError(f"the handshake was answered with {status}") from exc


async def _messages(socket: ClientConnection) -> list[Any]:
    """The messages before the next control message."""
    text = ""
    while True:
        received = json.loads(await socket.recv())
        if received["type"] == "control":
            found: list[Any] = json.loads(text or "[]")
            return found
        text += received["payload"]


async def _wait_for_close(socket: ClientConnection) -> None:
    try:
        while True:
            await socket.recv()
    except ConnectionClosed as exc:
        code = exc.rcvd.code if exc.rcvd else None
        check_that(code == _NORMAL_CLOSURE, f"it was closed with {code}")
