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
def test_a_name_has_one_spelling(path: str, name: str) -> None:
    """Percent-escapes are spelt in one way, and only where they are needed."""
    assert parse_name(path) == name
    assert parse_name(name) == name


@pytest.mark.parametrize(
    "path",
    ["a//b", "/a", "a/", "..", "a/../b", "%2e%2E", "a%2F..%2Fb", "a%5C..", "a%00b", "%ff", "%", "%zz", "a%1", "a%0Ab"],
)
def test_a_path_that_is_no_name_is_refused(path: str) -> None:
    """Empty and dot segments, control characters, bad escapes and bad UTF-8, plain or encoded."""
    with pytest.raises(RequestError) as refused:
        parse_name(path)
    assert (refused.value.status, refused.value.code) == (400, ErrorCode.MALFORMED_NAME)


@pytest.mark.parametrize("path", ["__ds", "__ds/subscriptions/1", "%5F%5Fds/x", "__d%73"])
def test_the_reserved_prefix_is_no_stream(path: str) -> None:
    """Spec 6: control paths are never application streams, however they are spelt."""
    with pytest.raises(RequestError) as refused:
        parse_name(path)
    assert (refused.value.status, refused.value.code) == (404, ErrorCode.RESERVED_PATH)


def test_a_long_name_is_refused_by_its_canonical_length() -> None:
    """The bound is on what is stored."""
    assert len(parse_name("x" * STREAM_NAME_BYTES_MAX)) == STREAM_NAME_BYTES_MAX
    with pytest.raises(RequestError) as refused:
        parse_name("x" * (STREAM_NAME_BYTES_MAX + 1))
    assert refused.value.status == 414


def test_no_name_at_all_is_not_found() -> None:
    """The root itself is no stream."""
    with pytest.raises(RequestError) as refused:
        parse_name("")
    assert refused.value.status == 404


@given(st.text(max_size=60))
def test_a_name_never_escapes_its_root(path: str) -> None:
    """Whatever is accepted has no dot segment and is its own canonical spelling."""
    try:
        name = parse_name(path)
    except RequestError:
        return
    assert parse_name(name) == name
    assert not {"", ".", ".."} & set(name.split("/"))


def test_a_source_is_a_path_on_this_server() -> None:
    """Cross-service forks are not supported (spec 4.2)."""
    assert parse_source_path("/v1/stream/a/b") == "a/b"
    for path in ("a/b", "http://elsewhere/v1/stream/a", "/v2/stream/a"):
        with pytest.raises(RequestError):
            parse_source_path(path)
