"""JSON mode: a body becomes messages, a page becomes an array, and no byte of a message is re-encoded.

A message is stored as `message,`; so a run of messages is a byte range, and an array is `[` + range - `,` + `]`.
"""

from enum import Enum
from typing import Final

import msgspec

from fluvial.core.errors import ErrorCode, RefusedRequest

_ONE: Final = msgspec.json.Decoder(msgspec.Raw)
_MANY: Final = msgspec.json.Decoder(list[msgspec.Raw])
_WHITESPACE: Final = b" \t\n\r"


class EmptyArray(Enum):
    """What `[]` means: nothing to begin with on PUT, a mistake on POST (spec 9.1.3)."""

    ALLOWED = "allowed"
    REFUSED = "refused"


def _invalid(reason: str) -> RefusedRequest:
    return RefusedRequest(ErrorCode.INVALID_JSON, f"the body is not valid JSON: {reason}")


def stored_messages(body: bytes, empty_array: EmptyArray) -> bytes:
    """The body's messages as they are stored: one level of array flattened, each followed by a comma.

    RefusedRequest when the body is not one JSON value in UTF-8, or nests deeper than the parser's stack.
    """
    try:
        body.decode("utf-8")
        if body.lstrip(_WHITESPACE).startswith(b"["):
            messages: list[msgspec.Raw] = _MANY.decode(body)
        else:
            messages = [_ONE.decode(body)]
    except UnicodeDecodeError as exc:
        raise _invalid("it is not UTF-8") from exc
    except RecursionError as exc:
        raise _invalid("it nests too deeply") from exc
    except msgspec.DecodeError as exc:
        raise _invalid(str(exc).removeprefix("JSON is malformed: ")) from exc
    if messages:
        return b",".join([*messages, b""])
    if empty_array is EmptyArray.REFUSED:
        raise RefusedRequest(ErrorCode.EMPTY_ARRAY, "an empty array appends nothing")
    return b""


def as_array(stored: bytes) -> bytes:
    """The JSON array of a stored range that begins and ends between messages."""
    return b"".join((b"[", memoryview(stored)[:-1], b"]")) if stored else b"[]"


def message_ends(stored: bytes) -> list[int]:
    """Where each message of a stored range ends, in bytes from the range's start."""
    ends, end = [], 0
    for message in _MANY.decode(as_array(stored)):
        end += len(bytes(message)) + 1
        ends.append(end)
    return ends
