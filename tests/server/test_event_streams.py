"""Event streams as browsers read them: they come back with the last event's id, and show text in whole characters."""

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
    """A page's EventSource: it keeps its URL, and comes back with the id of the last event until it is told not to."""

    def __init__(self, http: httpx.Client, url: str) -> None:
        """It has not connected yet."""
        self._http, self._url, self.last_id = http, url, ""
        self.got = list[str]()
        self.is_done = False

    def connect(self) -> None:
        """One connection, until the server ends it."""
        headers = {"Last-Event-ID": self.last_id} if self.last_id else {}
        with self._http.stream("GET", self._url, headers=headers) as response:
            self.is_done = response.status_code != 200
            for event in () if self.is_done else events_of(response):
                self.take(event)

    def take(self, event: Event) -> None:
        """One event is dispatched."""
        self.last_id = event.last_id or self.last_id
        if event.kind == "data":
            self.got.append(event.data)


def test_a_browser_comes_back_without_a_gap_or_a_repeat(http: httpx.Client, stream: str) -> None:
    """Although its URL still says where it began; at the end of the stream it is told not to come again."""
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


def test_a_connection_that_breaks_behind_a_data_event_repeats_nothing(http: httpx.Client, stream: str) -> None:
    """The data event itself says where it ends."""
    http.post(stream, content=b"one", headers=TEXT)
    with subscribed(http, stream) as events:
        event = next(events)
    assert (event.data, event.last_id) == ("one", offset_in(http, stream, 3))


@pytest.mark.parametrize("last_id", ["", None])
def test_a_browser_without_an_id_begins_where_its_url_says(
    http: httpx.Client, stream: str, last_id: str | None
) -> None:
    """As at its first connection."""
    http.post(stream, content=b"one", headers=TEXT)
    headers = {} if last_id is None else {"Last-Event-ID": last_id}
    with http.stream("GET", f"{stream}?offset=-1&live=sse", headers=headers) as response:
        assert next(events_of(response)).data == "one"


@pytest.mark.parametrize(
    ("last_id", "status"), [("7", 400), ("-1", 400), ("now", 400), ("0000000000000000_0000000000000001", 410)]
)
def test_an_id_that_is_no_offset_of_the_stream_is_refused(
    http: httpx.Client, stream: str, last_id: str, status: int
) -> None:
    """A reader that goes on must not begin anew without being told."""
    answer = http.get(f"{stream}?offset=-1&live=sse", headers={"Last-Event-ID": last_id})
    assert answer.status_code == status


def test_an_id_means_nothing_to_other_reads(http: httpx.Client, stream: str) -> None:
    """It is the event stream's."""
    http.post(stream, content=b"one", headers=TEXT)
    assert http.get(stream, headers={"Last-Event-ID": offset_in(http, stream, 3)}).text == "one"


def test_an_unfinished_character_comes_with_the_append_that_ends_it(http: httpx.Client, stream: str) -> None:
    """What was appended before it comes at once."""
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


async def test_a_buffered_answer_ends_before_an_unfinished_character() -> None:
    """On Lambda nobody sees what is shown before the answer ends, so it does not wait for the rest."""
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
    """A store in which every stream ends between a look at its head and the read of its bytes."""

    async def read(self, name: StreamName, head: Head, position: int, byte_count_max: int) -> Page:
        """Raises StreamVanished."""
        await self.apply(name, plan_delete(Clock().now_ms()))
        return await super().read(name, head, position, byte_count_max)


@pytest.mark.parametrize("live", ["", "&live=long-poll", "&live=sse"])
async def test_a_stream_that_ends_as_a_read_begins_is_not_there(live: str) -> None:
    """In every mode, for nothing was told yet."""
    settings, store = settings_from({"store": "memory"}), DeletedInBetween()
    application = build_application(settings, store, Clock(), ChangeFeedBacklog(store))
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        await client.put("/v1/stream/a", content=b"a", headers=TEXT)
        answer = await client.get(f"/v1/stream/a?offset=-1{live}")
    assert answer.status_code == 404


def test_a_character_that_is_never_ended_is_shown_when_the_stream_closes(http: httpx.Client, stream: str) -> None:
    """As a browser shows what is no character."""
    http.post(stream, content=b"a\xf0\x9f", headers={**TEXT, "Stream-Closed": "true"})
    with subscribed(http, stream) as events:
        assert next(events).data == "a\ufffd"
        assert next(events).fields["streamClosed"] is True


def test_a_character_cut_where_a_page_ends_is_whole(http: httpx.Client, stream: str) -> None:
    """A large batch after its first half does not part them."""
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


def test_text_uploaded_in_pieces_of_any_length_is_shown_in_whole_characters(http: httpx.Client, stream: str) -> None:
    """Each is larger than a page of events, and may end within a character."""
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


def test_nothing_between_may_hold_back_or_change_events(http: httpx.Client, stream: str) -> None:
    """RFC 9111, 5.2.2.6; and nginx's own field."""
    with http.stream("GET", f"{stream}?offset=-1&live=sse") as response:
        assert "no-transform" in response.headers["cache-control"]
        assert response.headers["x-accel-buffering"] == "no"
