"""The messages of the append function: the event that asks for one append, and the result that answers it.

The append function and its client share them, so that each field is spelt once. The client is imported by users'
functions: this module needs msgspec and no other package.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from fluvial.model.errors import ErrorCode

#: A JSON object, decoded.
JsonObject = dict[str, Any]

#: Error codes that are renamed to say that they speak of a stream; the others are the protocol's in capitals.
_CODES: Final = {ErrorCode.NOT_FOUND: "STREAM_NOT_FOUND", ErrorCode.GONE: "STREAM_GONE"}


class AppendProducer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An idempotent producer's stamp (spec 5.2.1)."""

    id: str
    epoch: int
    seq: int


class AppendEvent(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True
):
    """One append, as a function's event.

    `stream` is the path below /v1/stream/, `{project}/{stream}` once there are projects. The body is `payload` or the
    bytes in `payload_base64`; a payload that is text is the body as it is, any other is JSON. Without a body, `close`
    must be true. Of several events with the same `idempotency_key`, a stream takes one in 15 days.
    """

    stream: str
    close: bool = msgspec.field(default_factory=bool)  # a factory's value is encoded, though defaults are omitted
    payload: Any = None
    payload_base64: str | None = None
    producer: AppendProducer | None = None
    content_type: str | None = None
    stream_seq: str | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class AppendAccepted:
    """The payload is in the stream; `is_duplicate` when an earlier attempt had appended it."""

    tail_offset: str
    closed: bool = False
    is_duplicate: bool = False


@dataclass(frozen=True, slots=True)
class AppendRejected:
    """Nothing was changed, and the same call would be rejected again, e.g. with the code STREAM_CLOSED."""

    code: str
    message: str
    details: dict[str, str] = field(default_factory=dict)


AppendResult = AppendAccepted | AppendRejected


def build_rejection(code: ErrorCode, message: str, fields: Iterable[tuple[str, str]] = ()) -> AppendRejected:
    """A rejection in the append function's words; `fields` have the names of HTTP headers."""
    details = {_to_camel_case(name): value for name, value in fields}
    return AppendRejected(_CODES.get(code, code.value.upper()), message, details)


def encode_result(result: AppendResult) -> JsonObject:
    """`{"tailOffset", "closed", "duplicate"?}`, or `{"error": {"code", "message", …}}` with the details."""
    match result:
        case AppendAccepted(tail_offset, closed, is_duplicate):
            accepted = {"tailOffset": tail_offset, "closed": closed}
            return {**accepted, "duplicate": True} if is_duplicate else accepted
        case AppendRejected(code, message, details):
            return {"error": {"code": code, "message": message, **details}}


def decode_result(result: JsonObject) -> AppendResult:
    """The inverse of `encode_result`."""
    if "error" in result:
        details = dict(result["error"])
        return AppendRejected(details.pop("code"), details.pop("message"), details)
    return AppendAccepted(result["tailOffset"], result["closed"], result.get("duplicate", False) is True)


def _to_camel_case(header: str) -> str:
    first, *rest = header.split("-")
    return first + "".join(word.capitalize() for word in rest)
