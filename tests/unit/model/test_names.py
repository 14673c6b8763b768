"""Stream names: canonical spellings, and the paths that are no names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.limits import STREAM_NAME_BYTES_MAX
from fluvial.model.names import parse_name, parse_source_path


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("chat", "chat"),
        ("chat/room-1", "chat/room-1"),
        ("%63hat", "chat"),
        ("room%201", "room%201"),
        ("a%2Fb", "a%2Fb"),
        ("a%2fb", "a%2Fb"),
        ("caf%C3%A9", "caf%C3%A9"),
        ("a:b@c", "a:b@c"),
        ("x/__ds", "x/__ds"),
        ("...", "..."),
    ],
)
def test_name_has_one_canonical_spelling(path: str, name: str) -> None:
    """Percent-escapes are in capitals, and only where they are needed."""
    assert parse_name(path) == name
    assert parse_name(name) == name


@pytest.mark.parametrize(
    "path",
    ["a//b", "/a", "a/", "..", "a/../b", "%2e%2E", "a%2F..%2Fb", "a%5C..", "a%00b", "%ff", "%", "%zz", "a%1", "a%0Ab"],
)
def test_invalid_path_is_rejected(path: str) -> None:
    """Empty and dot segments, control characters, bad escapes and bad UTF-8, plain or encoded."""
    with pytest.raises(RequestError) as rejected:
        parse_name(path)
    assert (rejected.value.status, rejected.value.code) == (400, ErrorCode.MALFORMED_NAME)


@pytest.mark.parametrize("path", ["__ds", "__ds/subscriptions/1", "%5F%5Fds/x", "__d%73"])
def test_reserved_prefix_is_not_found(path: str) -> None:
    """Control paths are not application streams, however they are spelt (spec 6)."""
    with pytest.raises(RequestError) as rejected:
        parse_name(path)
    assert (rejected.value.status, rejected.value.code) == (404, ErrorCode.RESERVED_PATH)


def test_name_length_is_limited_in_canonical_spelling() -> None:
    """Because that is stored."""
    assert len(parse_name("x" * STREAM_NAME_BYTES_MAX)) == STREAM_NAME_BYTES_MAX
    with pytest.raises(RequestError) as rejected:
        parse_name("x" * (STREAM_NAME_BYTES_MAX + 1))
    assert rejected.value.status == 414


def test_empty_path_is_not_found() -> None:
    """The root itself is not a stream."""
    with pytest.raises(RequestError) as rejected:
        parse_name("")
    assert rejected.value.status == 404


@given(st.text(max_size=60))
def test_parsed_name_is_canonical_and_has_no_dot_segments(path: str) -> None:
    """For every path that is accepted."""
    try:
        name = parse_name(path)
    except RequestError:
        return
    assert parse_name(name) == name
    assert not {"", ".", ".."} & set(name.split("/"))


def test_fork_source_must_be_a_path_on_this_server() -> None:
    """Cross-service forks are not supported (spec 4.2)."""
    assert parse_source_path("/v1/stream/a/b") == "a/b"
    for path in ("a/b", "http://elsewhere/v1/stream/a", "/v2/stream/a"):
        with pytest.raises(RequestError):
            parse_source_path(path)
