"""Stream names: the path of a stream's URL in one canonical spelling."""

import re
from functools import lru_cache
from typing import Final, NewType
from urllib.parse import quote, unquote_to_bytes

from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.limits import STREAM_NAME_BYTES_MAX

#: The canonical percent-encoded path below the root, without a leading slash: `chat/room%201`.
StreamName = NewType("StreamName", str)

#: Sorts after every character that a name may have.
HIGHEST: Final = "\x7f"

STREAM_ROOT: Final = "/v1/stream/"
RESERVED_SEGMENT: Final = "__ds"

#: RFC 3986's unreserved characters and sub-delimiters, `:` and `@`: what a path segment may hold bare.
_SEGMENT_SAFE: Final = "-._~!$&'()*+,;=:@"
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def _malformed(reason: str) -> RequestError:
    return RequestError(ErrorCode.MALFORMED_NAME, f"the stream's path {reason}")


def _canonical_segment(segment: str) -> str:
    try:
        text = unquote_to_bytes(segment).decode("utf-8")
    except UnicodeError as exc:
        raise _malformed("is not valid UTF-8") from exc
    if text == "":
        raise _malformed("has an empty segment")
    if text in {".", ".."} or {".", ".."} & set(re.split(r"[/\\]", text)):
        raise _malformed("has a dot segment")
    if _CONTROL.search(text):
        raise _malformed("has a control character")
    return quote(text, safe=_SEGMENT_SAFE)


@lru_cache(maxsize=4_096)
def parse_name(path: str) -> StreamName:
    """Parse a percent-encoded path below the root, e.g. `a%2Fb` (one segment) or `a/b`.

    All spellings of a path give the same name. RequestError for an empty, dot or reserved segment, a bad
    escape, a control character, invalid UTF-8 and a name over STREAM_NAME_BYTES_MAX.
    """
    if path == "":
        raise RequestError(ErrorCode.NOT_FOUND, "a stream's path is missing below /v1/stream/", 404)
    if _BAD_ESCAPE.search(path):
        raise _malformed("has a bad percent escape")
    segments = [_canonical_segment(segment) for segment in path.split("/")]
    # "Application stream paths whose first stream-root-relative segment is `__ds` are reserved for
    # Durable Streams control APIs." -- spec 6
    if segments[0] == RESERVED_SEGMENT:
        raise RequestError(ErrorCode.RESERVED_PATH, "paths below __ds are reserved, and no stream is there", 404)
    name = "/".join(segments)
    if len(name) > STREAM_NAME_BYTES_MAX:
        raise RequestError(
            ErrorCode.PATH_TOO_LONG,
            f"the stream's path is over {STREAM_NAME_BYTES_MAX} bytes long",
            414,
        )
    return StreamName(name)


def parse_prefix(text: str) -> str:
    """The beginning that names share in their canonical spelling; `text` may have escapes, and may end within one."""
    whole = re.sub(r"%[0-9A-Fa-f]?\Z", "", text)
    return "/".join(quote(unquote_to_bytes(segment), safe=_SEGMENT_SAFE) for segment in whole.split("/"))


def parse_source_path(path: str, root_path: str = "") -> StreamName:
    """Parse a `Stream-Forked-From` header: a URL path on this server (spec 4.2).

    `root_path` is the part of the URL's path that a gateway in front has removed, e.g. a stage. The header may have it
    or leave it out.
    """
    if path.startswith(root_path + STREAM_ROOT):
        path = path.removeprefix(root_path)
    if not path.startswith(STREAM_ROOT):
        raise RequestError(
            ErrorCode.MALFORMED_HEADER,
            f"Stream-Forked-From must be a path on this server, below {STREAM_ROOT}",
        )
    return parse_name(path.removeprefix(STREAM_ROOT))
