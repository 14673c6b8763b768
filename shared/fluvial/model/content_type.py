"""Content types: stored as the creator spelt them, compared without case and parameters (spec 9)."""

import re
from functools import lru_cache
from typing import Final

from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.limits import CONTENT_TYPE_BYTES_MAX

DEFAULT_CONTENT_TYPE: Final = "application/octet-stream"
JSON_MEDIA_TYPE: Final = "application/json"

_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"  # noqa: S105  RFC 9110's `token`, not a secret
_MEDIA_TYPE: Final = re.compile(rf"{_TOKEN}/{_TOKEN}")
#: Possessive quantifiers throughout: a header that nearly matches must not cost a backtrack over every combination.
_PARAMETERS: Final = re.compile(rf'(?:[ \t]*+;[ \t]*+(?:{_TOKEN}=(?:{_TOKEN}|"[^"\\\x00-\x1f\x7f]*+"))?+)*+[ \t]*+')


@lru_cache(maxsize=1_024)
def media_type(content_type: str) -> str:
    """`type/subtype` in lower case, e.g. `application/json` of `Application/JSON; charset=utf-8`."""
    return content_type.partition(";")[0].strip().lower()


@lru_cache(maxsize=1_024)
def parse_content_type(value: str) -> str | None:
    """The header's value, stripped; None when it is blank. RequestError when it is not a media type."""
    value = value.strip(" \t")
    if not value:
        return None
    if len(value) > CONTENT_TYPE_BYTES_MAX:
        raise RequestError(ErrorCode.MALFORMED_HEADER, f"Content-Type is over {CONTENT_TYPE_BYTES_MAX} bytes long")
    found = _MEDIA_TYPE.match(value)
    if found is None or _PARAMETERS.fullmatch(value, found.end()) is None:
        raise RequestError(ErrorCode.MALFORMED_HEADER, "Content-Type is not a media type")
    return value


@lru_cache(maxsize=1_024)
def is_json(content_type: str) -> bool:
    """Whether the stream is in JSON mode (spec 9.1)."""
    return media_type(content_type) == JSON_MEDIA_TYPE


@lru_cache(maxsize=1_024)
def is_text(content_type: str) -> bool:
    """Whether SSE carries the stream's bytes as UTF-8 text rather than base64 (spec 5.8)."""
    return media_type(content_type).startswith("text/") or is_json(content_type)
