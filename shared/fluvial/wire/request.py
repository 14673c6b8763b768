"""Parses requests: header fields, query and body become a command or a read query. Every transport uses this module.

A malformed request raises RequestError, whose message does not quote a body or a token.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qs, unquote_plus

from fluvial.model.command import Append, Close, Create, Delete, ForkPoint
from fluvial.model.content_type import is_json, parse_content_type
from fluvial.model.entity_tag import UNCONDITIONAL, Preconditions, TagList, parse_entity_tags, states_of
from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.head import ProducerStamp
from fluvial.model.json_mode import EmptyArray, stored_messages
from fluvial.model.lifetime import Lifetime, parse_expires_at, parse_ttl
from fluvial.model.limits import (
    PRODUCER_ID_BYTES_MAX,
    QUERY_BYTES_MAX,
    SAFE_INTEGER_MAX,
    STREAM_SEQ_BYTES_MAX,
    STREAM_STATES_MAX,
)
from fluvial.model.names import StreamName, parse_source_path
from fluvial.model.offset import ReadFrom, ReservedOffset, TokenOffset, parse_offset, parse_read_from
from fluvial.wire.cursor import parse_cursor
from fluvial.wire.sse import END_SUFFIX

#: Header fields by their names in lower case.
Headers = Mapping[bytes, bytes]

_INTEGER: Final = re.compile(rb"0|[1-9][0-9]{0,15}")

#: Fields that change the meaning of a request. One that is sent twice makes the request ambiguous.
SINGULAR_FIELDS: Final = frozenset(
    {
        b"authorization",
        b"last-event-id",
        b"content-type",
        b"stream-seq",
        b"stream-ttl",
        b"stream-expires-at",
        b"stream-closed",
        b"stream-forked-from",
        b"stream-fork-offset",
        b"stream-fork-sub-offset",
        b"producer-id",
        b"producer-epoch",
        b"producer-seq",
    }
)


def singular_headers(fields: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The fields by name; several lines of a list are joined. RequestError for a repeated field of SINGULAR_FIELDS."""
    headers = dict(fields)
    if len(headers) == len(fields):
        return headers
    values = dict[bytes, list[bytes]]()  # in one pass, because there may be ten thousand fields of a few bytes
    for name, value in fields:
        values.setdefault(name, []).append(value)
    for name, lines in values.items():
        if len(lines) == 1:
            continue
        if name in SINGULAR_FIELDS:
            raise RequestError(ErrorCode.MALFORMED_HEADER, f"{name.decode()} was sent more than once")
        # Several lines of a list are one value, in their order (RFC 9110, section 5.3).
        headers[name] = b", ".join(lines)
    return headers


def _text_field(headers: Headers, name: bytes) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")


def _integer_field(headers: Headers, name: bytes) -> int:
    value = headers[name]
    if _INTEGER.fullmatch(value) is None or int(value) > SAFE_INTEGER_MAX:
        raise RequestError(
            ErrorCode.MALFORMED_HEADER,
            f"{name.decode()} must be a whole number up to {SAFE_INTEGER_MAX}",
        )
    return int(value)


def _is_closing(headers: Headers) -> bool:
    # "Servers MUST treat the header as present only when its value is exactly `true` (case-insensitive
    # comparison)." -- spec 4.1. So a stray "1" is neither a close nor an error.
    return headers.get(b"stream-closed", b"").lower() == b"true"


def _parse_producer(headers: Headers) -> ProducerStamp | None:
    # "All three producer headers MUST be provided together or none at all." -- spec 5.2.1
    present = [name for name in (b"producer-id", b"producer-epoch", b"producer-seq") if name in headers]
    if not present:
        return None
    if len(present) < 3:  # noqa: PLR2004  the three names above
        raise RequestError(
            ErrorCode.MALFORMED_HEADER,
            "Producer-Id, Producer-Epoch and Producer-Seq must be sent together",
        )
    producer_id = headers[b"producer-id"].decode("latin-1")
    epoch, seq = _integer_field(headers, b"producer-epoch"), _integer_field(headers, b"producer-seq")
    return producer_stamp(producer_id, epoch, seq)


def producer_stamp(producer_id: str, epoch: int, seq: int) -> ProducerStamp:
    """A valid producer stamp. RequestError for an id that is empty or too long, and for numbers out of range."""
    if not producer_id or len(producer_id) > PRODUCER_ID_BYTES_MAX:
        raise RequestError(
            ErrorCode.MALFORMED_HEADER,
            f"Producer-Id must be 1 to {PRODUCER_ID_BYTES_MAX} bytes long",
        )
    if not (0 <= epoch <= SAFE_INTEGER_MAX and 0 <= seq <= SAFE_INTEGER_MAX):
        raise RequestError(
            ErrorCode.MALFORMED_HEADER, f"Producer-Epoch and Producer-Seq are whole numbers up to {SAFE_INTEGER_MAX}"
        )
    return ProducerStamp(producer_id, epoch, seq)


def write_command(  # noqa: PLR0913  an append has so many parts, and each is passed by its name
    name: StreamName,
    body: bytes,
    *,
    content_type: str | None,
    closes: bool,
    stream_seq: str | None,
    producer: ProducerStamp | None,
    preconditions: Preconditions = UNCONDITIONAL,
) -> Append | Close:
    """An append, an append that closes, or a close, for HTTP and for direct invocation (spec 5.2, 5.3).

    RequestError for a request that is none of them.
    """
    if stream_seq is not None and not 0 < len(stream_seq) <= STREAM_SEQ_BYTES_MAX:
        raise RequestError(ErrorCode.MALFORMED_HEADER, f"Stream-Seq must be 1 to {STREAM_SEQ_BYTES_MAX} bytes long")
    if not body:
        if not closes:
            raise RequestError(ErrorCode.EMPTY_BODY, "an append needs a body, or Stream-Closed: true")
        return Close(name=name, stream_seq=stream_seq, producer=producer, preconditions=preconditions)
    content_type = parse_content_type(content_type or "")
    if content_type is None:
        raise RequestError(ErrorCode.MISSING_CONTENT_TYPE, "an append with a body needs a Content-Type")
    return Append(
        name=name,
        content_type=content_type,
        data=stored_messages(body, EmptyArray.REJECTED) if is_json(content_type) else body,
        closes=closes,
        stream_seq=stream_seq,
        producer=producer,
        preconditions=preconditions,
    )


def parse_append(name: StreamName, headers: Headers, body: bytes) -> Append | Close:
    """Parse a POST."""
    return write_command(
        name,
        body,
        content_type=_text_field(headers, b"content-type"),
        closes=_is_closing(headers),
        stream_seq=_text_field(headers, b"stream-seq"),
        producer=_parse_producer(headers),
        preconditions=_parse_write_preconditions(headers),
    )


def parse_delete(name: StreamName, headers: Headers) -> Delete:
    """Parse a DELETE."""
    return Delete(name, _parse_write_preconditions(headers))


def parse_preconditions(headers: Headers) -> Preconditions:
    """Parse If-Match and If-None-Match of any request. RequestError when they are malformed."""
    if_match, if_none_match = headers.get(b"if-match"), headers.get(b"if-none-match")
    if if_match is None and if_none_match is None:
        return UNCONDITIONAL
    return Preconditions(
        None if if_match is None else parse_entity_tags("If-Match", if_match),
        None if if_none_match is None else parse_entity_tags("If-None-Match", if_none_match),
    )


def _parse_write_preconditions(headers: Headers) -> Preconditions:
    """Parse those of a write. RequestError also when they name too many states of the stream."""
    preconditions = parse_preconditions(headers)
    for tags in (preconditions.if_match, preconditions.if_none_match):
        if isinstance(tags, TagList) and len(states_of(tags.all)) > STREAM_STATES_MAX:
            raise RequestError(
                ErrorCode.MALFORMED_HEADER, f"a write may name up to {STREAM_STATES_MAX} entity tags of its stream"
            )
    return preconditions


def parse_create(name: StreamName, headers: Headers, body: bytes, *, is_public: bool, root_path: str = "") -> Create:
    """Parse a PUT: a new stream, or a fork of another one, whose path may begin with `root_path` (spec 4.2, 5.1)."""
    return Create(
        name=name,
        content_type=parse_content_type(_text_field(headers, b"content-type") or ""),
        body=body,
        lifetime=parse_lifetime(_text_field(headers, b"stream-ttl"), _text_field(headers, b"stream-expires-at")),
        closed=_is_closing(headers),
        fork=_parse_fork(headers, root_path),
        is_public=is_public,
        preconditions=_parse_write_preconditions(headers),
    )


def parse_lifetime(ttl: str | None, expires_at: str | None) -> Lifetime:
    """Parse `Stream-TTL` and `Stream-Expires-At` (spec 5.1). RequestError for both."""
    if ttl is not None and expires_at is not None:
        raise RequestError(ErrorCode.MALFORMED_HEADER, "Stream-TTL and Stream-Expires-At exclude each other")
    if ttl is not None:
        return parse_ttl(ttl)
    return None if expires_at is None else parse_expires_at(expires_at)


def _parse_fork(headers: Headers, root_path: str) -> ForkPoint | None:
    source = _text_field(headers, b"stream-forked-from")
    fork_offset = _text_field(headers, b"stream-fork-offset")
    has_sub_offset = b"stream-fork-sub-offset" in headers
    if source is None:
        if fork_offset is not None or has_sub_offset:
            raise RequestError(ErrorCode.MALFORMED_HEADER, "a fork offset needs Stream-Forked-From")
        return None
    return ForkPoint(
        source=parse_source_path(source, root_path),
        fork_offset=None if fork_offset is None else parse_fork_offset(fork_offset),
        sub_offset=_integer_field(headers, b"stream-fork-sub-offset") if has_sub_offset else 0,
    )


def parse_fork_offset(token: str) -> TokenOffset:
    """Parse `Stream-Fork-Offset`: `-1` or a token (spec 4.2)."""
    return ReservedOffset.BEGINNING if token == ReservedOffset.BEGINNING.value else parse_offset(token)


class LiveMode(Enum):
    """How a read continues at the tail."""

    NONE = "catch-up"
    LONG_POLL = "long-poll"
    SSE = "sse"
    WEBSOCKET = "websocket"


@dataclass(frozen=True, slots=True)
class ReadQuery:
    """A parsed GET: the offset to read from, the live mode, and the cursor that the client echoes.

    `reader_key` is the one in the URL. `is_cache_safe` is true when a cache cannot read the query in another way.
    `has_seen_end` is true when a browser reconnects after the last event of a closed stream.
    """

    read_from: ReadFrom
    live: LiveMode
    cursor: int | None
    reader_key: str | None
    is_cache_safe: bool
    has_seen_end: bool = False
    preconditions: Preconditions = UNCONDITIONAL

    @property
    def stream_preconditions(self) -> Preconditions:
        """Conditions on the stream's tag at the beginning of a live read, or of a read from the tail."""
        has_page = self.live is LiveMode.NONE and self.read_from is not ReservedOffset.TAIL
        return UNCONDITIONAL if has_page else self.preconditions

    @property
    def page_preconditions(self) -> Preconditions:
        """Conditions on the tag of the page in the answer."""
        is_live = self.live is not LiveMode.NONE
        return replace(self.preconditions, if_match=None) if is_live else self.preconditions


#: The parameters on which a read's answer depends. A cache's key consists of these and the path.
CACHE_KEY: Final = ("offset", "live", "cursor", "rk")
_UPGRADE: Final = (("upgrade", "websocket"), ("connection", "Upgrade"))
_TOKEN: Final = "token"  # noqa: S105  a parameter's name

_LIVE: Final = {live.value: live for live in LiveMode if live is not LiveMode.NONE}


@lru_cache(maxsize=4_096)
def parse_read(query: bytes) -> ReadQuery:
    """Parse a GET's query string (spec 5.6 to 5.8); parameters that the protocol does not know are ignored."""
    values = _parse_query(query)
    for known in CACHE_KEY:
        if len(values.get(known, ())) > 1:
            raise RequestError(ErrorCode.MALFORMED_QUERY, f"{known} was given more than once")
    live = LiveMode.NONE
    if "live" in values:
        found = _LIVE.get(values["live"][0])
        if found is None:
            raise RequestError(ErrorCode.MALFORMED_QUERY, "live must be long-poll, sse or websocket")
        live = found
    if "offset" in values:
        read_from = parse_read_from(values["offset"][0])
    elif live is LiveMode.NONE:
        read_from = ReservedOffset.BEGINNING
    else:
        raise RequestError(ErrorCode.MISSING_OFFSET, "a live read needs an offset")
    cursor = parse_cursor(values.get("cursor", [""])[0])
    return ReadQuery(read_from, live, cursor, values["rk"][0] if "rk" in values else None, _is_cache_safe(query))


def parse_http_read(query: bytes, headers: Headers) -> ReadQuery:
    """Parse a GET that is answered by HTTP.

    A browser's EventSource reconnects with its first URL and the last event's id: the offset to go on from (HTML,
    9.2.4).
    """
    read, preconditions = parse_read(query), parse_preconditions(headers)
    if preconditions != UNCONDITIONAL:
        read = replace(read, preconditions=preconditions)
    last_event_id = _text_field(headers, b"last-event-id")
    if last_event_id and read.live is LiveMode.SSE:
        offset = parse_offset(last_event_id.removesuffix(END_SUFFIX))
        return replace(read, read_from=offset, has_seen_end=last_event_id.endswith(END_SUFFIX))
    if read.live is LiveMode.WEBSOCKET:
        message = "live=websocket needs a WebSocket handshake; long-poll and sse do not"
        raise RequestError(ErrorCode.UPGRADE_REQUIRED, message, 426, _UPGRADE)
    return read


def parse_websocket_read(query: bytes) -> ReadQuery:
    """Parse the query of a handshake."""
    read = parse_read(query)
    if read.live is not LiveMode.WEBSOCKET:
        raise RequestError(ErrorCode.MALFORMED_QUERY, "a WebSocket reads with live=websocket")
    return read


def _parse_query(query: bytes) -> dict[str, list[str]]:
    if len(query) > QUERY_BYTES_MAX:
        raise RequestError(ErrorCode.PATH_TOO_LONG, f"the query is over {QUERY_BYTES_MAX} bytes long", 414)
    return parse_qs(query.decode("latin-1"), keep_blank_values=True)


def _is_cache_safe(query: bytes) -> bool:
    """Whether caches and this server find the same parameters in a query.

    Some caches take `OFFSET` for `offset`, and none decodes `%6fffset`.
    """
    for part in query.split(b"&"):
        name = part.partition(b"=")[0].decode("latin-1")
        if name not in CACHE_KEY and unquote_plus(name).lower() in CACHE_KEY:
            return False
    return True


def split_token(query: bytes) -> tuple[bytes, str | None]:
    """Take the token out of a query: the rest, and the token. RequestError when there are two."""
    if b"token" not in query and b"%" not in query:
        return query, None
    parts = query.split(b"&")
    is_token = [unquote_plus(part.partition(b"=")[0].decode("latin-1")) == _TOKEN for part in parts]
    tokens = [part for part, found in zip(parts, is_token, strict=True) if found]
    if len(tokens) > 1:
        raise RequestError(ErrorCode.MALFORMED_QUERY, "token was given more than once")
    rest = b"&".join(part for part, found in zip(parts, is_token, strict=True) if not found)
    return rest, unquote_plus(tokens[0].partition(b"=")[2].decode("latin-1")) if tokens else None


def parse_is_public(query: bytes) -> bool:
    """Whether a PUT's query makes the stream public. RequestError for values other than `true` and `false`."""
    values = _parse_query(query).get("public", ["false"])
    if values not in (["true"], ["false"]):
        raise RequestError(ErrorCode.MALFORMED_QUERY, "public must be true or false, once")
    return values == ["true"]
