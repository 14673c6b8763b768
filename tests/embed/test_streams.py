"""Streams of an embedded server, without HTTP."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fluvial.clock import Clock
from fluvial.embed import ErrorCode, Fluvial, Message, NotOpen, ProducerStamp, RequestError, SettingsError, StoreError
from fluvial.fanout.deliveries import Deliveries
from fluvial.fanout.estuaries import Estuaries, WantedEstuary
from fluvial.fanout.publisher import FanOutMode
from fluvial.model.names import StreamName


@pytest.fixture
async def server() -> AsyncIterator[Fluvial]:
    """A server in memory that takes no port."""
    async with Fluvial(listen=False) as opened:
        yield opened


async def collect(messages: AsyncGenerator[Message], count: int) -> list[bytes]:
    """The first messages of a stream that is followed."""
    found = list[bytes]()
    async for message in messages:
        found.append(message.data)
        if len(found) == count:
            break
    await messages.aclose()
    return found


async def settle() -> None:
    """Let the other tasks run until they wait."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_json_stream_is_appended_to_and_read(server: Fluvial) -> None:
    """Each message is one, also a list; pages say where to go on."""
    stream = server.stream("chat/1")
    created = await stream.create(content_type="application/json")
    assert created.is_new
    assert not (await stream.create(content_type="application/json")).is_new
    appended = await stream.append_json({"a": 1}, [2, 3])
    page = await stream.read()
    assert [message.json() for message in page.messages] == [{"a": 1}, [2, 3]]
    assert page.offset == appended.offset == page.messages[-1].offset
    assert page.messages[0].offset == created.offset
    assert page.is_up_to_date
    await stream.append('"x"', close=True)
    page = await stream.read(page.offset)
    assert ([message.text for message in page.messages], page.closed) == (['"x"'], True)
    assert await server.names("chat/") == ["chat/1"]


async def test_bytes_of_each_append_are_a_message(server: Fluvial) -> None:
    """The content type is the stream's own, and a name is canonical."""
    stream = server.stream("room 1/é")
    assert stream.name == "room%201/%C3%A9"
    await stream.create(data="first")
    await stream.append(b"\xff")
    page = await stream.read()
    assert [message.data for message in page.messages] == [b"first", b"\xff"]
    assert (await stream.read(page.messages[0].offset)).messages == page.messages[1:]


async def test_producer_appends_once(server: Fluvial) -> None:
    """A retry is a duplicate, and a gap is rejected with details."""
    stream = server.stream("s")
    await stream.create(content_type="text/plain")
    stamp = ProducerStamp("writer", 0, 0)
    assert not (await stream.append("a", producer=stamp)).is_duplicate
    assert (await stream.append("a", producer=stamp)).is_duplicate
    with pytest.raises(RequestError) as caught:
        await stream.append("c", producer=ProducerStamp("writer", 0, 2))
    assert caught.value.code is ErrorCode.PRODUCER_GAP
    assert ("producer-expected-seq", "1") in caught.value.fields


async def test_rejections_are_those_of_http(server: Fluvial) -> None:
    """With the code and the status of the answer that a client would get."""
    stream, other = server.stream("s"), server.stream("t")
    await stream.create(content_type="text/plain", closed=True)
    await other.create(content_type="application/json")
    for attempt, code, status in (
        (server.stream("absent").append("x"), ErrorCode.NOT_FOUND, 404),
        (server.stream("absent").read(), ErrorCode.NOT_FOUND, 404),
        (server.stream("absent").info(), ErrorCode.NOT_FOUND, 404),
        (server.stream("absent").delete(), ErrorCode.NOT_FOUND, 404),
        (stream.append("x"), ErrorCode.STREAM_CLOSED, 409),
        (stream.append(""), ErrorCode.EMPTY_BODY, 400),
        (stream.create(content_type="text/html", closed=True), ErrorCode.STREAM_EXISTS, 409),
        (stream.read("yesterday"), ErrorCode.MALFORMED_OFFSET, 400),
        (other.append("{"), ErrorCode.INVALID_JSON, 400),
        (other.append("x", content_type="text/plain"), ErrorCode.CONTENT_TYPE_MISMATCH, 409),
        (other.append_json(), ErrorCode.EMPTY_ARRAY, 400),
        (other.append(b"x" * (other_limit(server) + 1)), ErrorCode.BODY_TOO_LARGE, 413),
        (server.stream("u").create(ttl=1, expires_at=datetime.now(UTC)), ErrorCode.MALFORMED_HEADER, 400),
    ):
        with pytest.raises(RequestError) as caught:
            await attempt
        assert (caught.value.code, caught.value.status) == (code, status)
    with pytest.raises(RequestError):
        server.stream("/a")


def other_limit(server: Fluvial) -> int:
    """The longest body."""
    return server.settings.max_body


async def test_follow_goes_on_until_the_stream_is_closed(server: Fluvial) -> None:
    """It begins at its offset, and gets what comes later."""
    stream = server.stream("s")
    created = await stream.create(content_type="application/json", data="[1,2]")
    following = asyncio.create_task(collect(stream.follow(), 9))
    from_tail = asyncio.create_task(collect(stream.follow(created.offset), 9))
    await settle()
    await stream.append_json(3)
    await stream.close()
    assert await following == [b"1", b"2", b"3"]
    assert await from_tail == [b"3"]


async def test_follow_ends_with_its_stream_with_its_reader_and_with_the_server() -> None:
    """A deleted stream raises; what a cancelled reader held is free."""
    async with Fluvial(listen=False) as server:
        stream = server.stream("s")
        await stream.create()
        deleted = asyncio.create_task(collect(stream.follow(), 1))
        cancelled = asyncio.create_task(collect(stream.follow("now"), 1))
        await settle()
        cancelled.cancel()
        await stream.delete()
        with pytest.raises(RequestError) as caught:
            await deleted
        assert caught.value.code is ErrorCode.NOT_FOUND
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await stream.create()
        last = asyncio.create_task(collect(stream.follow(), 1))
        await settle()
    assert await last == []


async def test_fork_begins_with_its_sources_data(server: Fluvial) -> None:
    """Up to the tail, or up to an offset and some messages more."""
    source = server.stream("s")
    created = await source.create(content_type="application/json")
    await source.append_json(1, 2)
    whole = await source.fork("whole")
    part = await source.fork("part", offset=created.offset, sub_offset=1)
    await source.append_json(3)
    assert [message.json() for message in (await whole.read()).messages] == [1, 2]
    assert [message.json() for message in (await part.read()).messages] == [1]
    with pytest.raises(RequestError) as caught:
        await server.stream("absent").fork("x")
    assert caught.value.code is ErrorCode.SOURCE_NOT_FOUND


async def test_info_has_what_the_stream_was_created_with(server: Fluvial) -> None:
    """And its tail."""
    stream, until = server.stream("s"), datetime(2100, 1, 1, tzinfo=UTC)
    await stream.create(content_type="text/plain", data="abc", expires_at=until, public=True)
    info = await stream.info()
    assert (info.content_type, info.byte_count, info.public) == ("text/plain", 3, True)
    assert (info.ttl_seconds, info.expires_at) == (None, until.isoformat())
    await server.stream("t").create(ttl=60)
    assert (await server.stream("t").info()).ttl_seconds == 60


async def test_stream_expires_by_the_programs_clock() -> None:
    """A program's tests turn it."""
    now_ms = 1_800_000_000_000
    clock = replace(Clock(), now_ms=lambda: now_ms)
    async with Fluvial(listen=False, clock=clock) as server:
        await server.stream("s").create(ttl=60)
        now_ms += 120_000
        with pytest.raises(RequestError):
            await server.stream("s").read()


async def test_append_is_delivered_to_estuaries(server: Fluvial) -> None:
    """By the server's own publisher; the result says how it went."""
    source = server.stream("chat/room")
    await source.create(content_type="application/json")
    streams = server._engine.application.streams
    estuaries = Estuaries(streams.store, streams.clock, Deliveries(streams.store, streams.clock))
    await estuaries.follow(source.name, WantedEstuary(StreamName("chat/alice")))
    appended = await source.append_json({"say": "hello"})
    assert appended.fan_out is not None
    assert (appended.fan_out.successes, appended.fan_out.mode) == (1, FanOutMode.INLINE)
    [message] = (await server.stream("chat/alice").read()).messages
    assert message.json() == {"say": "hello"}


async def test_first_project_does_not_end_the_programs_own_reads(server: Fluvial) -> None:
    """They are not those of anonymous clients."""
    stream = server.stream("shop/1")
    await stream.create()
    following = asyncio.create_task(collect(stream.follow(), 1))
    await settle()
    server._engine.application.live.end_anonymous()
    await stream.append("x")
    assert await following == [b"x"]


async def test_sqlite_keeps_streams_for_the_next_time(tmp_path: Path) -> None:
    """A folder belongs to one server at a time."""
    server = Fluvial(store="sqlite", data_dir=tmp_path / "data", listen=False)
    async with server:
        await server.stream("s").create(data="kept")
        with pytest.raises(Exception, match="in use"):
            await Fluvial(store="sqlite", data_dir=tmp_path / "data", listen=False).__aenter__()
    async with server:
        assert [message.text for message in (await server.stream("s").read()).messages] == ["kept"]


async def test_servers_of_one_process_are_apart() -> None:
    """Each has its own streams."""
    async with Fluvial() as one, Fluvial() as other:
        assert one.url != other.url
        await one.stream("s").create()
        assert await one.names() == ["s"]
        assert await other.names() == []


async def test_server_that_is_not_open_says_how_to_open_it() -> None:
    """Before it is opened and after it was closed."""
    server = Fluvial(listen=False)
    for _ in range(2):
        with pytest.raises(NotOpen, match="async with"):
            await server.stream("s").create()
        with pytest.raises(NotOpen):
            _ = server.url
        async with server:
            with pytest.raises(NotOpen, match="does not listen"):
                _ = server.url
            with pytest.raises(RuntimeError, match="open already"):
                await server.__aenter__()


def test_unknown_and_invalid_settings_are_named() -> None:
    """When the server is made, before it is opened."""
    with pytest.raises(SettingsError, match="there is no setting max_boddy"):
        Fluvial(max_boddy=1)
    with pytest.raises(SettingsError, match="max-body"):
        Fluvial(max_body=0)


async def test_closed_store_fails_an_append_in_progress() -> None:
    """As a request would fail."""
    async with Fluvial(listen=False) as server:
        await server.stream("s").create()
        await server._engine.application.streams.store.close()
        with pytest.raises(StoreError):
            await server.stream("s").append("x")


def test_thread_serves_a_program_without_an_event_loop() -> None:
    """`run` waits for its coroutines; another event loop may await them."""
    with Fluvial() as server:
        stream = server.stream("s")
        server.run(stream.create(content_type="text/plain"))
        server.run(stream.append("a"))

        async def elsewhere() -> list[bytes]:
            await stream.append("b", close=True)
            with pytest.raises(RuntimeError, match="await the coroutine"):
                server.run(stream.read())
            return await collect(stream.follow(), 9)

        assert asyncio.run(elsewhere()) == [b"a", b"b"]
    with pytest.raises(NotOpen):
        server.run(stream.read())


def test_thread_that_cannot_open_raises_in_the_program(tmp_path: Path) -> None:
    """And leaves no thread behind."""
    (tmp_path / "file").touch()
    server = Fluvial(store="sqlite", data_dir=tmp_path / "file")
    with pytest.raises(Exception, match="file"), server:
        pass
