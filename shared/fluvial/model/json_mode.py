"""JSON mode: a body becomes messages, a page becomes an array, and no byte of a message is re-encoded.

A message is stored as `message,`; so a run of messages is a byte range, and an array is `[` + range - `,` + `]`.
"""

import re
from collections.abc import Sequence
from enum import Enum
from typing import Annotated, Final

import msgspec

from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.limits import MESSAGES_PER_REQUEST_MAX

_ONE: Final = msgspec.json.Decoder(msgspec.Raw)
_STORED: Final = msgspec.json.Decoder(list[msgspec.Raw])
_MANY: Final = msgspec.json.Decoder(Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MESSAGES_PER_REQUEST_MAX)])
_Decoder = msgspec.json.Decoder[list[msgspec.Raw]]
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_WHITESPACE: Final = b" \t\n\r"


class EmptyArray(Enum):
    """What `[]` means: nothing to begin with on PUT, a mistake on POST (spec 9.1.3)."""

    ALLOWED = "allowed"
    REFUSED = "refused"


def _invalid(reason: str) -> RequestError:
    return RequestError(ErrorCode.INVALID_JSON, f"the body is not valid JSON: {reason}")


def stored_messages(body: bytes, empty_array: EmptyArray) -> bytes:
    """The body's messages as they are stored: one level of array flattened, each followed by a comma.

    RequestError when the body is not one JSON value in UTF-8, nests deeper than the parser's stack, or has
    more messages than one request may have.
    """
    try:
        body.decode("utf-8")
        messages = _messages(body, _MANY)
    except UnicodeDecodeError as exc:
        raise _invalid("it is not UTF-8") from exc
    except RecursionError as exc:
        raise _invalid("it nests too deeply") from exc
    except msgspec.ValidationError as exc:
        message = f"one request may have up to {MESSAGES_PER_REQUEST_MAX} messages"
        raise RequestError(ErrorCode.BODY_TOO_LARGE, message, 413) from exc
    except msgspec.DecodeError as exc:
        raise _invalid(str(exc).removeprefix("JSON is malformed: ")) from exc
    if messages:
        return b",".join([*messages, b""])
    if empty_array is EmptyArray.REFUSED:
        raise RequestError(ErrorCode.EMPTY_ARRAY, "an empty array appends nothing")
    return b""


def _messages(body: bytes, many: _Decoder) -> Sequence[bytes | msgspec.Raw]:
    try:
        return _decoded(body, many)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        # JSON's grammar allows half of a surrogate pair, and a token stream that cuts an emoji in two sends it;
        # the parser does not, so it is shown something harmless of the same length.
        masked = _SURROGATE.sub(rb"\\u0000", body)
        if masked == body:
            raise
        return _same_ranges(_decoded(masked, many), masked, body)


def _decoded(body: bytes, many: _Decoder) -> list[msgspec.Raw]:
    if body.lstrip(_WHITESPACE).startswith(b"["):
        return many.decode(body)
    return [_ONE.decode(body)]


def _same_ranges(messages: list[msgspec.Raw], masked: bytes, body: bytes) -> list[bytes]:
    """The bytes of `body` where the messages are in `masked`."""
    found, end = [], 0
    for message in messages:
        text = bytes(message)
        start = masked.index(text, end)
        end = start + len(text)
        found.append(body[start:end])
    return found


def array_parts(stored: bytes) -> tuple[bytes | memoryview, ...]:
    """The JSON array of a stored range that begins and ends between messages, in parts that copy nothing."""
    return (b"[", memoryview(stored)[:-1], b"]") if stored else (b"[]",)


def as_array(stored: bytes) -> bytes:
    """The JSON array of a stored range that begins and ends between messages."""
    return b"".join(array_parts(stored))


def message_ends(stored: bytes) -> list[int]:
    """Where each message of a stored range ends, in bytes from the range's start."""
    ends, end = [], 0
    for message in _messages(as_array(stored), _STORED):
        end += len(bytes(message)) + 1
        ends.append(end)
    return ends
