"""Entity tags: what state of a stream an answer or a request speaks of, and what a request makes of it a condition.

A stream's own tag is the one that HEAD tells: of all its bytes, from the first to the tail. It changes with every
append, with the closure, and with the life. A page's tag is of the page's bytes (spec 10.1).
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.head import INCARNATION_BITS, Head, Incarnation
from fluvial.model.limits import POSITION_MAX

#: What the tag of an answer's compressed form ends with.
_TAG_SUFFIX: Final = b'-gzip"'


def etag(head: Head, start: int, end: int) -> bytes:
    """The entity tag of bytes [start, end) of one life; it changes when they become the final bytes (spec 10.1)."""
    final = b":c" if head.closed and end == head.tail else b""
    return b'"%x:%d:%d%s"' % (head.incarnation, start, end, final)


def stream_etag(head: Head) -> bytes:
    """The stream's own tag."""
    return etag(head, 0, head.tail)


def coded_tag(tag: bytes) -> bytes:
    """The entity tag of an answer's compressed form."""
    return tag[:-1] + _TAG_SUFFIX


def plain_tag(tag: bytes) -> bytes:
    """The entity tag of an answer, whichever of its forms has this one."""
    return tag.removesuffix(_TAG_SUFFIX) + b'"' if tag.endswith(_TAG_SUFFIX) else tag


@dataclass(frozen=True, slots=True)
class StreamState:
    """What a stream's own tag says: which life, how many bytes, and whether there may be more."""

    incarnation: Incarnation
    tail: int
    closed: bool


#: The tags that `stream_etag` spells, and no others.
_STREAM_TAG: Final = re.compile(rb'"(0|[1-9a-f][0-9a-f]{0,15}):0:(0|[1-9][0-9]{0,15})(:c)?"')


def states_of(tags: frozenset[bytes]) -> list[StreamState]:
    """The states that tags are of, in order; what no stream of ours ever has is of none."""
    return [state for state in map(_state_of, sorted(tags)) if state is not None]


def _state_of(tag: bytes) -> StreamState | None:
    match = _STREAM_TAG.fullmatch(tag)
    if match is None:
        return None
    incarnation, tail = int(match[1], 16), int(match[2])
    if incarnation >= 1 << INCARNATION_BITS or tail > POSITION_MAX:
        return None
    return StreamState(Incarnation(incarnation), tail, match[3] is not None)


class AnyTag(Enum):
    """`*`: whatever the tag is."""

    ANY = "*"


@dataclass(frozen=True, slots=True)
class TagList:
    """Tags by their quoted text: those that came as they are, and those that came as weak ones (`W/"…"`)."""

    strong: frozenset[bytes] = frozenset()
    weak: frozenset[bytes] = frozenset()

    @property
    def all(self) -> frozenset[bytes]:
        """What weak comparison looks through."""
        return self.strong | self.weak


EntityTags = AnyTag | TagList


@dataclass(frozen=True, slots=True)
class Preconditions:
    """What a request wants to be true before it is carried out (RFC 9110, 13.1); None: nothing.

    `If-Modified-Since` and `If-Unmodified-Since` are none of them: no answer has a date of its last change, so they
    "MUST be ignored" (13.1.3, 13.1.4); and so is `If-Range`, for no request here has a range.
    """

    if_match: EntityTags | None = None
    if_none_match: EntityTags | None = None

    def matches(self, tag: bytes | None) -> bool:
        """Whether If-Match lets the request pass; the tag is None where nothing is that has one.

        "An origin server MUST use the strong comparison function when comparing entity tags for If-Match" -- 13.1.1
        """
        if isinstance(self.if_match, TagList):
            return tag in self.if_match.strong
        return self.if_match is None or tag is not None

    def differs(self, tag: bytes | None) -> bool:
        """Whether If-None-Match lets the request pass.

        "A recipient MUST use the weak comparison function when comparing entity tags for If-None-Match" -- 13.1.2:
        a proxy that compresses weakens the tags that it passes on.
        """
        if isinstance(self.if_none_match, TagList):
            return tag not in self.if_none_match.all
        return self.if_none_match is None or tag is None

    def hold(self, tag: bytes | None) -> bool:
        """Whether a request that changes something may be carried out."""
        return self.matches(tag) and self.differs(tag)


UNCONDITIONAL: Final = Preconditions()

#: RFC 9110, 8.8.3: between the quotes is anything but a quote, a space and a control character; also a comma.
_TAG: Final = re.compile(rb'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_BETWEEN: Final = re.compile(rb"[ \t]*(?:,[ \t]*)+|[ \t]*\Z")


def parse_entity_tags(name: str, value: bytes) -> EntityTags:
    """The value of If-Match or If-None-Match, with the tags of compressed forms as those of their plain ones.

    RequestError when it is neither `*` nor a list of tags.
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
        # A client that reads compressed pages has their tag, and asks for compressed ones again: either form is meant.
        (weak if tag[1] else strong).add(plain_tag(tag[2]))
        at = between.end()
    return TagList(frozenset(strong), frozenset(weak))
