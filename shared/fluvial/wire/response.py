"""Responses: outcomes, pages and errors as status, header fields and body, for every transport.

Rules:
1. Every answer has SECURITY_HEADERS and a Cache-Control. CORS fields are added where the answer is sent.
2. The message of an error never quotes a body or a token.
"""

from email.utils import formatdate
from typing import Final

import msgspec

from fluvial.model.append_result import Rejection, append_result, not_found_or_gone, precondition_failed
from fluvial.model.command import Append, Close, Create, Delete
from fluvial.model.commit import Outcome
from fluvial.model.content_type import is_json
from fluvial.model.create_result import create_result, delete_result
from fluvial.model.entity_tag import Preconditions, etag, stream_etag
from fluvial.model.errors import ErrorCode, RequestError, StoreError, StreamVanished
from fluvial.model.head import Head, ProducerStamp
from fluvial.model.json_mode import array_parts
from fluvial.model.lifetime import ExpiresAt, SlidingTtl
from fluvial.model.limits import CURSOR_INTERVAL_MS
from fluvial.model.offset import offset_token
from fluvial.model.page import Page

Header = tuple[bytes, bytes]

#: On every response (spec 12.7).
SECURITY_HEADERS: Final[tuple[Header, ...]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"cross-origin"),
)

#: A stream may hold HTML. `sandbox` gives the page no origin, so that its scripts cannot read what the reader may read;
#: `no-referrer` keeps its URL, which may have a token, from other servers.
_SANDBOX: Final[tuple[Header, ...]] = (
    (b"content-security-policy", b"sandbox"),
    (b"referrer-policy", b"no-referrer"),
)
NO_STORE: Final[Header] = (b"cache-control", b"no-store")
CLOSED: Final[Header] = (b"stream-closed", b"true")
UP_TO_DATE: Final[Header] = (b"stream-up-to-date", b"true")
#: "Cache-Control: public, max-age=60, stale-while-revalidate=300" -- spec 10.1
CACHE_S_MAX: Final = 60
STALE_S_MAX: Final = 300
#: A long-poll's answer is cached as long as its cursor is the present one.
LONG_POLL_CACHE_S_MAX: Final = CURSOR_INTERVAL_MS // 1_000
_EMPTY: Final[Header] = (b"content-length", b"0")
_RETRY_AFTER: Final[Header] = (b"retry-after", b"1")
_JSON: Final[Header] = (b"content-type", b"application/json")


class Response(msgspec.Struct, frozen=True, gc=False):
    """One answer; header names are lower case. A struct, because it is made in a tenth of a dataclass's time."""

    status: int
    headers: tuple[Header, ...]
    parts: tuple[bytes | memoryview, ...] = ()

    @property
    def body(self) -> bytes:
        """The parts of the body, joined."""
        return b"".join(self.parts)


class PageRead(msgspec.Struct, frozen=True, gc=False):
    """A read that found a page: the page, the cursor if the read is live, and the request's preconditions.

    `is_shared`: everybody may read the stream. `is_keyed`: the URL has the stream's reader key.
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
    return Response(status, (*SECURITY_HEADERS, *headers, _JSON, length, NO_STORE), (body,))


def response_of(error: Exception) -> Response | None:
    """The answer to an exception that Fluvial raises on purpose.

    None for any other one: it is a bug, which the caller logs and answers with `internal_error_response`.
    """
    match error:
        case RequestError():
            return request_error_response(error)
        case StoreError():
            return store_error_response(error)
        case StreamVanished():
            return rejection_response(not_found_or_gone(None, now_ms=0))  # without a head, at any time
        case _:
            return None


def request_error_response(error: RequestError) -> Response:
    """The answer to a request that cannot be carried out as it is."""
    fields = ((name.encode(), value.encode()) for name, value in error.fields)
    return error_response(error.status, error.code, error.message, *_retry_fields(error.status), *fields)


def store_error_response(error: StoreError) -> Response:
    """The answer when the store has failed; the log has the cause."""
    fields = () if error.status_hint == 500 else (_RETRY_AFTER,)  # noqa: PLR2004  an HTTP status
    return error_response(error.status_hint, error.code, error.public_message, *fields)


def internal_error_response() -> Response:
    """The answer when the server has a bug; the log has the exception."""
    return error_response(500, ErrorCode.INTERNAL, "the server failed to answer this request")


def _retry_fields(status: int) -> tuple[Header, ...]:
    return (_RETRY_AFTER,) if status == 503 else ()  # noqa: PLR2004  an HTTP status


def not_found_or_gone_response(head: Head | None, now_ms: int) -> Response:
    """404 for an absent stream, 410 for a deleted one that is kept for its forks."""
    return rejection_response(not_found_or_gone(head, now_ms))


def rejection_response(rejection: Rejection) -> Response:
    """The answer to a request whose requirements are unmet."""
    fields = ((name.encode(), value.encode()) for name, value in rejection.fields)
    return error_response(rejection.status, rejection.code, rejection.message, *fields)


def _empty_response(status: int, *headers: Header) -> Response:
    # "A server MUST NOT send a Content-Length header field in any response with a status code of [...] 204" -- RFC 9110
    length = () if status == 204 else (_EMPTY,)  # noqa: PLR2004  an HTTP status
    return Response(status, (*SECURITY_HEADERS, *headers, NO_STORE, *length))


def _closed_headers(head: Head) -> tuple[Header, ...]:
    return (CLOSED,) if head.closed else ()


def _producer_headers(stamp: ProducerStamp, seq: int) -> tuple[Header, ...]:
    return ((b"producer-epoch", b"%d" % stamp.epoch), (b"producer-seq", b"%d" % seq))


def append_response(command: Append | Close, outcome: Outcome) -> Response:
    """The answer to a POST (spec 5.2, 5.2.1, 5.3)."""
    answer = append_result(command, outcome)
    if isinstance(answer, Rejection):
        return rejection_response(answer)
    # A duplicate's answer has no tag. Other writers may have appended since, and the producer would take the present
    # tag for that of its own batch: its next conditional write would pass, and it would not notice their batches.
    tag = () if answer.is_duplicate else (_stream_tag(answer.head),)
    fields = (next_offset_header(answer.head, answer.head.tail), *tag, *_closed_headers(answer.head))
    if command.producer is None or answer.producer_seq is None:
        return _empty_response(204, *fields)
    status = 200 if isinstance(command, Append) and not answer.is_duplicate else 204
    return _empty_response(status, *fields, *_producer_headers(command.producer, answer.producer_seq))


def _stream_tag(head: Head) -> Header:
    """The tag that HEAD returns, for a writer that makes its next write conditional."""
    return (b"etag", stream_etag(head))


def create_response(command: Create, outcome: Outcome, location: bytes) -> Response:
    """The answer to a PUT (spec 4.2, 5.1); `location` is the stream's URL."""
    result = create_result(command, outcome)
    if isinstance(result, Rejection):
        return rejection_response(result)
    head = result.head
    if not result.is_new:
        return _empty_response(200, *_description(head), *reader_key_headers(head))
    headers = [(b"location", location), *_description(head), *reader_key_headers(head)]
    # "An origin server MUST NOT send a validator field [...] in a successful response to PUT unless the
    # request's representation data was saved without any transformation" -- RFC 9110, 9.3.4. JSON may be.
    if not (command.body and is_json(head.content_type)):
        headers.append(_stream_tag(head))
    return _empty_response(201, *headers)


def reader_key_headers(head: Head) -> tuple[Header, ...]:
    """`Stream-Reader-Key`; a stream that was created before reader keys has none."""
    return () if head.reader_key is None else ((b"stream-reader-key", head.reader_key.encode()),)


def _description(head: Head) -> tuple[Header, ...]:
    content_type = (b"content-type", head.content_type.encode("latin-1"))
    return (content_type, next_offset_header(head, head.tail), *_closed_headers(head))


def delete_response(_command: Delete, outcome: Outcome) -> Response:
    """The answer to a DELETE (spec 5.4)."""
    rejection = delete_result(outcome)
    return Response(204, (*SECURITY_HEADERS, NO_STORE)) if rejection is None else rejection_response(rejection)


def head_response(head: Head, preconditions: Preconditions) -> Response:
    """The answer to a HEAD: a stream's metadata (spec 5.5)."""
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
    return Response(200 if preconditions.differs(stream_etag(head)) else 304, tuple(headers))


def tail_response(head: Head) -> Response:
    """The answer to a catch-up read from `now`: an empty page, and the offset of the tail (spec 8)."""
    body = b"[]" if is_json(head.content_type) else b""
    length = (b"content-length", b"%d" % len(body))
    return Response(200, (*SECURITY_HEADERS, *_description(head), UP_TO_DATE, NO_STORE, length), (body,))


def long_poll_timeout_response(head: Head, cursor: int) -> Response:
    """The answer to a long-poll that ends at the tail (spec 5.7)."""
    offset = next_offset_header(head, head.tail)
    fields = (offset, UP_TO_DATE, _cursor_header(cursor), *_closed_headers(head))
    return Response(204, (*SECURITY_HEADERS, *fields, NO_STORE))


def sse_end_response(head: Head) -> Response:
    """The answer to an EventSource that has read all of a closed stream: only a 204 keeps it from reconnecting."""
    return Response(204, (*SECURITY_HEADERS, next_offset_header(head, head.tail), UP_TO_DATE, CLOSED, NO_STORE))


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
        return Response(304, tuple(headers))
    parts = array_parts(page.data) if is_json(head.content_type) else (page.data,)
    length = b"%d" % sum(map(len, parts))
    headers += ((b"content-type", head.content_type.encode("latin-1")), (b"content-length", length), *_SANDBOX)
    return Response(200, tuple(headers), parts)


def _cache_fields(read: PageRead, now_ms: int) -> tuple[Header, ...]:
    """How long a cache may answer with a page, and for which clients.

    A cache may answer without asking the server only for a URL with the reader key. The key cannot be guessed and is
    of this incarnation alone, so neither anonymous clients nor readers of the next incarnation have such a URL. The
    page at an open stream's tail can grow, so it is not cached. That of a long-poll is cached all the same, because
    its reader's next URL has another cursor.
    """
    head, is_long_poll = read.head, read.cursor is not None
    can_grow = read.page.end == head.tail and not head.closed
    if not read.is_keyed or (can_grow and not is_long_poll):
        if read.is_shared:
            return ((b"cache-control", b"no-cache"),)
        return ((b"cache-control", b"private, no-store"), (b"vary", b"Authorization"))
    age_s = LONG_POLL_CACHE_S_MAX if is_long_poll else CACHE_S_MAX
    if head.live_until_ms is None:
        # A private stream's pages have no stale-while-revalidate, so that a rotated key is of no use after a minute.
        stale = b", stale-while-revalidate=%d" % STALE_S_MAX if read.is_shared and not is_long_poll else b""
        return ((b"cache-control", b"public, max-age=%d%s" % (age_s, stale)),)
    # Expires rather than max-age: a cache behind one that sends no Age would count max-age from the beginning again.
    # A second less, because the answer's Date may be of the second before.
    until_s = min(now_ms // 1_000 + age_s, head.live_until_ms // 1_000) - 1
    return ((b"cache-control", b"public"), (b"expires", formatdate(until_s, usegmt=True).encode()))


def _cursor_header(cursor: int) -> Header:
    return (b"stream-cursor", b"%d" % cursor)
