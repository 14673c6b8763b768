"""Responses: outcomes and pages as status, headers and body, for any transport."""

from dataclasses import dataclass
from email.utils import formatdate
from typing import Final

import msgspec

from fluvial.model.append_result import Rejection, append_answer, not_found_or_gone, precondition_failed
from fluvial.model.command import Append, Close, Create, Delete
from fluvial.model.commit import (
    Absent,
    Applied,
    Exists,
    Expired,
    HasMediaType,
    Outcome,
    PreconditionsHold,
    SameIncarnation,
    Unmet,
)
from fluvial.model.content_type import DEFAULT_CONTENT_TYPE, is_json, media_type
from fluvial.model.entity_tag import Preconditions, etag, stream_etag
from fluvial.model.errors import ErrorCode, RequestError, StoreError
from fluvial.model.head import Head, ProducerStamp, StreamStatus, stream_status
from fluvial.model.json_mode import array_parts
from fluvial.model.lifetime import ExpiresAt, SlidingTtl, same_lifetime
from fluvial.model.limits import CURSOR_INTERVAL_MS
from fluvial.model.offset import Offset, Sentinel, born_at, offset_token
from fluvial.model.page import Page

Header = tuple[bytes, bytes]

#: On every response (spec 12.7). What pages of other origins may do is told where a request's project is known.
SECURITY_HEADERS: Final[tuple[Header, ...]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"cross-origin"),
)

#: What was appended may be a page. It gets no origin, so that its scripts reach nothing that the reader may read, and
#: it tells nobody its URL, which may have a token in it.
_AS_DATA: Final[tuple[Header, ...]] = (
    (b"content-security-policy", b"sandbox"),
    (b"referrer-policy", b"no-referrer"),
)
NO_STORE: Final[Header] = (b"cache-control", b"no-store")
CLOSED: Final[Header] = (b"stream-closed", b"true")
UP_TO_DATE: Final[Header] = (b"stream-up-to-date", b"true")
#: "Cache-Control: public, max-age=60, stale-while-revalidate=300" -- spec 10.1
CACHE_S_MAX: Final = 60
STALE_S_MAX: Final = 300
#: A long-poll's answer is kept as long as its cursor is the present one.
LONG_POLL_CACHE_S_MAX: Final = CURSOR_INTERVAL_MS // 1_000
_EMPTY: Final[Header] = (b"content-length", b"0")
_RETRY_AFTER: Final[Header] = (b"retry-after", b"1")
_JSON: Final[Header] = (b"content-type", b"application/json")


@dataclass(frozen=True, slots=True)
class Response:
    """One answer; header names are lower case."""

    status: int
    headers: list[Header]
    parts: tuple[bytes | memoryview, ...] = ()

    @property
    def body(self) -> bytes:
        """The parts of the body as one."""
        return b"".join(self.parts)


@dataclass(frozen=True, slots=True)
class PageRead:
    """What a read found: a page of a stream; a cursor if the read is live, and what the client knows of the page.

    `is_shared` when everybody may read the stream, `is_keyed` when the URL has the stream's reader key.
    """

    head: Head
    page: Page
    cursor: int | None
    preconditions: Preconditions
    is_shared: bool
    is_keyed: bool


def next_offset_header(head: Head, position: int) -> Header:
    """`Stream-Next-Offset`."""
    return (b"stream-next-offset", offset_token(head, position).encode())


def error_response(status: int, code: ErrorCode, message: str, *headers: Header) -> Response:
    """An error body, `{"error": {"code", "message"}}`; never cached."""
    body = msgspec.json.encode({"error": {"code": code.value, "message": message}})
    length = (b"content-length", b"%d" % len(body))
    return Response(status, [*SECURITY_HEADERS, *headers, _JSON, length, NO_STORE], (body,))


def request_error_response(refused: RequestError) -> Response:
    """The answer to a request that is wrong in itself."""
    fields = ((name.encode(), value.encode()) for name, value in refused.fields)
    return error_response(refused.status, refused.code, refused.message, *_retry_fields(refused.status), *fields)


def store_error_response(error: StoreError) -> Response:
    """The answer when the store could not do its part; its cause stays in the log."""
    return error_response(error.status_hint, error.code, error.public_message, *_retry_fields(error.status_hint))


def internal_error_response() -> Response:
    """The answer when something is wrong with the server itself; what it is stays in the log."""
    return error_response(500, ErrorCode.INTERNAL, "the server failed to answer this request")


def _retry_fields(status: int) -> tuple[Header, ...]:
    return (_RETRY_AFTER,) if status == 503 else ()  # noqa: PLR2004  an HTTP status


def not_found_or_gone_response(head: Head | None, now_ms: int) -> Response:
    """404 for what is not there, 410 for what is only kept for its forks."""
    return rejection_response(not_found_or_gone(head, now_ms))


def rejection_response(refusal: Rejection) -> Response:
    """The answer to what would be refused again."""
    fields = ((name.encode(), value.encode()) for name, value in refusal.fields)
    return error_response(refusal.status, refusal.code, refusal.message, *fields)


def _empty_response(status: int, *headers: Header) -> Response:
    # "A server MUST NOT send a Content-Length header field in any response with a status code of [...] 204" -- RFC 9110
    length = () if status == 204 else (_EMPTY,)  # noqa: PLR2004  an HTTP status
    return Response(status, [*SECURITY_HEADERS, *headers, NO_STORE, *length])


def _closed_headers(head: Head) -> tuple[Header, ...]:
    return (CLOSED,) if head.closed else ()


def _producer_headers(stamp: ProducerStamp, seq: int) -> tuple[Header, ...]:
    return ((b"producer-epoch", b"%d" % stamp.epoch), (b"producer-seq", b"%d" % seq))


def append_response(command: Append | Close, outcome: Outcome) -> Response:
    """The answer to a POST (spec 5.2, 5.2.1, 5.3)."""
    answer = append_answer(command, outcome)
    if isinstance(answer, Rejection):
        return rejection_response(answer)
    # Not with a duplicate: others may have written since, and a writer that goes on from there would not notice.
    tag = () if answer.is_duplicate else (_stream_tag(answer.head),)
    fields = (next_offset_header(answer.head, answer.head.tail), *tag, *_closed_headers(answer.head))
    if command.producer is None or answer.producer_seq is None:
        return _empty_response(204, *fields)
    status = 200 if isinstance(command, Append) and not answer.is_duplicate else 204
    return _empty_response(status, *fields, *_producer_headers(command.producer, answer.producer_seq))


def _stream_tag(head: Head) -> Header:
    """What HEAD would tell, for a writer that makes its next write conditional."""
    return (b"etag", stream_etag(head))


def create_response(command: Create, outcome: Outcome, location: bytes) -> Response:
    """The answer to a PUT (spec 4.2, 5.1); `location` is the stream's URL."""
    match outcome:
        case Applied(head):
            assert head is not None, "a create leaves a head"
            headers = [(b"location", location), *_description(head), *reader_key_headers(head)]
            # "An origin server MUST NOT send a validator field [...] in a successful response to PUT unless the
            # request's representation data was saved without any transformation" -- RFC 9110, 9.3.4. JSON may be.
            if not (command.body and is_json(head.content_type)):
                headers.append(_stream_tag(head))
            return _empty_response(201, *headers)
        case Unmet(Absent(now_ms), head):
            assert head is not None, "what is not absent has a head"
            return _exists_response(command, head, now_ms)
        case Unmet(PreconditionsHold(), head):
            return rejection_response(precondition_failed(head))
        case Unmet(Exists(now_ms), head) if stream_status(head, now_ms) is StreamStatus.GONE:
            return error_response(409, ErrorCode.SOURCE_GONE, "the source stream was deleted")
        case Unmet(Exists() | SameIncarnation(), _):
            return error_response(404, ErrorCode.SOURCE_NOT_FOUND, "there is no source stream at that path")
        case Unmet(HasMediaType(), head):
            assert head is not None, "the source was found before its type was compared"
            return error_response(
                409,
                ErrorCode.CONTENT_TYPE_MISMATCH,
                f"the source stream's content type is {head.content_type}",
            )
        case Unmet(requirement, _):
            raise AssertionError(f"no create requires {requirement}")


def reader_key_headers(head: Head) -> tuple[Header, ...]:
    """What makes a URL of the stream one whose answers a cache may keep; a stream of before may have none."""
    return () if head.reader_key is None else ((b"stream-reader-key", head.reader_key.encode()),)


def _description(head: Head) -> tuple[Header, ...]:
    content_type = (b"content-type", head.content_type.encode("latin-1"))
    return (content_type, next_offset_header(head, head.tail), *_closed_headers(head))


def _exists_response(command: Create, head: Head, now_ms: int) -> Response:
    if stream_status(head, now_ms) is StreamStatus.GONE:
        message = "a deleted stream still has forks, so its path cannot be used again yet"
        return error_response(409, ErrorCode.STREAM_EXISTS, message)
    # Whether it is as it is asked for is what a PUT does with a stream that is there: the condition comes before.
    if not command.preconditions.hold(stream_etag(head)):
        return rejection_response(precondition_failed(head))
    difference = _difference(command, head)
    if difference is None:
        return _empty_response(200, *_description(head), *reader_key_headers(head))
    return error_response(
        409,
        ErrorCode.STREAM_EXISTS,
        f"a stream with another {difference} exists at this path",
        *_closed_headers(head),
    )


def _difference(command: Create, head: Head) -> str | None:
    """The first part of the configuration in which an existing stream differs from what is asked for."""
    wanted_type = command.content_type or (head.content_type if command.fork else DEFAULT_CONTENT_TYPE)
    if media_type(wanted_type) != media_type(head.content_type):
        return "content type"
    inherits = head.forked_from is not None and head.forked_from.inherits_lifetime
    if not same_lifetime(command.lifetime, None if inherits else head.lifetime):
        return "lifetime"
    if command.closed is not head.closed:
        return "closure status"
    if command.is_public is not head.is_public:
        return "privacy"
    return _fork_difference(command, head)


def _fork_difference(command: Create, head: Head) -> str | None:
    if (command.fork is None) is not (head.forked_from is None):
        return "origin"
    if command.fork is None or head.forked_from is None:
        return None
    if command.fork.source != head.forked_from.source:
        return "source"
    anchor = head.forked_from.fork_offset
    match command.fork.fork_offset:
        case None:  # whatever the tail was when the fork was made
            same_anchor = True
        case Sentinel.BEGINNING:
            same_anchor = anchor == 0
        case offset:
            same_anchor = offset == Offset(born_at(head, anchor), anchor)
    return None if same_anchor and command.fork.sub_offset == head.forked_from.sub_offset else "fork offset"


def delete_response(_command: Delete, outcome: Outcome) -> Response:
    """The answer to a DELETE (spec 5.4)."""
    match outcome:
        case Applied():
            return Response(204, [*SECURITY_HEADERS, NO_STORE])
        case Unmet(Exists(now_ms) | Expired(now_ms), head):
            return not_found_or_gone_response(head, now_ms)
        case Unmet(PreconditionsHold(), head):
            return rejection_response(precondition_failed(head))
        case Unmet(requirement, _):
            raise AssertionError(f"no delete requires {requirement}")


def head_response(head: Head, preconditions: Preconditions) -> Response:
    """The answer to a HEAD: what there is to know of a stream without reading it (spec 5.5)."""
    if not preconditions.matches(stream_etag(head)):
        return rejection_response(precondition_failed(head))
    headers = [
        *SECURITY_HEADERS,
        *_description(head),
        *reader_key_headers(head),
        NO_STORE,
        _stream_tag(head),
    ]
    match head.lifetime:
        case SlidingTtl(seconds):
            headers.append((b"stream-ttl", b"%d" % seconds))
        case ExpiresAt(_, text):
            headers.append((b"stream-expires-at", text.encode()))
        case None:
            pass
    return Response(200 if preconditions.differs(stream_etag(head)) else 304, headers)


def tail_response(head: Head) -> Response:
    """The answer to a catch-up read from `now`: nothing yet, and where it will come (spec 8)."""
    body = b"[]" if is_json(head.content_type) else b""
    length = (b"content-length", b"%d" % len(body))
    return Response(200, [*SECURITY_HEADERS, *_description(head), UP_TO_DATE, NO_STORE, length], (body,))


def long_poll_timeout_response(head: Head, cursor: int) -> Response:
    """The answer to a long-poll that ends at the tail (spec 5.7)."""
    offset = next_offset_header(head, head.tail)
    return Response(
        204,
        [
            *SECURITY_HEADERS,
            offset,
            UP_TO_DATE,
            _cursor_header(cursor),
            *_closed_headers(head),
            NO_STORE,
        ],
    )


def sse_end_response(head: Head) -> Response:
    """The answer to an EventSource that has everything of a closed stream: only a 204 keeps it from coming again."""
    return Response(204, [*SECURITY_HEADERS, next_offset_header(head, head.tail), UP_TO_DATE, CLOSED, NO_STORE])


def page_response(read: PageRead, now_ms: int) -> Response:
    """The answer to a read that has a page, perhaps an empty one (spec 5.6, 5.7, 10.1)."""
    head, page = read.head, read.page
    at_tail = page.end == head.tail
    tag = etag(head, page.start, page.end)
    if not read.preconditions.matches(tag):
        return rejection_response(precondition_failed(head))
    headers = [*SECURITY_HEADERS, (b"etag", tag), *_cache_fields(read, now_ms), next_offset_header(head, page.end)]
    if at_tail:
        headers.append(UP_TO_DATE)
        headers += _closed_headers(head)
    if read.cursor is not None:
        headers.append(_cursor_header(read.cursor))
    if not read.preconditions.differs(tag):
        return Response(304, headers)
    parts = array_parts(page.data) if is_json(head.content_type) else (page.data,)
    length = b"%d" % sum(map(len, parts))
    headers += ((b"content-type", head.content_type.encode("latin-1")), (b"content-length", length), *_AS_DATA)
    return Response(200, headers, parts)


def _cache_fields(read: PageRead, now_ms: int) -> tuple[Header, ...]:
    """How long a cache may answer with a page, and whom.

    Only a URL with the reader key is kept without asking: nobody can guess it, and it is of this life alone, so that
    neither a stranger nor a reader of the stream's next life is answered from there. At an open stream's tail a page
    can still grow; a long-poll's is kept all the same, for the cursor that its reader sends next makes another URL.
    """
    head, is_long_poll = read.head, read.cursor is not None
    can_grow = read.page.end == head.tail and not head.closed
    if not read.is_keyed or (can_grow and not is_long_poll):
        if read.is_shared:
            return ((b"cache-control", b"no-cache"),)
        return ((b"cache-control", b"private, no-store"), (b"vary", b"Authorization"))
    age_s = LONG_POLL_CACHE_S_MAX if is_long_poll else CACHE_S_MAX
    if head.live_until_ms is None:
        # What a private stream's former key is worth ends soon after the key is turned.
        stale = b", stale-while-revalidate=%d" % STALE_S_MAX if read.is_shared and not is_long_poll else b""
        return ((b"cache-control", b"public, max-age=%d%s" % (age_s, stale)),)
    # A moment rather than an age, which a cache that does not tell its answers' age would let begin anew.
    # A second less, for the answer's Date may be of the second before.
    until_s = min(now_ms // 1_000 + age_s, head.live_until_ms // 1_000) - 1
    return ((b"cache-control", b"public"), (b"expires", formatdate(until_s, usegmt=True).encode()))


def _cursor_header(cursor: int) -> Header:
    return (b"stream-cursor", b"%d" % cursor)
