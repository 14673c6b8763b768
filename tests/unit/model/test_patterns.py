"""Patterns of subscriptions: a glob matches what the specification says, alone and among thousands of others."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.limits import PATTERN_SEGMENTS_MAX
from fluvial.model.subscriptions.pattern import PatternIndex, literal_prefix, matches, parse_path, parse_pattern

segments = st.sampled_from(["a", "b", "*", "**"])
patterns = st.lists(segments, min_size=1, max_size=5).map("/".join)
paths = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=6).map("/".join)


def matches_slowly(pattern: list[str], path: list[str]) -> bool:
    """The definition, by trying everything."""
    if not pattern:
        return not path
    first, rest = pattern[0], pattern[1:]
    if first == "**":
        return any(matches_slowly(rest, path[count:]) for count in range(len(path) + 1))
    return bool(path) and first in {"*", path[0]} and matches_slowly(rest, path[1:])


@given(patterns, paths)
def test_pattern_matches_as_defined(pattern: str, path: str) -> None:
    """`*` is one segment, and `**` any number of them."""
    is_match = matches_slowly(pattern.split("/"), path.split("/"))
    assert matches(pattern, path) is is_match
    assert not is_match or path.startswith(literal_prefix(pattern))


@given(st.lists(st.tuples(patterns, st.integers(0, 3))), st.data(), paths)
def test_index_finds_what_matches(added: list[tuple[str, int]], data: st.DataObject, path: str) -> None:
    """Also after some pairs are removed; and an index from which all are removed holds nothing."""
    index = PatternIndex[int]()
    for pattern, key in added:
        index.add(pattern, key)
    kept = set(added)
    for pair in data.draw(st.lists(st.sampled_from(added)) if added else st.just([])):
        index.remove(*pair)
        kept.discard(pair)
    assert index.match(path) == {key for pattern, key in kept if matches(pattern, path)}
    assert len(index) == len(kept)
    for pair in kept:
        index.remove(*pair)
    assert index._root.is_empty


@pytest.mark.parametrize(
    ("pattern", "path"),
    [("a/**", "a"), ("**", "a/b/c"), ("**/c", "c"), ("a/*/c", "a/b/c"), ("a/**/**/c", "a/c"), ("a", "a")],
)
def test_pattern_matches(pattern: str, path: str) -> None:
    """Zero segments, too."""
    assert matches(pattern, path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [("a/*", "a"), ("a/*", "a/b/c"), ("*", "a/b"), ("a/**/c", "ac"), ("ab*", "abc"), ("a/**", "ab")],
)
def test_pattern_does_not_match(pattern: str, path: str) -> None:
    """A wildcard is a whole segment."""
    assert not matches(pattern, path)


@pytest.mark.parametrize("parse", [parse_path, parse_pattern])
def test_paths_are_spelt_as_names_are(parse: Callable[[str], str]) -> None:
    """With or without slashes around them."""
    assert parse("/events/room 1/") == "events/room%201" == parse("events/room%201")


@pytest.mark.parametrize(
    "text", ["", "/", "a//b", "a/../b", "__ds/x", "a/%zz", "a\nb", "*/" * PATTERN_SEGMENTS_MAX + "*"]
)
def test_invalid_pattern_is_refused(text: str) -> None:
    """With the protocol's code."""
    with pytest.raises(RequestError) as caught:
        parse_pattern(text)
    assert caught.value.code is ErrorCode.INVALID_SUBSCRIPTION_REQUEST


def test_pattern_with_many_wildcards_does_not_backtrack() -> None:
    """Each segment of a path is looked at once, so a hostile pattern costs its length times the path's."""
    pattern = "/".join(["**", "a"] * (PATTERN_SEGMENTS_MAX // 2))
    assert not matches(pattern, "/".join(["a"] * 400 + ["b"]))
