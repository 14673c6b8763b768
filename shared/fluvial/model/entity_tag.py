"""Entity tags, and the preconditions that compare them: If-Match and If-None-Match (docs/decisions/0011).

A stream's own tag, which HEAD returns, is of all its bytes from the first to the tail. It changes with every append,
with the closure, and with the incarnation. A page's tag is of the page's bytes (spec 10.1).
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.head import INCARNATION_BITS, Head, Incarnation
from fluvial.model.limits import POSITION_MAX

#: The end of the entity tag of a compressed answer.
_CODED_SUFFIX: Final = b'-gzip"'


def etag(head: Head, start: int, end: int) -> bytes:
    """The entity tag of bytes [start, end) of an incarnation; it changes when they become final (spec 10.1)."""
    final = b":c" if head.closed and end == head.tail else b""
    return b'"%x:%d:%d%s"' % (head.incarnation, start, end, final)


def stream_etag(head: Head) -> bytes:
    """The stream's own tag."""
    return etag(head, 0, head.tail)


def coded_tag(tag: bytes) -> bytes:
    """The entity tag of the compressed form of an answer with this tag."""
    return tag[:-1] + _CODED_SUFFIX


def plain_tag(tag: bytes) -> bytes:
    """The entity tag of the plain form of an answer, given the tag of its plain or of its compressed form."""
    return tag.removesuffix(_CODED_SUFFIX) + b'"' if tag.endswith(_CODED_SUFFIX) else tag


@dataclass(frozen=True, slots=True)
class StreamState:
    """The state that a stream's own tag stands for: incarnation, length, and whether the stream is closed."""

    incarnation: Incarnation
    tail: int
    closed: bool


#: Matches exactly the tags that `stream_etag` returns.
_STREAM_TAG: Final = re.compile(rb'"(0|[1-9a-f][0-9a-f]{0,15}):0:(0|[1-9][0-9]{0,15})(:c)?"')


def states_of(tags: frozenset[bytes]) -> list[StreamState]:
    """The states that tags stand for, in the order of the tags; tags that no stream has are left out."""
    return [state for state in map(_parse_state, sorted(tags)) if state is not None]


def _parse_state(tag: bytes) -> StreamState | None:
    match = _STREAM_TAG.fullmatch(tag)
    if match is None:
        return None
    incarnation, tail = int(match[1], 16), int(match[2])
    if incarnation >= 1 << INCARNATION_BITS or tail > POSITION_MAX:
        return None
    return StreamState(Incarnation(incarnation), tail, match[3] is not None)


class AnyTag(Enum):
    """`*`: any tag."""

    ANY = "*"


@dataclass(frozen=True, slots=True)
class TagList:
    """Tags by their quoted text: strong ones, and weak ones (`W/"…"`)."""

    strong: frozenset[bytes] = frozenset()
    weak: frozenset[bytes] = frozenset()

    @property
    def all(self) -> frozenset[bytes]:
        """Both kinds, for weak comparison."""
        return self.strong | self.weak


EntityTags = AnyTag | TagList


@dataclass(frozen=True, slots=True)
class Preconditions:
    """The conditions under which a request is carried out (RFC 9110, 13.1); None is no condition.

    `If-Modified-Since` and `If-Unmodified-Since` "MUST be ignored" (13.1.3, 13.1.4), because no answer has a
    Last-Modified date. `If-Range` is ignored, because ranges are not supported.
    """

    if_match: EntityTags | None = None
    if_none_match: EntityTags | None = None

    def matches(self, tag: bytes | None) -> bool:
        """Whether If-Match holds; the tag is None where there is no stream.

        "An origin server MUST use the strong comparison function when comparing entity tags for If-Match" -- 13.1.1
        """
        if isinstance(self.if_match, TagList):
            return tag in self.if_match.strong
        return self.if_match is None or tag is not None

    def differs(self, tag: bytes | None) -> bool:
        """Whether If-None-Match holds.

        "A recipient MUST use the weak comparison function when comparing entity tags for If-None-Match" -- 13.1.2:
        a proxy that compresses weakens the tags that it passes on.
        """
        if isinstance(self.if_none_match, TagList):
            return tag not in self.if_none_match.all
        return self.if_none_match is None or tag is None

    def hold(self, tag: bytes | None) -> bool:
        """Whether both conditions hold, as a write requires."""
        return self.matches(tag) and self.differs(tag)


UNCONDITIONAL: Final = Preconditions()

#: RFC 9110, 8.8.3: between the quotes is anything but a quote, a space and a control character; also a comma.
_TAG: Final = re.compile(rb'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_BETWEEN: Final = re.compile(rb"[ \t]*(?:,[ \t]*)+|[ \t]*\Z")


def parse_entity_tags(name: str, value: bytes) -> EntityTags:
    """Parse If-Match or If-None-Match; tags of compressed answers become those of the plain ones.

    RequestError when the value is neither `*` nor a list of tags.
    """
    rest = value.strip(b" \t,")
    if rest == b"*":
        return AnyTag.ANY
    strong, weak, at = set[bytes](), set[bytes](), 0
    while at < len(rest):
        tag = _TAG.match(rest, at)
        between = None if tag is None else _BETWEEN.match(rest, tag.end())
        if tag is None or between is None:
            message = f'{name} must be * or entity tags in quotes, with commas between: "a", "b"'
            raise RequestError(ErrorCode.MALFORMED_HEADER, message)
        # A client that reads compressed pages sends their tags, and means the page in either form.
        (weak if tag[1] else strong).add(plain_tag(tag[2]))
        at = between.end()
    return TagList(frozenset(strong), frozenset(weak))
