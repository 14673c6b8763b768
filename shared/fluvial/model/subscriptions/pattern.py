"""Patterns: globs over stream paths, and an index that finds the patterns of a path (spec 6.2).

"`*` matches one path segment and `**` matches zero or more path segments." -- spec 6.2

Rules:
1. A wildcard is a whole segment. Any other segment is literal, in the canonical spelling of stream names.
2. A match takes each segment of the path once, whatever the pattern: no pattern can make it backtrack.
3. The index is a trie of all patterns' segments. What it costs depends on the patterns that begin like the path, and
   not on how many others there are.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, NewType, TypeVar

from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.limits import PATTERN_SEGMENTS_MAX, STREAM_NAME_BYTES_MAX
from fluvial.model.names import parse_name

#: The path of a stream below its stream root, in the canonical spelling: `events/abc`.
StreamPath = NewType("StreamPath", str)

ANY_SEGMENT: Final = "*"
ANY_SEGMENTS: Final = "**"

K = TypeVar("K")


def parse_path(text: str) -> StreamPath:
    """Parse a stream-root-relative path, with or without slashes around it. Raises RequestError."""
    try:
        return StreamPath(parse_name(text.strip("/")))
    except RequestError as exc:
        raise RequestError(ErrorCode.INVALID_SUBSCRIPTION_REQUEST, f"a stream path is invalid: {exc.message}") from exc


def parse_pattern(text: str) -> str:
    """Parse a glob into its canonical spelling. Raises RequestError."""
    pattern = parse_path(text)
    if pattern.count("/") >= PATTERN_SEGMENTS_MAX:
        message = f"pattern has more than {PATTERN_SEGMENTS_MAX} segments"
        raise RequestError(ErrorCode.INVALID_SUBSCRIPTION_REQUEST, message)
    assert len(pattern) <= STREAM_NAME_BYTES_MAX, "a path is as long as a name at most"
    return pattern


def literal_prefix(pattern: str) -> str:
    """What the paths of all matching streams begin with: the literal segments before the first wildcard."""
    literal = list[str]()
    for segment in pattern.split("/"):
        if segment in {ANY_SEGMENT, ANY_SEGMENTS}:
            # `a/**` also matches `a` itself, so the slash before `**` is not part of the prefix.
            return "/".join(literal) + ("/" if literal and segment == ANY_SEGMENT else "")
        literal.append(segment)
    return pattern


class Glob:
    """A pattern whose segments are split once, for many paths."""

    __slots__ = ("_at_start", "_segments")

    def __init__(self, pattern: str) -> None:
        """`pattern` is in the canonical spelling."""
        self._segments = pattern.split("/")
        self._at_start = _with_empty(self._segments, {0})

    def matches(self, path: str) -> bool:
        """Whether a path matches the pattern."""
        segments, states = self._segments, self._at_start
        for part in path.split("/"):
            moved = set[int]()
            for at in states:
                if at == len(segments):
                    continue
                if segments[at] == ANY_SEGMENTS:
                    moved.add(at)
                elif segments[at] in {ANY_SEGMENT, part}:
                    moved.add(at + 1)
            states = _with_empty(segments, moved)
            if not states:
                return False
        return len(segments) in states


def matches(pattern: str, path: str) -> bool:
    """Whether a path matches a pattern."""
    return Glob(pattern).matches(path)


def _with_empty(segments: list[str], states: set[int]) -> set[int]:
    """The states, and those that are reached because `**` matches zero segments."""
    found = set(states)
    for state in states:
        at = state
        while at < len(segments) and segments[at] == ANY_SEGMENTS:
            at += 1
            found.add(at)
    return found


@dataclass(slots=True)
class _Node(Generic[K]):
    """The patterns that begin with the same segments. `repeats`: the last of these segments is `**`."""

    repeats: bool = False
    keys: set[K] = field(default_factory=set)
    literal: "dict[str, _Node[K]]" = field(default_factory=dict)
    any_segment: "_Node[K] | None" = None
    any_segments: "_Node[K] | None" = None

    def child(self, segment: str) -> "_Node[K]":
        """The node one segment further, made if there is none."""
        if segment == ANY_SEGMENT:
            if self.any_segment is None:
                self.any_segment = _Node()
            return self.any_segment
        if segment == ANY_SEGMENTS:
            if self.any_segments is None:
                self.any_segments = _Node(repeats=True)
            return self.any_segments
        return self.literal.setdefault(segment, _Node())

    def find(self, segment: str) -> "_Node[K] | None":
        """The node one segment further, if there is one."""
        if segment == ANY_SEGMENT:
            return self.any_segment
        return self.any_segments if segment == ANY_SEGMENTS else self.literal.get(segment)

    def drop(self, segment: str) -> None:
        """Drop the node one segment further, which is empty."""
        if segment == ANY_SEGMENT:
            self.any_segment = None
        elif segment == ANY_SEGMENTS:
            self.any_segments = None
        else:
            del self.literal[segment]

    @property
    def is_empty(self) -> bool:
        """Whether no pattern goes through this node."""
        return not self.keys and not self.literal and self.any_segment is None and self.any_segments is None


class PatternIndex(Generic[K]):
    """Keys by their patterns; a pattern without wildcards is one path."""

    def __init__(self) -> None:
        """Start without patterns."""
        self._root: _Node[K] = _Node()
        self._count = 0

    def __len__(self) -> int:
        """How many pairs of a pattern and a key there are."""
        return self._count

    def add(self, pattern: str, key: K) -> None:
        """Add a key for a pattern; a repeat changes nothing."""
        node = self._root
        for segment in pattern.split("/"):
            node = node.child(segment)
        self._count += key not in node.keys
        node.keys.add(key)

    def remove(self, pattern: str, key: K) -> None:
        """Remove a key of a pattern, and the nodes that no other pattern needs; a repeat changes nothing."""
        way = [self._root]
        segments = pattern.split("/")
        for segment in segments:
            node = way[-1].find(segment)
            if node is None:
                return
            way.append(node)
        if key not in way[-1].keys:
            return
        way[-1].keys.discard(key)
        self._count -= 1
        for at in range(len(segments), 0, -1):
            if not way[at].is_empty:
                return
            way[at - 1].drop(segments[at - 1])

    def match(self, path: str) -> frozenset[K]:
        """The keys of all patterns that match a path."""
        nodes = list(_closure([self._root]))
        for part in path.split("/"):
            moved = list[_Node[K]]()
            for node in nodes:
                if node.repeats:
                    moved.append(node)
                literal = node.literal.get(part)
                if literal is not None:
                    moved.append(literal)
                if node.any_segment is not None:
                    moved.append(node.any_segment)
            if not moved:
                return frozenset()
            nodes = list(_closure(moved))
        return frozenset(key for node in nodes for key in node.keys)


def _closure(nodes: "list[_Node[K]]") -> "Iterator[_Node[K]]":
    """Each node once, and those that are reached because `**` matches zero segments."""
    seen = set[int]()
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if node.any_segments is not None:
            waiting.append(node.any_segments)
