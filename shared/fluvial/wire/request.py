"""Requests: header fields, query and body become a command or a read, or are refused. Any transport calls this."""

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
from fluvial.model.offset import Place, ReadFrom, Sentinel, parse_offset, parse_read_from
from fluvial.wire.cursor import parse_cursor
from fluvial.wire.sse import END_SUFFIX

#: Header fields by lower-case name, as they came.
Headers = Mapping[bytes, bytes]

_INTEGER: Final = re.compile(rb"0|[1-9][0-9]{0,15}")

#: Fields that change what a request means; sent twice, nobody can tell which one was meant.
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
    """The fields by name, lists as one. RequestError when a field that must be unique is not."""
    headers = dict(fields)
    if len(headers) == len(fields):
        return headers
    values = dict[bytes, list[bytes]]()  # in one pass: there may be ten thousand fields of a few bytes
    for name, value in fields:
        values.setdefault(name, []).append(value)
    for name, lines in values.items():
        if len(lines) == 1:
            continue
        if name in SINGULAR_FIELDS:
            raise RequestError(ErrorCode.MALFORMED_HEADER, f"{name.decode()} was sent more than once")
        # A list may come in several lines, which are one value in their order (RFC 9110, section 5.3).
        headers[name] = b", ".join(lines)
    return headers


def _text(headers: Headers, name: bytes) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")


def _integer(headers: Headers, name: bytes) -> int:
    value = headers[name]
    if _INTEGER.fullmatch(value) is None or int(value) > SAFE_INTEGER_MAX:
        raise RequestError(
            ErrorCode.MALFORMED_HEADER,
            f"{name.decode()} must be a whole number up to {SAFE_INTEGER_MAX}",
        )
    return int(value)


def _closes(headers: Headers) -> bool:
    # "Servers MUST treat the header as present only when its value is exactly `true` (case-insensitive
    # comparison)." -- spec 4.1. So a stray "1" is neither a close nor an error.
    return headers.get(b"stream-closed", b"").lower() == b"true"


def _producer(headers: Headers) -> ProducerStamp | None:
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
    return producer_stamp(producer_id, _integer(headers, b"producer-epoch"), _integer(headers, b"producer-seq"))


def producer_stamp(producer_id: str, epoch: int, seq: int) -> ProducerStamp:
    """One batch of a producer. RequestError for an id that is empty or too long, and for numbers out of range."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """What a POST asks for, whichever way it came: bytes with their content type, a close, or both."""

    name: StreamName
    body: bytes
    content_type: str | None
    closes: bool
    stream_seq: str | None
    producer: ProducerStamp | None
    preconditions: Preconditions = UNCONDITIONAL


def write_command(write: Write) -> Append | Close:
    """Data, data and a close, or a close alone (spec 5.2, 5.3). RequestError for what is none of them."""
    stream_seq = write.stream_seq
    if stream_seq is not None and not 0 < len(stream_seq) <= STREAM_SEQ_BYTES_MAX:
        raise RequestError(ErrorCode.MALFORMED_HEADER, f"Stream-Seq must be 1 to {STREAM_SEQ_BYTES_MAX} bytes long")
    if not write.body:
        if not write.closes:
            raise RequestError(ErrorCode.EMPTY_BODY, "an append needs a body, or Stream-Closed: true")
        return Close(name=write.name, stream_seq=stream_seq, producer=write.producer, preconditions=write.preconditions)
    content_type = parse_content_type(write.content_type or "")
    if content_type is None:
        raise RequestError(ErrorCode.MISSING_CONTENT_TYPE, "an append with a body needs a Content-Type")
    return Append(
        name=write.name,
        content_type=content_type,
        data=stored_messages(write.body, EmptyArray.REFUSED) if is_json(content_type) else write.body,
        closes=write.closes,
        stream_seq=stream_seq,
        producer=write.producer,
        preconditions=write.preconditions,
    )


def parse_append(name: StreamName, headers: Headers, body: bytes) -> Append | Close:
    """A POST: its headers and body."""
    return write_command(
        Write(
            name=name,
            body=body,
            content_type=_text(headers, b"content-type"),
            closes=_closes(headers),
            stream_seq=_text(headers, b"stream-seq"),
            producer=_producer(headers),
            preconditions=_write_preconditions(headers),
        )
    )


def parse_delete(name: StreamName, headers: Headers) -> Delete:
    """A DELETE."""
    return Delete(name, _write_preconditions(headers))


def parse_preconditions(headers: Headers) -> Preconditions:
    """If-Match and If-None-Match of any request. RequestError when they are malformed."""
    if_match, if_none_match = headers.get(b"if-match"), headers.get(b"if-none-match")
    if if_match is None and if_none_match is None:
        return UNCONDITIONAL
    return Preconditions(
        None if if_match is None else parse_entity_tags("If-Match", if_match),
        None if if_none_match is None else parse_entity_tags("If-None-Match", if_none_match),
    )


def _write_preconditions(headers: Headers) -> Preconditions:
    """Those of a request that changes something. RequestError also when they name too many states."""
    preconditions = parse_preconditions(headers)
    for tags in (preconditions.if_match, preconditions.if_none_match):
        if isinstance(tags, TagList) and len(states_of(tags.all)) > STREAM_STATES_MAX:
            raise RequestError(
                ErrorCode.MALFORMED_HEADER, f"a write may name up to {STREAM_STATES_MAX} entity tags of its stream"
            )
    return preconditions


def parse_create(name: StreamName, headers: Headers, body: bytes, *, is_public: bool, root_path: str = "") -> Create:
    """A PUT: a new stream, or a fork of another (spec 4.2, 5.1), whose path may begin with `root_path`."""
    return Create(
        name=name,
        content_type=parse_content_type(_text(headers, b"content-type") or ""),
        body=body,
        lifetime=_lifetime(headers),
        closed=_closes(headers),
        fork=_fork(headers, root_path),
        is_public=is_public,
        preconditions=_write_preconditions(headers),
    )


def _lifetime(headers: Headers) -> Lifetime:
    ttl, expires_at = _text(headers, b"stream-ttl"), _text(headers, b"stream-expires-at")
    if ttl is not None and expires_at is not None:
        raise RequestError(ErrorCode.MALFORMED_HEADER, "Stream-TTL and Stream-Expires-At exclude each other")
    if ttl is not None:
        return parse_ttl(ttl)
    return None if expires_at is None else parse_expires_at(expires_at)


def _fork(headers: Headers, root_path: str) -> ForkPoint | None:
    source = _text(headers, b"stream-forked-from")
    fork_offset = _text(headers, b"stream-fork-offset")
    has_sub_offset = b"stream-fork-sub-offset" in headers
    if source is None:
        if fork_offset is not None or has_sub_offset:
            raise RequestError(ErrorCode.MALFORMED_HEADER, "a fork offset needs Stream-Forked-From")
        return None
    return ForkPoint(
        source=parse_source_path(source, root_path),
        fork_offset=None if fork_offset is None else _fork_offset(fork_offset),
        sub_offset=_integer(headers, b"stream-fork-sub-offset") if has_sub_offset else 0,
    )


def _fork_offset(token: str) -> Place:
    return Sentinel.BEGINNING if token == Sentinel.BEGINNING.value else parse_offset(token)


class LiveMode(Enum):
    """How a read goes on at the tail."""

    NONE = "catch-up"
    LONG_POLL = "long-poll"
    SSE = "sse"
    WEBSOCKET = "websocket"


@dataclass(frozen=True, slots=True)
class Read:
    """A GET's query: where to begin, whether to wait, and the cursor that the client echoes.

    `reader_key` is what the URL has of one; `is_plain` tells that a cache finds every parameter as it is found here;
    `has_seen_end` that a browser has come back that has had the last event of a closed stream.
    """

    read_from: ReadFrom
    live: LiveMode
    cursor: int | None
    reader_key: str | None
    is_cache_safe: bool
    has_seen_end: bool = False
    preconditions: Preconditions = UNCONDITIONAL

    @property
    def of_stream(self) -> Preconditions:
        """What must be true of the stream when the read begins, where the answer is no page that is known then."""
        has_page = self.live is LiveMode.NONE and self.read_from is not Sentinel.TAIL
        return UNCONDITIONAL if has_page else self.preconditions

    @property
    def of_page(self) -> Preconditions:
        """What must be true of the page that is answered."""
        is_live = self.live is not LiveMode.NONE
        return replace(self.preconditions, if_match=None) if is_live else self.preconditions


#: The parameters that make a read's answer what it is: a cache's key has these, and the path.
CACHE_KEY: Final = ("offset", "live", "cursor", "rk")
_UPGRADE: Final = (("upgrade", "websocket"), ("connection", "Upgrade"))
_TOKEN: Final = "token"  # noqa: S105  a parameter's name

_LIVE: Final = {live.value: live for live in LiveMode if live is not LiveMode.NONE}


@lru_cache(maxsize=4_096)
def parse_read(query: bytes) -> Read:
    """A GET's query string (spec 5.6 to 5.8); parameters that the protocol does not know are ignored."""
    values = _values(query)
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
        read_from = Sentinel.BEGINNING
    else:
        raise RequestError(ErrorCode.MISSING_OFFSET, "a live read needs an offset")
    cursor = parse_cursor(values.get("cursor", [""])[0])
    return Read(read_from, live, cursor, values["rk"][0] if "rk" in values else None, _is_plain(query))


def parse_response_read(query: bytes, headers: Headers) -> Read:
    """The query of a read that is answered by HTTP.

    A browser's EventSource comes back with the URL that it began with, and with the last event's id: an offset, from
    which it goes on (HTML, 9.2.4).
    """
    read, preconditions = parse_read(query), parse_preconditions(headers)
    if preconditions != UNCONDITIONAL:
        read = replace(read, preconditions=preconditions)
    last_event_id = _text(headers, b"last-event-id")
    if last_event_id and read.live is LiveMode.SSE:
        offset = parse_offset(last_event_id.removesuffix(END_SUFFIX))
        return replace(read, read_from=offset, has_seen_end=last_event_id.endswith(END_SUFFIX))
    if read.live is LiveMode.WEBSOCKET:
        message = "live=websocket needs a WebSocket handshake; long-poll and sse do without"
        raise RequestError(ErrorCode.UPGRADE_REQUIRED, message, 426, _UPGRADE)
    return read


def parse_socket_read(query: bytes) -> Read:
    """The query of a handshake."""
    read = parse_read(query)
    if read.live is not LiveMode.WEBSOCKET:
        raise RequestError(ErrorCode.MALFORMED_QUERY, "a WebSocket reads with live=websocket")
    return read


def _values(query: bytes) -> dict[str, list[str]]:
    if len(query) > QUERY_BYTES_MAX:
        raise RequestError(ErrorCode.PATH_TOO_LONG, f"the query is over {QUERY_BYTES_MAX} bytes long", 414)
    return parse_qs(query.decode("latin-1"), keep_blank_values=True)


def _is_plain(query: bytes) -> bool:
    """Whether no parameter is spelt such that a cache might take it for another one, or for one that is not there.

    Some caches find `OFFSET` where `offset` is asked for, and none decodes `%6fffset`.
    """
    for part in query.split(b"&"):
        name = part.partition(b"=")[0].decode("latin-1")
        if name not in CACHE_KEY and unquote_plus(name).lower() in CACHE_KEY:
            return False
    return True


def split_token(query: bytes) -> tuple[bytes, str | None]:
    """A query without its token, and the token. RequestError when there are two."""
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
    """Whether a PUT's query makes the stream public. RequestError for anything but `public=true` and `=false`."""
    values = _values(query).get("public", ["false"])
    if values not in (["true"], ["false"]):
        raise RequestError(ErrorCode.MALFORMED_QUERY, "public must be true or false, once")
    return values == ["true"]
