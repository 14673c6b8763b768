"""What can be done with a stream, one request each (PROTOCOL.md, section 5)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from fluvial.client.connection import Answer, Connection
from fluvial.client.errors import ServerRefused, UnexpectedAnswer
from fluvial.model.content_type import is_json
from fluvial.model.json_mode import split_array

BEGINNING: Final = "-1"

_UNAUTHENTICATED: Final = 401

#: What a refusal means whose body is not sent.
_HEAD_MESSAGES: Final = {
    _UNAUTHENTICATED: ("unauthenticated", "the server wants a valid token"),
    403: ("forbidden", "the token does not give access to {name}"),
    404: ("not_found", "there is no stream {name}"),
    410: ("gone", "the stream {name} was deleted"),
}

#: The streams of one answer to a listing.
_STREAMS_PER_PAGE: Final = 1_000


@dataclass(frozen=True, slots=True)
class StreamState:
    """What HEAD tells of a stream."""

    content_type: str
    offset: str
    closed: bool
    ttl_seconds: int | None = None
    expires_at: str | None = None
    etag: str | None = None

    @property
    def is_json(self) -> bool:
        """Whether the stream has JSON messages."""
        return is_json(self.content_type)

    @property
    def is_text(self) -> bool:
        """Whether the stream is text with lines."""
        return self.content_type.lower().startswith("text/")


@dataclass(frozen=True, slots=True)
class Stamp:
    """An idempotent producer's id, epoch and sequence number."""

    producer_id: str
    epoch: int
    seq: int


@dataclass(frozen=True, slots=True)
class Appended:
    """An append that the stream has. `is_new` is False if an earlier request of the producer has made it.

    `offset` is the one after it; None when the server does not tell it of a repeat.
    """

    offset: str | None
    closed: bool
    is_new: bool


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a stream: its bytes, and the offset after it."""

    body: bytes
    next_offset: str
    at_tail: bool
    closed: bool
    cursor: str | None


@dataclass(frozen=True, slots=True)
class ForkPoint:
    """Where a fork leaves its source: its tail without an offset."""

    source: str
    offset: str | None = None
    sub_offset: int | None = None


@dataclass(frozen=True, slots=True)
class NewStream:
    """The configuration of a stream to create."""

    content_type: str | None = None
    ttl_seconds: int | None = None
    expires_at: str | None = None
    closed: bool = False
    public: bool = False
    fork: ForkPoint | None = None


def head(connection: Connection, name: str) -> StreamState:
    """What HEAD tells of a stream."""
    try:
        return _state(connection.request_stream("HEAD", name))
    except ServerRefused as exc:
        message = _HEAD_MESSAGES.get(exc.status)  # an answer to HEAD has no body
        if message is None or exc.code:
            raise
        if exc.status == _UNAUTHENTICATED:
            read_page(connection, name, "now")  # raises with the reason, which the body of its answer has
        code, text = message
        raise ServerRefused(exc.status, code, text.format(name=name), exc.fields) from exc


def create(connection: Connection, name: str, new: NewStream, body: bytes = b"") -> tuple[bool, StreamState]:
    """Create a stream, or find it there with the same configuration. Whether it is new, and its state."""
    optional = {
        "content-type": new.content_type,
        "stream-ttl": None if new.ttl_seconds is None else str(new.ttl_seconds),
        "stream-expires-at": new.expires_at,
        "stream-closed": "true" if new.closed else None,
    }
    if new.fork is not None:
        sub_offset = new.fork.sub_offset
        optional["stream-forked-from"] = f"/v1/stream/{new.fork.source}"
        optional["stream-fork-offset"] = new.fork.offset
        optional["stream-fork-sub-offset"] = None if sub_offset is None else str(sub_offset)
    fields = {field: value for field, value in optional.items() if value is not None}
    query = {"public": "true"} if new.public else None
    answer = connection.request_stream("PUT", name, query=query, fields=fields, body=body)
    return answer.status == 201, _state(answer)  # noqa: PLR2004  Created


def append(  # noqa: PLR0913  an append has so many parts, and each is passed by its name
    connection: Connection,
    name: str,
    body: bytes,
    *,
    content_type: str,
    stamp: Stamp | None = None,
    closes: bool = False,
    if_match: str | None = None,
) -> Appended:
    """Append a body, or close the stream, or both."""
    fields = _stamp_fields(stamp)
    if body:
        fields["content-type"] = content_type
    if closes:
        fields["stream-closed"] = "true"
    if if_match is not None:
        fields["if-match"] = if_match
    answer = connection.request_stream("POST", name, fields=fields, body=body)
    is_new = stamp is None or answer.status == 200  # noqa: PLR2004  a duplicate is answered with 204
    return Appended(answer.fields.get("stream-next-offset"), _is_true(answer, "stream-closed"), is_new)


def delete(connection: Connection, name: str) -> None:
    """Delete a stream."""
    connection.request_stream("DELETE", name)


def read_page(connection: Connection, name: str, offset: str, *, live: bool = False, cursor: str | None = None) -> Page:
    """The bytes from an offset on, as many as the server gives at once. A live read waits for bytes at the tail."""
    query = {"offset": offset}
    if live:
        query["live"] = "long-poll"
    if live and cursor is not None:
        query["cursor"] = cursor
    answer = connection.request_stream("GET", name, query=query)
    return Page(
        body=answer.body,
        next_offset=_offset(answer),
        at_tail=_is_true(answer, "stream-up-to-date"),
        closed=_is_true(answer, "stream-closed"),
        cursor=answer.fields.get("stream-cursor"),
    )


def list_streams(connection: Connection, prefix: str) -> Iterator[dict[str, Any]]:
    """The streams with a prefix, in the order of their names. From an older server, only their names.

    Raises UnexpectedAnswer from a server that cannot list streams: the protocol has no route for it.
    """
    after = ""
    while True:
        query = {"prefix": prefix, "after": after, "limit": str(_STREAMS_PER_PAGE), "details": "true"}
        try:
            answer = connection.request("GET", "/v1/streams", query=query)
            found = msgspec.json.decode(answer.body)
            streams, after = found["streams"], found["next"]
        except ServerRefused as exc:
            if exc.status in {404, 405}:
                message = f"the server at {connection.url} does not list its streams (it has no /v1/streams)"
                raise UnexpectedAnswer(message) from exc
            raise
        except (msgspec.DecodeError, KeyError, TypeError) as exc:
            message = f"the server at {connection.url} does not list its streams as Fluvial does"
            raise UnexpectedAnswer(message) from exc
        for stream in streams:
            yield stream if isinstance(stream, dict) else {"name": stream}
        if not after:
            return


def info(connection: Connection, name: str) -> dict[str, Any] | None:
    """What /v1/info tells of a stream; None from a server without this route."""
    try:
        found = msgspec.json.decode(connection.request("GET", f"/v1/info/{name}").body)
    except ServerRefused as exc:
        if exc.status in {404, 405}:
            return None
        raise
    except msgspec.DecodeError:
        return None
    return found if isinstance(found, dict) else None


def _stamp_fields(stamp: Stamp | None) -> dict[str, str]:
    if stamp is None:
        return {}
    return {"producer-id": stamp.producer_id, "producer-epoch": str(stamp.epoch), "producer-seq": str(stamp.seq)}


def _state(answer: Answer) -> StreamState:
    ttl = answer.fields.get("stream-ttl")
    return StreamState(
        content_type=answer.fields.get("content-type", "application/octet-stream"),
        offset=_offset(answer),
        closed=_is_true(answer, "stream-closed"),
        ttl_seconds=None if ttl is None else int(ttl),
        expires_at=answer.fields.get("stream-expires-at"),
        etag=answer.fields.get("etag"),
    )


def _offset(answer: Answer) -> str:
    offset = answer.fields.get("stream-next-offset")
    if offset is None:
        message = "the answer has no Stream-Next-Offset: is this the URL of a Durable Streams server?"
        raise UnexpectedAnswer(message)
    return offset


def _is_true(answer: Answer, field: str) -> bool:
    return answer.fields.get(field, "").lower() == "true"


def messages_of(body: bytes) -> list[bytes]:
    """The messages of a page of a JSON stream, as they were written. Raises UnexpectedAnswer."""
    try:
        return split_array(body)
    except ValueError as exc:
        message = f"the answer is not a JSON array: {exc}"
        raise UnexpectedAnswer(message) from exc
