"""Event streams as browsers read them: they reconnect with the last event's id, and need complete characters."""

import asyncio
from itertools import count

import httpx
import pytest

from fluvial.app import build_application
from fluvial.clock import Clock
from fluvial.fanout.change_feed_backlog import ChangeFeedBacklog
from fluvial.model.head import Head
from fluvial.model.names import StreamName
from fluvial.model.page import Page
from fluvial.model.plan import plan_delete
from fluvial.server.live_reads import SseDelivery
from fluvial.settings import settings_from
from fluvial.storage.memory import MemoryStore
from tests.support.offsets import offset_in
from tests.support.sse import Event, events_of, subscribed

TEXT = {"Content-Type": "text/plain"}
numbers = count()


@pytest.fixture
def stream(http: httpx.Client) -> str:
    """An empty text stream."""
    name = f"/v1/stream/events-{next(numbers)}"
    assert http.put(name, headers=TEXT).status_code == 201
    return name


class Browser:
    """An EventSource: it reconnects with the same URL and the id of the last event, until an answer is not 200."""

    def __init__(self, http: httpx.Client, url: str) -> None:
        """`connect` connects for the first time, and again."""
        self._http, self._url, self.last_id = http, url, ""
        self.got = list[str]()
        self.is_done = False

    def connect(self) -> None:
        """Read one connection until the server ends it."""
        headers = {"Last-Event-ID": self.last_id} if self.last_id else {}
        with self._http.stream("GET", self._url, headers=headers) as response:
            self.is_done = response.status_code != 200
            for event in () if self.is_done else events_of(response):
                self.take(event)

    def take(self, event: Event) -> None:
        """Dispatch an event."""
        self.last_id = event.last_id or self.last_id
        if event.kind == "data":
            self.got.append(event.data)


def test_event_source_reconnects_without_a_gap_or_a_repeat(http: httpx.Client, stream: str) -> None:
    """Its URL has the first offset; at the end of a closed stream a 204 ends the reconnecting."""
    browser = Browser(http, f"{stream}?offset=-1&live=sse")
    for number in range(2):
        http.post(stream, content=b"%d" % number, headers=TEXT)
        browser.connect()
    http.post(stream, headers={"Stream-Closed": "true"})
    browser.connect()
    assert not browser.is_done
    browser.connect()
    assert browser.is_done
    assert "".join(browser.got) == "01"
    answer = http.get(f"{stream}?offset=-1&live=sse", headers={"Last-Event-ID": browser.last_id})
    assert (answer.status_code, answer.headers["stream-closed"]) == (204, "true")


def test_data_event_has_the_offset_to_resume_from(http: httpx.Client, stream: str) -> None:
    """Its id is the offset of its end, so a connection that breaks before the control event repeats nothing."""
    http.post(stream, content=b"one", headers=TEXT)
    with subscribed(http, stream) as events:
        event = next(events)
    assert (event.data, event.last_id) == ("one", offset_in(http, stream, 3))


@pytest.mark.parametrize("last_id", ["", None])
def test_event_source_without_an_id_starts_at_the_offset_of_its_url(
    http: httpx.Client, stream: str, last_id: str | None
) -> None:
    """Also with an empty Last-Event-ID."""
    http.post(stream, content=b"one", headers=TEXT)
    headers = {} if last_id is None else {"Last-Event-ID": last_id}
    with http.stream("GET", f"{stream}?offset=-1&live=sse", headers=headers) as response:
        assert next(events_of(response)).data == "one"


@pytest.mark.parametrize(
    ("last_id", "status"), [("7", 400), ("-1", 400), ("now", 400), ("0000000000000000_0000000000000001", 410)]
)
def test_last_event_id_that_is_not_an_offset_is_rejected(
    http: httpx.Client, stream: str, last_id: str, status: int
) -> None:
    """A reader that reconnects must not start from the beginning without notice."""
    answer = http.get(f"{stream}?offset=-1&live=sse", headers={"Last-Event-ID": last_id})
    assert answer.status_code == status


def test_last_event_id_is_ignored_by_other_reads(http: httpx.Client, stream: str) -> None:
    """Only event streams have it."""
    http.post(stream, content=b"one", headers=TEXT)
    assert http.get(stream, headers={"Last-Event-ID": offset_in(http, stream, 3)}).text == "one"


def test_incomplete_character_is_sent_with_the_append_that_completes_it(http: httpx.Client, stream: str) -> None:
    """Earlier appends are sent at once."""
    smile = "\U0001f600".encode()
    http.post(stream, content=b"a", headers=TEXT)
    http.post(stream, content=b"b" + smile[:2], headers=TEXT)
    with subscribed(http, stream) as events:
        assert next(events).data == "a"
        assert next(events).fields["streamNextOffset"] == offset_in(http, stream, 1)
        http.post(stream, content=smile[2:3], headers=TEXT)
        http.post(stream, content=smile[3:] + b"c", headers=TEXT)
        assert next(events).data == "b\U0001f600c"
        control = next(events).fields
        assert (control["streamNextOffset"], control["upToDate"]) == (offset_in(http, stream, 7), True)


async def test_buffered_event_stream_ends_before_an_incomplete_character() -> None:
    """On Lambda a client gets the answer when it ends, so it does not wait for the rest of the character."""
    settings, store = settings_from({"store": "memory"}), MemoryStore()
    application = build_application(settings, store, Clock(), ChangeFeedBacklog(store), SseDelivery.BUFFERED)
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        await client.put("/v1/stream/a", headers=TEXT)
        for batch in (b"a", b"b\xf0\x9f"):
            await client.post("/v1/stream/a", content=batch, headers=TEXT)
        answer = await asyncio.wait_for(client.get("/v1/stream/a?offset=-1&live=sse"), 5)
    assert [event.data for event in events_of(answer) if event.kind == "data"] == ["a"]


class DeletedInBetween(MemoryStore):
    """A store in which every stream is deleted between the load of its head and the read of its bytes."""

    async def read(self, name: StreamName, head: Head, position: int, byte_count_max: int) -> Page:
        """Raises StreamVanished."""
        await self.apply(name, plan_delete(Clock().now_ms()))
        return await super().read(name, head, position, byte_count_max)


@pytest.mark.parametrize("live", ["", "&live=long-poll", "&live=sse"])
async def test_read_of_a_stream_that_is_deleted_meanwhile_is_404(live: str) -> None:
    """In every mode, because the answer has not begun."""
    settings, store = settings_from({"store": "memory"}), DeletedInBetween()
    application = build_application(settings, store, Clock(), ChangeFeedBacklog(store))
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        await client.put("/v1/stream/a", content=b"a", headers=TEXT)
        answer = await client.get(f"/v1/stream/a?offset=-1{live}")
    assert answer.status_code == 404


def test_incomplete_character_is_sent_when_the_stream_closes(http: httpx.Client, stream: str) -> None:
    """A browser shows a replacement character for it."""
    http.post(stream, content=b"a\xf0\x9f", headers={**TEXT, "Stream-Closed": "true"})
    with subscribed(http, stream) as events:
        assert next(events).data == "a\ufffd"
        assert next(events).fields["streamClosed"] is True


def test_character_cut_at_the_end_of_a_page_is_sent_whole(http: httpx.Client, stream: str) -> None:
    """Although the batch with its second half is larger than a page."""
    smile = "\U0001f600".encode()
    http.post(stream, content=smile[:2], headers=TEXT)
    http.post(stream, content=smile[2:] + b"x" * 200_000, headers=TEXT)
    got = ""
    with subscribed(http, stream) as events:
        for event in events:
            if event.kind == "control":
                break
            got += event.data
    assert got == "\U0001f600" + "x" * 200_000


def test_text_appended_in_pieces_is_sent_in_whole_characters(http: httpx.Client, stream: str) -> None:
    """Each piece is larger than a page of events, and may end within a character."""
    text = "\U0001f600" * 450_000
    piece_bytes = 300_002
    encoded = text.encode()
    for at in range(0, len(encoded), piece_bytes):
        http.post(stream, content=encoded[at : at + piece_bytes], headers=TEXT)
    http.post(stream, headers={"Stream-Closed": "true"})
    with subscribed(http, stream) as events:
        got = "".join(event.data for event in events if event.kind == "data")
    assert "\ufffd" not in got
    assert got == text


def test_event_stream_forbids_proxies_to_buffer_or_transform(http: httpx.Client, stream: str) -> None:
    """By no-transform (RFC 9111, 5.2.2.6), and by nginx's own field."""
    with http.stream("GET", f"{stream}?offset=-1&live=sse") as response:
        assert "no-transform" in response.headers["cache-control"]
        assert response.headers["x-accel-buffering"] == "no"
