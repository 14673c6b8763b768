"""An embedded server below a path of another application, under that application's own HTTP server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Scope
from websockets.asyncio.client import connect

from fluvial.embed import Fluvial, NotOpen

TEXT = {"Content-Type": "text/plain"}

MakeHost = Callable[[Fluvial], ASGIApp]


def in_starlette(server: Fluvial) -> ASGIApp:
    """Mounted two levels deep."""
    inner = Starlette(routes=[Mount("/streams", app=server.app)])
    return Starlette(routes=[Mount("/a b", app=inner)], lifespan=server.lifespan)


def in_fastapi(server: Fluvial) -> ASGIApp:
    """Mounted at a path with which the server's own paths begin, too."""
    app = FastAPI(lifespan=server.lifespan)
    app.mount("/v1", server.app)
    return app


def in_fastapi_behind_a_proxy(server: Fluvial) -> ASGIApp:
    """Behind a proxy that removes the first part of the path."""
    app = FastAPI(lifespan=server.lifespan)
    app.mount("/streams", server.app)
    return app


def alone(server: Fluvial) -> ASGIApp:
    """Not mounted at all."""
    return server.app


HOSTS: dict[str, tuple[MakeHost, str, str]] = {
    # how to mount it, the path in requests, and the path in URLs that the server tells
    "starlette": (in_starlette, "/a%20b/streams", "/a%20b/streams"),
    "fastapi": (in_fastapi, "/v1", "/v1"),
    "alone": (alone, "", ""),
}

hosts = pytest.mark.parametrize(("make", "prefix", "public"), HOSTS.values(), ids=HOSTS.keys())


class _Server(uvicorn.Server):
    """Another program's HTTP server, which leaves this process's signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


@contextlib.asynccontextmanager
async def listening(app: ASGIApp, **options: str) -> AsyncIterator[str]:
    """The URL of an application under uvicorn as it comes."""
    config = uvicorn.Config(app, port=0, lifespan="on", log_config=None, **options)  # type: ignore[arg-type]
    server = _Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
        assert not serving.done()
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


@contextlib.asynccontextmanager
async def running(app: ASGIApp, root_path: str = "") -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application, without a network, between the events of its lifespan."""
    sent, received = asyncio.Queue[Message](), asyncio.Queue[Message]()

    async def run() -> None:
        await app({"type": "lifespan", "asgi": {"version": "3.0"}}, sent.get, received.put)

    lifespan = asyncio.create_task(run())
    await sent.put({"type": "lifespan.startup"})
    started = await received.get()
    if started["type"] != "lifespan.startup.complete":
        await asyncio.gather(lifespan, return_exceptions=True)
        raise RuntimeError(started["message"])
    transport = httpx.ASGITransport(app, root_path=root_path)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
            yield client
    finally:
        await sent.put({"type": "lifespan.shutdown"})
        assert (await received.get())["type"] == "lifespan.shutdown.complete"
        await lifespan


@hosts
async def test_stream_is_created_forked_and_read_below_the_mount(make: MakeHost, prefix: str, public: str) -> None:
    """Location has the mount's path, and a fork names its source with it or without it."""
    root = f"{prefix}/v1/stream/"
    async with running(make(Fluvial())) as client:
        created = await client.put(root + "room%201/%C3%A9%2Fb", headers=TEXT, content=b"abc")
        assert created.status_code == 201
        assert created.headers["location"] == f"http://testserver{public}/v1/stream/room%201/%C3%A9%2Fb"
        assert (await client.get(httpx.URL(created.headers["location"]).raw_path.decode())).text == "abc"
        for number, source in enumerate((f"{public}/v1/stream/", "/v1/stream/")):
            forked = {"Stream-Forked-From": f"{source}room%201/%C3%A9%2Fb"}
            assert (await client.put(f"{root}fork/{number}", headers=forked)).status_code == 201
            assert (await client.get(f"{root}fork/{number}")).text == "abc"
        assert (await client.post(root + "fork/0", headers=TEXT, content=b"d")).status_code == 204
        assert (await client.head(root + "fork/0")).headers["content-type"] == "text/plain"
        assert (await client.delete(root + "fork/0")).status_code == 204
        assert (await client.get(root)).status_code == 404
        names = (await client.get(f"{prefix}/v1/streams")).json()["streams"]
        assert names == ["fork/1", "room%201/%C3%A9%2Fb"]


@hosts
async def test_control_routes_are_below_the_mount(make: MakeHost, prefix: str, public: str) -> None:
    """Those with a stream in their path, too."""
    del public
    async with running(make(Fluvial())) as client:
        assert (await client.get(f"{prefix}/health")).json()["status"] == "ok"
        await client.put(f"{prefix}/v1/stream/chat/room", headers={"Content-Type": "application/json"})
        estuary = await client.post(f"{prefix}/v1/estuary/subscribe/chat/room", json={"estuaryId": "alice"})
        assert estuary.status_code == 201, estuary.text
        await client.post(f"{prefix}/v1/stream/chat/room", json=[1, 2])
        read = await client.get(f"{prefix}/v1/stream/chat/alice?offset=-1")
        assert read.json() == [1, 2]


async def test_mount_behind_a_proxy_tells_urls_with_the_proxys_path() -> None:
    """As the framework does with its own URLs."""
    async with running(in_fastapi_behind_a_proxy(Fluvial()), root_path="/api") as client:
        created = await client.put("/api/streams/v1/stream/s", headers=TEXT)
        assert created.headers["location"] == "http://testserver/api/streams/v1/stream/s"


async def test_applications_own_lifespan_may_open_the_server() -> None:
    """Its own routes use the streams without HTTP, and clients read them."""
    server = Fluvial(listen=False)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with server:
            await server.stream("s").create(content_type="text/plain")
            yield

    async def say(request: Request) -> PlainTextResponse:
        appended = await server.stream("s").append(await request.body())
        return PlainTextResponse(appended.offset)

    app = Starlette(routes=[Route("/say", say, methods=["POST"]), Mount("/streams", app=server.app)], lifespan=lifespan)
    async with running(app) as client:
        offset = (await client.post("/say", content=b"hello")).text
        read = await client.get("/streams/v1/stream/s")
        assert (read.text, read.headers["stream-next-offset"]) == ("hello", offset)


async def test_request_to_a_server_that_is_not_open_says_so() -> None:
    """The application's lifespan was forgotten."""
    app = Starlette(routes=[Mount("/streams", app=Fluvial(listen=False).app)])
    async with running(app) as client:
        with pytest.raises(NotOpen, match="lifespan"):
            await client.get("/streams/v1/stream/s")
    with Fluvial(listen=False) as server:
        app = Starlette(routes=[Mount("/streams", app=server.app)])
        async with running(app) as client:
            with pytest.raises(NotOpen, match="another event loop"):
                await client.get("/streams/v1/stream/s")


async def test_lifespan_of_an_open_server_leaves_it_open() -> None:
    """And one that cannot open fails the start of the application."""
    server = Fluvial()
    async with server:
        async with running(server.app):
            pass
        await server.stream("s").create()
    with pytest.raises(RuntimeError, match="/dev/null"):
        async with running(Fluvial(store="sqlite", data_dir="/dev/null").app):
            pass


@pytest.mark.medium
async def test_event_streams_and_websockets_are_live_under_another_http_server() -> None:
    """What is appended without HTTP comes at once."""
    server = Fluvial(sse_max_age=1)
    app = FastAPI(lifespan=server.lifespan)
    app.mount("/streams", server.app)
    async with listening(app, ws="websockets-sansio") as url, httpx.AsyncClient() as client:
        stream = server.stream("s")
        await stream.create(content_type="application/json")
        socket_url = url.replace("http", "ws") + "/streams/v1/stream/s?live=websocket&offset=-1"
        events_url = url + "/streams/v1/stream/s?live=sse&offset=-1"
        async with connect(socket_url) as socket, client.stream("GET", events_url) as events:
            lines = events.aiter_lines()
            await stream.append_json("appended", close=True)
            received = [line async for line in lines]
            assert "appended" in "".join(received)
            messages = [message async for message in socket]
            assert "appended" in "".join(map(str, messages))
        polled = await client.get(url + "/streams/v1/stream/s?live=long-poll&offset=-1")
        assert polled.json() == ["appended"]
        with pytest.raises(Exception, match="404"):
            await connect(url.replace("http", "ws") + "/streams/v1/stream/absent?live=websocket&offset=-1")


@pytest.mark.parametrize(
    ("raw_path", "root_path", "below"),
    [
        (b"/streams/v1/stream/a", "/streams", b"/v1/stream/a"),
        (b"/v1/stream/a", "/streams", b"/v1/stream/a"),  # a server in front has removed it
        (b"/streamsx/v1", "/streams", b"/streamsx/v1"),
        (b"/streams", "/streams", b"/"),
        (b"/%73treams/v1/stream/a", "/streams", b"/v1/stream/a"),
        (b"/a%2Fb/v1/stream/c", "/a/b", b"/v1/stream/c"),
        (b"/%F0%9F%90%9F/v1", "/\N{FISH}", b"/v1"),
        (None, "/a b", b"/v1/stream/c%20d"),
    ],
)
async def test_path_below_the_mount_is_found(raw_path: bytes | None, root_path: str, below: bytes) -> None:
    """However the client has spelt the mount's path, and also without the raw path."""
    from fluvial.embed.mount import scope_below_mount  # noqa: PLC0415

    scope: Scope = {"type": "http", "root_path": root_path, "path": f"{root_path}/v1/stream/c d"}
    if raw_path is not None:
        scope["raw_path"] = raw_path
    found = scope_below_mount(scope)
    assert found["raw_path"] == below
