"""Offsets: integers inside, opaque sortable tokens outside (spec 8)."""

import re
from enum import Enum
from typing import Final

from fluvial.core.errors import ErrorCode, RefusedRequest

_TOKEN: Final = re.compile(r"0{16}_[0-9]{16}")


class Sentinel(Enum):
    """The two places that have a reserved spelling instead of a token."""

    BEGINNING = "-1"
    TAIL = "now"


ReadFrom = Sentinel | int


def offset_token(position: int) -> str:
    """The token of a position, in bytes from the stream's start: sorts as text like the number."""
    return f"0000000000000000_{position:016d}"


def parse_position(token: str) -> int:
    """The position a token names; RefusedRequest when this server cannot have issued it."""
    if _TOKEN.fullmatch(token) is None:
        raise RefusedRequest(ErrorCode.MALFORMED_OFFSET, "the offset is not one that this server issues")
    return int(token[17:])


def parse_read_from(token: str) -> ReadFrom:
    """The place an `offset` query value names: `-1`, `now` or an issued token."""
    if token == Sentinel.BEGINNING.value:
        return Sentinel.BEGINNING
    if token == Sentinel.TAIL.value:
        return Sentinel.TAIL
    return parse_position(token)
