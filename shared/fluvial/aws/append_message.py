"""The append function's results in JSON. Its events and its results as values are the client's (lambda_client.py)."""

from collections.abc import Iterable
from typing import Any, Final

from fluvial.lambda_client import AppendAccepted, AppendRejected, AppendResult
from fluvial.model.errors import ErrorCode

#: A JSON object, decoded.
JsonObject = dict[str, Any]

#: Error codes that are renamed to say that they speak of a stream; the others are the protocol's in capitals.
_CODES: Final = {ErrorCode.NOT_FOUND: "STREAM_NOT_FOUND", ErrorCode.GONE: "STREAM_GONE"}


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


def _to_camel_case(header: str) -> str:
    first, *rest = header.split("-")
    return first + "".join(word.capitalize() for word in rest)
