"""Offsets: positions inside, opaque sortable tokens outside (spec 8; docs/decisions/0010).

A token is `<born_us>_<position>`, sixteen digits each. `position` counts bytes from the stream's start; `born_us` says
which life of the name the byte before the position belongs to. A life that begins later has a larger one, so tokens
sort as text over all lives of a name; a fork has its source's tokens up to where it diverges, and its own after that.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.head import Head, SourcePosition

_TOKEN: Final = re.compile(r"([0-9]{16})_([0-9]{16})")


class Sentinel(Enum):
    """The two places that have a reserved spelling instead of a token."""

    BEGINNING = "-1"
    TAIL = "now"


@dataclass(frozen=True, slots=True)
class Offset:
    """A place as a token spells it: a life by its `born_us`, and a position in bytes from the stream's start."""

    born_us: int
    position: int


#: A place that a token spells. Zeros alone are the beginning of any life: who has read nothing has missed nothing, and
#: clients write them where they mean `-1`.
Place = Offset | Literal[Sentinel.BEGINNING]

ReadFrom = Sentinel | Offset


def born_at(head: Head, position: int) -> int:
    """The first half of a position's token: of the life that has the byte before it."""
    for span in head.lineage:
        if position <= span.end:
            return span.born_us
    return head.born_us


def offset_token(head: Head, position: int) -> str:
    """The token of a position of a stream."""
    return spell_offset(born_at(head, position), position)


def spell_offset(born_us: int, position: int) -> str:
    """The token of a position whose life is known."""
    return f"{born_us:016d}_{position:016d}"


def source_position(head: Head, position: int) -> SourcePosition:
    """A position of a source as the estuaries that follow it keep it."""
    return SourcePosition(head.incarnation, position, born_at(head, position))


def position_of(head: Head, offset: Offset) -> int | None:
    """The position that an offset names in a stream; None when it is of another life, or of a part not inherited."""
    if offset.born_us == head.born_us:
        return offset.position
    is_inherited = any(span.born_us == offset.born_us and offset.position <= span.end for span in head.lineage)
    return offset.position if is_inherited else None


def parse_offset(token: str) -> Place:
    """The place that a token spells; RequestError when it has not the form of those that this server issues."""
    found = _TOKEN.fullmatch(token)
    if found is None or not token.isascii():
        raise RequestError(ErrorCode.MALFORMED_OFFSET, "the offset is not one that this server issues")
    offset = Offset(int(found[1]), int(found[2]))
    return Sentinel.BEGINNING if offset == Offset(0, 0) else offset


def parse_read_from(token: str) -> ReadFrom:
    """The place an `offset` query value names: `-1`, `now` or a token."""
    if token == Sentinel.BEGINNING.value:
        return Sentinel.BEGINNING
    if token == Sentinel.TAIL.value:
        return Sentinel.TAIL
    return parse_offset(token)
