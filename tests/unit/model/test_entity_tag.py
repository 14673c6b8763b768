"""Entity tags in requests, and the states of streams that they stand for (RFC 9110, 8.8.3 and 13.1)."""

import pytest
from hypothesis import given

from fluvial.model.entity_tag import (
    AnyTag,
    EntityTags,
    Preconditions,
    StreamState,
    TagList,
    parse_entity_tags,
    states_of,
    stream_etag,
)
from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.head import Head, Incarnation
from tests.support.heads import heads


def tags(*strong: bytes, weak: tuple[bytes, ...] = ()) -> TagList:
    """A list of tags."""
    return TagList(frozenset(strong), frozenset(weak))


@pytest.mark.parametrize(
    ("value", "parsed"),
    [
        (b"*", AnyTag.ANY),
        (b" * ", AnyTag.ANY),
        (b'"a"', tags(b'"a"')),
        (b'""', tags(b'""')),
        (b'"a","b"', tags(b'"a"', b'"b"')),
        (b'"a" ,\t"b", "a"', tags(b'"a"', b'"b"')),
        (b', "a",, "b" ,', tags(b'"a"', b'"b"')),
        (b'"a,b", "*"', tags(b'"a,b"', b'"*"')),
        (b'"\xff\\"', tags(b'"\xff\\"')),
        (b'W/"a", "a", W/"b"', tags(b'"a"', weak=(b'"a"', b'"b"'))),
        (b"", tags()),
        (b" , ", tags()),
    ],
)
def test_entity_tag_lists_are_parsed(value: bytes, parsed: EntityTags) -> None:
    """With any characters between the quotes; empty elements are left out."""
    assert parse_entity_tags("If-Match", value) == parsed


@pytest.mark.parametrize(
    "value",
    [
        b"a",
        b'"a',
        b'a"',
        b'"a" "b"',
        b'"a"b',
        b'"a b"',
        b'"a"b"',
        b'*, "a"',
        b'"a", *',
        b"**",
        b'w/"a"',
        b'W/ "a"',
        b"W/*",
    ],
)
def test_malformed_entity_tag_list_is_rejected(value: bytes) -> None:
    """With 400, because it is ambiguous."""
    with pytest.raises(RequestError) as rejected:
        parse_entity_tags("If-Match", value)
    assert (rejected.value.code, rejected.value.status) == (ErrorCode.MALFORMED_HEADER, 400)
    assert "If-Match" in rejected.value.message


@given(head=heads())
def test_stream_tag_stands_for_the_streams_state(head: Head) -> None:
    """The incarnation, the length and the closure."""
    assert states_of(frozenset([stream_etag(head)])) == [StreamState(head.incarnation, head.tail, head.closed)]


@pytest.mark.parametrize(
    "tag",
    [b'"a"', b'"1:7:7"', b'"01:0:7"', b'"1:0:07"', b'"1:0:7:d"', b'"A:0:7"', b'"8000000000000000:0:7"', b"1:0:7"],
)
def test_other_tags_stand_for_no_state(tag: bytes) -> None:
    """The tag of a page, or another spelling of a stream's tag."""
    assert states_of(frozenset([tag])) == []


STATE = Head(incarnation=Incarnation(1), content_type="text/plain", tail=3)
OWN, OTHER = stream_etag(STATE), b'"other"'


@pytest.mark.parametrize(
    ("if_match", "if_none_match", "on_stream", "on_nothing"),
    [
        (None, None, True, True),
        (AnyTag.ANY, None, True, False),
        (tags(OTHER, OWN), None, True, False),
        (tags(OTHER), None, False, False),
        (tags(weak=(OWN,)), None, False, False),
        (tags(), None, False, False),
        (None, AnyTag.ANY, False, True),
        (None, tags(OTHER, OWN), False, True),
        (None, tags(OTHER), True, True),
        (None, tags(weak=(OWN,)), False, True),
        (None, tags(), True, True),
        (tags(OWN), tags(OTHER), True, False),
        (tags(OWN), AnyTag.ANY, False, False),
    ],
)
def test_preconditions_are_compared_as_rfc_9110_says(
    if_match: EntityTags | None,
    if_none_match: EntityTags | None,
    on_stream: bool,  # noqa: FBT001
    on_nothing: bool,  # noqa: FBT001
) -> None:
    """If-Match strongly, If-None-Match weakly, and both must hold."""
    preconditions = Preconditions(if_match, if_none_match)
    assert preconditions.hold(OWN) is on_stream
    assert preconditions.hold(None) is on_nothing
