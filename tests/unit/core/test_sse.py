import json
from base64 import b64decode

from hypothesis import example, given
from hypothesis import strategies as st

from fluvial.core.sse import control_event, data_event


def parsed(stream: bytes) -> list[tuple[str, bytes]]:
    """The events of a stream, by the rules of the HTML standard (9.2.6)."""
    events, kind, data = [], "", list[bytes]()
    for line in stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"):
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            kind = value.decode()
        elif name == b"data":
            data.append(value)
        elif not line and data:
            events.append((kind, b"\n".join(data)))
            kind, data = "", []
    return events


@given(st.binary(min_size=1))
@example(b"line1\r\n\r\nevent: control\rdata: {}\n\n")
@example(b" leading\n  two\n\n")
def test_text_comes_through_with_plain_line_breaks(payload: bytes) -> None:
    """Every payload is one data event, whatever it looks like; SSE knows one kind of line break."""
    plain = payload.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    assert parsed(data_event("text/plain", payload)) == [("data", plain)]


@given(st.binary(min_size=1))
def test_other_bytes_come_through_in_base64(payload: bytes) -> None:
    """Spec 5.8."""
    [(kind, data)] = parsed(data_event("application/octet-stream", payload))
    assert (kind, b64decode(data, validate=True)) == ("data", payload)


def test_json_comes_through_as_one_array() -> None:
    """Messages that span lines, too."""
    [(_, data)] = parsed(data_event("application/json", b'{"a":\n  1},2,'))
    assert json.loads(data) == [{"a": 1}, 2]


def test_a_control_event_says_where_the_reader_is() -> None:
    """Field names are the protocol's; what does not apply is left out."""
    [(kind, data)] = parsed(control_event(7, 12, up_to_date=True, closed=False))
    assert kind == "control"
    assert json.loads(data) == {
        "streamNextOffset": "0000000000000000_0000000000000007",
        "streamCursor": "12",
        "upToDate": True,
    }
    [(_, data)] = parsed(control_event(7, None, up_to_date=True, closed=True))
    assert json.loads(data) == {
        "streamNextOffset": "0000000000000000_0000000000000007",
        "upToDate": True,
        "streamClosed": True,
    }
