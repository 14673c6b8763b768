"""JSON mode: a request's body is split into messages, a page is a JSON array, and no message is re-encoded (spec 9.1).

A message is stored as `message,`. So consecutive messages are a byte range, and their array is `[`, the range without
its last comma, and `]`.
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
    """What a body of `[]` means: an empty stream on PUT, an error on POST (spec 9.1.3)."""

    ALLOWED = "allowed"
    REJECTED = "rejected"


def _invalid(reason: str) -> RequestError:
    return RequestError(ErrorCode.INVALID_JSON, f"the body is not valid JSON: {reason}")


def stored_messages(body: bytes, empty_array: EmptyArray) -> bytes:
    """The body's messages in their stored form; one level of array is flattened (spec 9.1.2).

    RequestError when the body is not one JSON value in UTF-8, is nested deeper than the parser's stack, or has
    more messages than one request may have.
    """
    try:
        body.decode("utf-8")
        messages = _split(body, _MANY)
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
    if empty_array is EmptyArray.REJECTED:
        raise RequestError(ErrorCode.EMPTY_ARRAY, "an empty array appends nothing")
    return b""


def _split(body: bytes, array_decoder: _Decoder) -> Sequence[bytes | msgspec.Raw]:
    try:
        return _decode(body, array_decoder)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        # JSON's grammar allows an unpaired surrogate, which a token stream sends that cuts an emoji in two. The parser
        # does not allow it. So the parser gets a body with another escape of the same length in its place.
        masked = _SURROGATE.sub(rb"\\u0000", body)
        if masked == body:
            raise
        return _same_ranges(_decode(masked, array_decoder), masked, body)


def _decode(body: bytes, array_decoder: _Decoder) -> list[msgspec.Raw]:
    if body.lstrip(_WHITESPACE).startswith(b"["):
        return array_decoder.decode(body)
    return [_ONE.decode(body)]


def _same_ranges(messages: list[msgspec.Raw], masked: bytes, body: bytes) -> list[bytes]:
    """The bytes of `body` at the positions of the messages in `masked`."""
    found, end = [], 0
    for message in messages:
        text = bytes(message)
        start = masked.index(text, end)
        end = start + len(text)
        found.append(body[start:end])
    return found


def split_array(array: bytes) -> list[bytes]:
    """The messages of a page, as they were written. ValueError when it is not a JSON array."""
    return [bytes(message) for message in _split(array, _STORED)] if array.lstrip(_WHITESPACE) else []


def check_message(text: bytes) -> None:
    """Raise RequestError when a text is not exactly one JSON value in UTF-8."""
    try:
        text.decode("utf-8")
        _ONE.decode(_SURROGATE.sub(rb"\\u0000", text))
    except UnicodeDecodeError as exc:
        raise _invalid("it is not UTF-8") from exc
    except RecursionError as exc:
        raise _invalid("it nests too deeply") from exc
    except msgspec.DecodeError as exc:
        raise _invalid(str(exc).removeprefix("JSON is malformed: ")) from exc


def array_parts(stored: bytes) -> tuple[bytes | memoryview, ...]:
    """The JSON array of a stored range that begins and ends between messages, in parts, without a copy."""
    return (b"[", memoryview(stored)[:-1], b"]") if stored else (b"[]",)


def as_array(stored: bytes) -> bytes:
    """The JSON array of a stored range that begins and ends between messages."""
    return b"".join(array_parts(stored))


def message_ends(stored: bytes) -> list[int]:
    """The end of each message of a stored range, in bytes from the range's start."""
    ends, end = [], 0
    for message in _split(as_array(stored), _STORED):
        end += len(bytes(message)) + 1
        ends.append(end)
    return ends
