import json
from base64 import b64decode
from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from fluvial.model.page import Page
from fluvial.wire.sse import LINE_BYTES_MAX, control_event, data_events, retry_field, with_whole_characters
from tests.support.commands import head

TOKEN = "0000000000000005_0000000000000007"
LONG = LINE_BYTES_MAX * 2 + 10


@dataclass(frozen=True)
class Event:
    """One event, and what a browser would send back as `Last-Event-ID` after it."""

    kind: str
    data: bytes
    last_id: bytes


def parsed(stream: bytes) -> list[Event]:
    """The events of a stream, by the rules of the HTML standard (9.2.6)."""
    events, kind, data, last_id = list[Event](), "", list[bytes](), b""
    for line in stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"):
        assert len(line) <= LINE_BYTES_MAX or line.count(b'"') == 2
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            kind = value.decode()
        elif name == b"data":
            data.append(value)
        elif name == b"id":
            last_id = value
        elif not line and data:
            events.append(Event(kind, b"\n".join(data), last_id))
            kind, data = "", []
    return events


def payload_of(stream: bytes) -> bytes:
    """What the data events of a page hold, put together; a browser goes on behind it when it has the last one."""
    events = parsed(stream)
    assert {event.kind for event in events} <= {"data"}
    assert [event.last_id for event in events] == [b""] * (len(events) - 1) + [TOKEN.encode()]
    return b"".join(event.data for event in events)


@given(st.binary(min_size=1))
@example(b"line1\r\n\r\nevent: control\rdata: {}\n\n")
@example(b" leading\n  two\n\n")
@example(b"\nid: 1\n\n")
def test_text_comes_through_with_plain_line_breaks(payload: bytes) -> None:
    """Every payload is one data event, whatever it looks like; SSE knows one kind of line break."""
    plain = payload.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    events = parsed(data_events("text/plain", payload, TOKEN))
    assert events == [Event("data", plain, TOKEN.encode())]


@given(st.binary(min_size=1))
def test_other_bytes_come_through_in_base64(payload: bytes) -> None:
    """Spec 5.8."""
    [event] = parsed(data_events("application/octet-stream", payload, TOKEN))
    assert (event.kind, b64decode(event.data, validate=True)) == ("data", payload)


def test_json_comes_through_as_one_array() -> None:
    """Messages that span lines, too."""
    assert json.loads(payload_of(data_events("application/json", b'{"a":\n  1},2,', TOKEN))) == [{"a": 1}, 2]


@pytest.mark.parametrize("text", ["x" * LONG, "\u20ac" * LONG, "a\n" + "\U0001f600" * LONG, " " * LONG, "\n" * LONG])
def test_long_lines_of_text_go_on_in_another_event(text: str) -> None:
    """Readers put the data events up to the next control event together; no character is cut."""
    events = parsed(data_events("text/plain", text.encode(), TOKEN))
    assert "".join(event.data.decode() for event in events) == text


def test_long_text_that_is_no_utf_8_comes_through() -> None:
    """As it is: there are no characters that could be cut."""
    assert payload_of(data_events("text/plain", b"\x80" * LONG, TOKEN)) == b"\x80" * LONG


def test_long_base64_is_broken_into_lines() -> None:
    """Which clients take out again (spec 5.8)."""
    payload = bytes(range(256)) * 1_000
    [event] = parsed(data_events("application/octet-stream", payload, TOKEN))
    assert all(len(line) % 4 == 0 for line in event.data.split(b"\n"))
    assert b64decode(event.data.replace(b"\n", b""), validate=True) == payload


@pytest.mark.parametrize(
    "messages",
    [
        [{"n": number, "text": 'a, "b", \\'} for number in range(10_000)],
        [list(range(50_000))],
        [0, "," * 40_000, {"deep": ["," * 40_000, 1] * 3}],
        ["x" * LONG],
    ],
    ids=["many messages", "one long message", "long strings", "a string longer than a line"],
)
def test_long_json_is_broken_where_white_space_may_be(messages: list[object]) -> None:
    """It stays one array; only a string that is longer than a line makes a longer line."""
    stored = b"".join(json.dumps(message).encode() + b"," for message in messages)
    [event] = parsed(data_events("application/json", stored, TOKEN))
    assert json.loads(event.data) == messages
    assert event.data.replace(b"\n", b"") == b"[" + stored[:-1] + b"]"


def test_json_of_millions_of_commas_is_broken_into_lines() -> None:
    """One append may be as long as that."""
    stored = b"[" + b"1," * 4_000_000 + b"1],"
    [event] = parsed(data_events("application/json", stored, TOKEN))
    assert event.data.count(b"\n") > 100


def test_a_control_event_says_where_the_reader_is() -> None:
    """Field names are the protocol's; what does not apply is left out."""
    [event] = parsed(control_event(TOKEN, 12, up_to_date=True, closed=False))
    assert (event.kind, event.last_id) == ("control", TOKEN.encode())
    assert json.loads(event.data) == {"streamNextOffset": TOKEN, "streamCursor": "12", "upToDate": True}
    [event] = parsed(control_event(TOKEN, None, up_to_date=True, closed=True))
    assert event.last_id == TOKEN.encode() + b".end"
    assert json.loads(event.data) == {"streamNextOffset": TOKEN, "upToDate": True, "streamClosed": True}


def test_how_soon_to_come_back_is_no_event() -> None:
    """It is a field by itself."""
    assert parsed(retry_field(1_000)) == []


SMILE = "\U0001f600".encode()


def page_of(*batches: bytes) -> Page:
    """A page of these batches, from the beginning of a stream."""
    ends = tuple(sum(map(len, batches[:count])) for count in range(1, len(batches) + 1))
    return Page(0, ends[-1], b"".join(batches), ends)


@pytest.mark.parametrize(
    ("batches", "shown"),
    [
        ([b"a", b"b"], 2),
        ([b"a", SMILE[:1]], 1),
        ([b"a", SMILE[:2], SMILE[2:3]], 1),
        ([b"a", SMILE[:2], SMILE[2:]], 3),
        ([SMILE[:3]], 0),
        ([SMILE + "\xe9".encode()[:1]], 0),
        (["\u20ac".encode()[:2]], 0),
        ([b"a", b"\x80"], 2),
        ([b"\xff"], 1),
        ([SMILE[:2], b"not its end"], 2),
        ([SMILE[:2], SMILE[:1]], 1),
        ([b"a", "caf\xe9".encode("latin-1"), b"\xe9"], 2),
    ],
)
def test_an_unfinished_character_waits_for_the_append_that_ends_it(batches: list[bytes], shown: int) -> None:
    """What is no beginning of a character waits for nothing."""
    page = page_of(*batches)
    text = head(tail=page.end)
    expected = b"".join(batches[:shown])
    found = with_whole_characters(text, page)
    assert (found.end, found.data) == (len(expected), expected)
    closed = replace(text, closed=True)
    assert with_whole_characters(closed, page) == page, "nothing comes to end it"
    assert with_whole_characters(replace(closed, tail=page.end + 1), page) == found, "there is more to come"
    for content_type in ("application/octet-stream", "application/json"):
        assert with_whole_characters(replace(text, content_type=content_type), page) == page


@given(st.text(max_size=20), st.data())
def test_text_cut_anywhere_is_shown_in_whole_characters(text: str, data: st.DataObject) -> None:
    """And all of it in the end."""
    stored, batches, at = text.encode(), list[bytes](), 0
    while at < len(stored):
        end = data.draw(st.integers(at + 1, len(stored)))
        batches.append(stored[at:end])
        at = end
    if not batches:
        return
    for count in range(1, len(batches) + 1):
        page = page_of(*batches[:count])
        with_whole_characters(head(tail=page.end), page).data.decode()
    assert with_whole_characters(head(tail=len(stored)), page_of(*batches)).data == stored
