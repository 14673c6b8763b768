"""JSON mode: how a body is split into stored messages, and how a page becomes an array."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fluvial.model.errors import RequestError
from fluvial.model.json_mode import EmptyArray, as_array, message_ends, stored_messages
from fluvial.model.limits import MESSAGES_PER_REQUEST_MAX

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)


@pytest.mark.parametrize(
    ("body", "stored"),
    [
        (b'{"a": 1}', b'{"a": 1},'),
        (b'[{"a":1}, {"b":2}]', b'{"a":1},{"b":2},'),
        (b"[[1,2], [3,4]]", b"[1,2],[3,4],"),
        (b"[[[1,2,3]]]", b"[[1,2,3]],"),
        (b' \n[ 1 ,\t"x,y" ]\r\n', b'1,"x,y",'),
        (b"1.50e+10", b"1.50e+10,"),
        (b'["\\ud83d" , "\\uDE00",["\\ud800"]]', b'"\\ud83d","\\uDE00",["\\ud800"],'),
        (b'"\\\\ud800"', b'"\\\\ud800",'),
        (b'"caf\xc3\xa9"', b'"caf\xc3\xa9",'),
        (b"[123456789012345678901234567890]", b"123456789012345678901234567890,"),
    ],
)
def test_one_array_level_is_flattened_without_re_encoding(body: bytes, stored: bytes) -> None:
    """Numbers and escapes stay as they were sent (spec 9.1.2)."""
    assert stored_messages(body, EmptyArray.REJECTED) == stored


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[1,]",
        b"nul",
        b"NaN",
        b"Infinity",
        b"01",
        b"1.",
        b"'x'",
        b'"\x01"',
        b'"\\x"',
        b"1 2",
        b'{"a":1}{"b":2}',
        b"\xef\xbb\xbf1",
        b'"\xff"',
        b'["\xc3"]',
        b'{"a":"\xed\xa0\x80"}',
        b"[" * 100000,
        b"[" * 100000 + b"]" * 100000,
        b'{"a":' * 100000 + b"1" + b"}" * 100000,
        b" ",
        b"\x00",
        b'{"a":1,}',
    ],
)
def test_invalid_json_is_rejected(body: bytes) -> None:
    """Malformed, cut off, not UTF-8, or nested too deeply."""
    with pytest.raises(RequestError) as rejected:
        stored_messages(body, EmptyArray.REJECTED)
    assert rejected.value.status == 400


def test_empty_array_is_allowed_on_put_and_rejected_on_post() -> None:
    """Spec 9.1.3."""
    assert stored_messages(b" [ ] ", EmptyArray.ALLOWED) == b""
    with pytest.raises(RequestError):
        stored_messages(b"[]", EmptyArray.REJECTED)


@given(st.lists(values, min_size=1), st.sampled_from([None, 1]))
@example([[]], None)
def test_stored_messages_equal_the_body(messages: list[object], indent: int | None) -> None:
    """The array of a page equals the body, both parsed by the standard library."""
    body = json.dumps(messages, indent=indent, ensure_ascii=False).encode("utf-8", "replace")
    stored = stored_messages(body, EmptyArray.REJECTED)
    assert json.loads(as_array(stored)) == json.loads(body)


@given(st.lists(values, min_size=1, max_size=5))
def test_message_ends_are_where_messages_end(messages: list[object]) -> None:
    """A range that is cut at any of them is a valid array."""
    stored = stored_messages(json.dumps(messages).encode(), EmptyArray.REJECTED)
    ends = message_ends(stored)
    assert len(ends) == len(messages)
    assert ends[-1] == len(stored)
    for count, end in enumerate(ends, start=1):
        assert json.loads(as_array(stored[:end])) == json.loads(json.dumps(messages[:count]))


@given(st.binary(max_size=40))
def test_arbitrary_bytes_are_stored_or_rejected(body: bytes) -> None:
    """No other exception is raised."""
    try:
        stored = stored_messages(body, EmptyArray.ALLOWED)
    except RequestError:
        return
    json.loads(as_array(stored))


def test_empty_range_is_an_empty_array() -> None:
    """Spec 9.1.5."""
    assert as_array(b"") == b"[]"


def test_stored_range_may_have_more_messages_than_a_request() -> None:
    """An estuary's batch is made of several batches."""
    assert len(message_ends(b"1," * (MESSAGES_PER_REQUEST_MAX + 1))) == MESSAGES_PER_REQUEST_MAX + 1


def test_number_of_messages_in_a_request_is_limited() -> None:
    """Splitting millions of them would block the event loop."""
    body = b"[" + b"0," * MESSAGES_PER_REQUEST_MAX
    assert len(message_ends(stored_messages(body[:-1] + b"]", EmptyArray.REJECTED))) == MESSAGES_PER_REQUEST_MAX
    with pytest.raises(RequestError) as rejected:
        stored_messages(body + b"0]", EmptyArray.REJECTED)
    assert rejected.value.status == 413
