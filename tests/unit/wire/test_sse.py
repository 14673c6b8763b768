"""The format of server-sent events, read by the rules of the HTML standard."""

import json
from base64 import b64decode
from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from fluvial.model.page import Page
from fluvial.wire.sse import LINE_BYTES_MAX, control_event, data_events, retry_field, trim_to_whole_characters
from tests.support.commands import head

TOKEN = "0000000000000005_0000000000000007"
LONG = LINE_BYTES_MAX * 2 + 10


@dataclass(frozen=True)
class Event:
    """An event, and the id that a browser would send as `Last-Event-ID` after it."""

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
    """The joined payloads of a page's data events, the last of which has the page's offset as its id."""
    events = parsed(stream)
    assert {event.kind for event in events} <= {"data"}
    assert [event.last_id for event in events] == [b""] * (len(events) - 1) + [TOKEN.encode()]
    return b"".join(event.data for event in events)


@given(st.binary(min_size=1))
@example(b"line1\r\n\r\nevent: control\rdata: {}\n\n")
@example(b" leading\n  two\n\n")
@example(b"\nid: 1\n\n")
def test_text_is_sent_in_data_events_with_newlines(payload: bytes) -> None:
    """Every payload is one data event, even if it looks like events; its line breaks become newlines."""
    plain = payload.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    events = parsed(data_events("text/plain", payload, TOKEN))
    assert events == [Event("data", plain, TOKEN.encode())]


@given(st.binary(min_size=1))
def test_binary_data_is_sent_in_base64(payload: bytes) -> None:
    """Spec 5.8."""
    [event] = parsed(data_events("application/octet-stream", payload, TOKEN))
    assert (event.kind, b64decode(event.data, validate=True)) == ("data", payload)


def test_json_is_sent_as_one_array() -> None:
    """Also messages that span several lines."""
    assert json.loads(payload_of(data_events("application/json", b'{"a":\n  1},2,', TOKEN))) == [{"a": 1}, 2]


@pytest.mark.parametrize("text", ["x" * LONG, "\u20ac" * LONG, "a\n" + "\U0001f600" * LONG, " " * LONG, "\n" * LONG])
def test_long_lines_of_text_continue_in_another_event(text: str) -> None:
    """Readers join the data events before a control event; no character is cut."""
    events = parsed(data_events("text/plain", text.encode(), TOKEN))
    assert "".join(event.data.decode() for event in events) == text


def test_long_text_that_is_not_utf_8_is_sent_unchanged() -> None:
    """It has no characters that could be cut."""
    assert payload_of(data_events("text/plain", b"\x80" * LONG, TOKEN)) == b"\x80" * LONG


def test_long_base64_is_broken_into_lines() -> None:
    """Clients remove the line breaks (spec 5.8)."""
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
def test_long_json_is_broken_into_lines_after_commas(messages: list[object]) -> None:
    """It stays one array; only a string that is longer than a line is in a longer line."""
    stored = b"".join(json.dumps(message).encode() + b"," for message in messages)
    [event] = parsed(data_events("application/json", stored, TOKEN))
    assert json.loads(event.data) == messages
    assert event.data.replace(b"\n", b"") == b"[" + stored[:-1] + b"]"


def test_json_of_millions_of_commas_is_broken_into_lines() -> None:
    """An append may be so long."""
    stored = b"[" + b"1," * 4_000_000 + b"1],"
    [event] = parsed(data_events("application/json", stored, TOKEN))
    assert event.data.count(b"\n") > 100


def test_control_event_has_the_offset_and_the_flags_that_apply() -> None:
    """Fields that do not apply are left out."""
    [event] = parsed(control_event(TOKEN, 12, up_to_date=True, closed=False))
    assert (event.kind, event.last_id) == ("control", TOKEN.encode())
    assert json.loads(event.data) == {"streamNextOffset": TOKEN, "streamCursor": "12", "upToDate": True}
    [event] = parsed(control_event(TOKEN, None, up_to_date=True, closed=True))
    assert event.last_id == TOKEN.encode() + b".end"
    assert json.loads(event.data) == {"streamNextOffset": TOKEN, "upToDate": True, "streamClosed": True}


def test_retry_field_is_not_an_event() -> None:
    """It sets the reconnection time, and dispatches no event."""
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
def test_page_is_trimmed_before_an_incomplete_character(batches: list[bytes], shown: int) -> None:
    """Bytes that do not begin a character are sent at once."""
    page = page_of(*batches)
    text = head(tail=page.end)
    expected = b"".join(batches[:shown])
    found = trim_to_whole_characters(text, page)
    assert (found.end, found.data) == (len(expected), expected)
    closed = replace(text, closed=True)
    assert trim_to_whole_characters(closed, page) == page, "nothing will complete it"
    assert trim_to_whole_characters(replace(closed, tail=page.end + 1), page) == found, "another page follows"
    for content_type in ("application/octet-stream", "application/json"):
        assert trim_to_whole_characters(replace(text, content_type=content_type), page) == page


@given(st.text(max_size=20), st.data())
def test_text_cut_anywhere_is_trimmed_to_whole_characters(text: str, data: st.DataObject) -> None:
    """After the last append the whole text is sent."""
    stored, batches, at = text.encode(), list[bytes](), 0
    while at < len(stored):
        end = data.draw(st.integers(at + 1, len(stored)))
        batches.append(stored[at:end])
        at = end
    if not batches:
        return
    for count in range(1, len(batches) + 1):
        page = page_of(*batches[:count])
        trim_to_whole_characters(head(tail=page.end), page).data.decode()
    assert trim_to_whole_characters(head(tail=len(stored)), page_of(*batches)).data == stored
