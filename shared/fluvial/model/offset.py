"""Offsets: positions inside the server, opaque sortable tokens outside (spec 8; docs/decisions/0010).

A token is `<born_us>_<position>`, sixteen digits each. `position` counts bytes from the stream's start; `born_us` is
that of the incarnation to which the byte before the position belongs. A later incarnation has a larger one, so tokens
sort as text over all incarnations of a name. A fork has its source's tokens up to the position where it diverges, and
its own after that.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.head import Head, SourcePosition

_TOKEN: Final = re.compile(r"([0-9]{16})_([0-9]{16})")


class ReservedOffset(Enum):
    """The two offsets that have a reserved spelling instead of a token (spec 8)."""

    BEGINNING = "-1"
    TAIL = "now"


@dataclass(frozen=True, slots=True)
class Offset:
    """A decoded token: an incarnation by its `born_us`, and a position in bytes from the stream's start."""

    born_us: int
    position: int


#: An offset that a token stands for. A token of zeros is the beginning of any incarnation, because its reader has read
#: nothing and so has missed nothing; clients send it in place of `-1`.
TokenOffset = Offset | Literal[ReservedOffset.BEGINNING]

ReadFrom = ReservedOffset | Offset


def birth_us_at(head: Head, position: int) -> int:
    """The first half of a position's token: `born_us` of the incarnation that has the byte before the position."""
    for span in head.lineage:
        if position <= span.end:
            return span.born_us
    return head.born_us


def offset_token(head: Head, position: int) -> str:
    """The token of a position of a stream."""
    return encode_offset(birth_us_at(head, position), position)


def encode_offset(born_us: int, position: int) -> str:
    """The token of a position in an incarnation that is given by its `born_us`."""
    return f"{born_us:016d}_{position:016d}"


def source_position(head: Head, position: int) -> SourcePosition:
    """A position of a source in the form that estuaries store."""
    return SourcePosition(head.incarnation, position, birth_us_at(head, position))


def position_of(head: Head, offset: Offset) -> int | None:
    """The position of an offset in a stream; None for another incarnation, or a part that a fork has not inherited."""
    if offset.born_us == head.born_us:
        return offset.position
    is_inherited = any(span.born_us == offset.born_us and offset.position <= span.end for span in head.lineage)
    return offset.position if is_inherited else None


def parse_offset(token: str) -> TokenOffset:
    """Parse a token; RequestError when it does not have the form of the tokens that this server issues."""
    found = _TOKEN.fullmatch(token)
    if found is None or not token.isascii():
        raise RequestError(ErrorCode.MALFORMED_OFFSET, "the offset is not one that this server issues")
    offset = Offset(int(found[1]), int(found[2]))
    return ReservedOffset.BEGINNING if offset == Offset(0, 0) else offset


def parse_read_from(token: str) -> ReadFrom:
    """Parse the query's `offset`: `-1`, `now` or a token."""
    if token == ReservedOffset.BEGINNING.value:
        return ReservedOffset.BEGINNING
    if token == ReservedOffset.TAIL.value:
        return ReservedOffset.TAIL
    return parse_offset(token)
