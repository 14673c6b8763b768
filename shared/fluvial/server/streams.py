"""The protocol over ASGI: no framework between the server and the store.

A framework's routing and dependency injection cost more than all the work of an append (docs/decisions/0003).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Final

import msgspec
from starlette.types import Receive, Scope, Send

from fluvial.access.authorizer import OPEN, Authorization, Authorizer, Credentials, Tenant, check_anonymous
from fluvial.clock import Clock
from fluvial.fanout.publisher import FanOutReport, Publisher
from fluvial.fanout.replication import Source
from fluvial.model.append_result import precondition_failed
from fluvial.model.command import Append, Close
from fluvial.model.commit import Applied, Outcome, Unmet
from fluvial.model.content_type import is_text
from fluvial.model.entity_tag import stream_etag
from fluvial.model.errors import ErrorCode, FluvialError, RequestError, StoreError, StreamVanished
from fluvial.model.head import Head, StreamStatus, stream_status
from fluvial.model.limits import PAGE_BYTES_MAX, PATH_BYTES_MAX
from fluvial.model.names import STREAM_ROOT, StreamName, parse_name
from fluvial.model.offset import Sentinel
from fluvial.model.permissions import Permission
from fluvial.model.plan import plan_append, plan_close, plan_delete
from fluvial.operations.create_stream import create
from fluvial.operations.open_read import load_head_and_renew, resolve_position
from fluvial.server.asgi_send import send_parts
from fluvial.server.content_coding import PADDING_BYTES_MAX, Compression, decode_body
from fluvial.server.live_reads import LiveReadRequest, LiveReads
from fluvial.storage.contract import Store
from fluvial.wire.content_coding import body_too_large
from fluvial.wire.cors import cors_headers, error_cors_headers, preflight_response
from fluvial.wire.cursor import next_cursor
from fluvial.wire.forwarded import client_host, client_scheme
from fluvial.wire.request import (
    Headers,
    LiveMode,
    Read,
    parse_append,
    parse_create,
    parse_delete,
    parse_is_public,
    parse_preconditions,
    parse_response_read,
    singular_headers,
    split_token,
)
from fluvial.wire.response import (
    SECURITY_HEADERS,
    Header,
    PageRead,
    Response,
    append_response,
    create_response,
    delete_response,
    error_response,
    head_response,
    internal_error_response,
    long_poll_timeout_response,
    not_found_or_gone_response,
    page_response,
    rejection_response,
    request_error_response,
    sse_end_response,
    store_error_response,
    tail_response,
)

log = logging.getLogger(__name__)

STREAM_ROOT_BYTES: Final = STREAM_ROOT.encode()

#: What each method needs. One that is not here is answered with 405.
STREAM_PERMISSIONS: Final[dict[str, Permission]] = {
    "GET": Permission.READ,
    "HEAD": Permission.READ,
    "PUT": Permission.WRITE,
    "POST": Permission.WRITE,
    "DELETE": Permission.WRITE,
}

METHODS: Final = ", ".join((*STREAM_PERMISSIONS, "OPTIONS"))

#: What a server that only reads answers.
SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")

_EVENTS: Final[Header] = (b"content-type", b"text/event-stream")
#: Events are of one reader: proxies pass them on one by one, and nginx only when it is told to.
_UNBUFFERED: Final[Header] = (b"x-accel-buffering", b"no")
_SHARED_EVENTS: Final[list[Header]] = [
    *SECURITY_HEADERS,
    _EVENTS,
    (b"cache-control", b"no-cache, no-transform"),
    _UNBUFFERED,
]
_PRIVATE_EVENTS: Final[list[Header]] = [
    *SECURITY_HEADERS,
    _EVENTS,
    (b"cache-control", b"private, no-cache, no-store, no-transform"),
    _UNBUFFERED,
]


class ClientDisconnected(FluvialError):
    """The client hung up before its request was whole: there is nobody to answer."""


class IncomingRequest(msgspec.Struct, frozen=True, gc=False):
    """One request as it came, and the header fields that its answer has for browsers."""

    name: StreamName
    headers: Headers
    fields: tuple[Header, ...]
    scope: Scope
    receive: Receive
    send: Send


class AuthorizedRequest(msgspec.Struct, frozen=True, gc=False):
    """One request that was let in: on which stream, with what, and what it may do; `query` is without its token."""

    name: StreamName
    headers: Headers
    query: bytes
    permit: Authorization
    asked: IncomingRequest


@dataclass(frozen=True, slots=True)
class StreamsApp:
    """Every request below /v1/stream/."""

    store: Store
    clock: Clock
    live: LiveReads
    publisher: Publisher
    authorizer: Authorizer
    body_bytes_max: int
    is_behind_cdn: bool = False
    compression: Compression = field(default_factory=Compression)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request; what goes wrong becomes an answer, too."""
        fields: tuple[Header, ...] = ()
        try:
            name, headers = name_and_headers(scope)
            tenant = self.authorizer.cached_tenant(name) or await self.authorizer.tenant(name)
            self.authorizer.log_rejected_origin(tenant, headers)
            told = error_cors_headers if scope["method"] == "OPTIONS" else cors_headers
            fields = told(tenant.origins, headers.get(b"origin"))
            visit = self._admitted(tenant, IncomingRequest(name, headers, fields, scope, receive, send))
            response = visit if isinstance(visit, Response) else await _HANDLERS[scope["method"]](self, visit)
        except RequestError as exc:
            response = request_error_response(exc)
            if exc.status in {401, 403}:
                fields = error_cors_headers(tenant.origins, headers.get(b"origin"))
        except StoreError as exc:
            response = store_error_response(exc)
        except StreamVanished:
            response = not_found_or_gone_response(None, self.clock.now_ms())
        except ClientDisconnected:
            return
        except asyncio.CancelledError:
            if self.live.is_stopping:  # the server has waited long enough for this request
                return
            raise
        except Exception:
            log.exception("request_failed", extra={"method": scope["method"], "path": scope["path"]})
            response = internal_error_response()
        if response is not None:
            response.headers.extend(fields)
            await send_response(send, response)

    def _admitted(self, tenant: Tenant, asked: IncomingRequest) -> AuthorizedRequest | Response:
        """A request that is let in, or its answer when it is none on a stream. Raises RequestError."""
        scope, method = asked.scope, asked.scope["method"]
        need = STREAM_PERMISSIONS.get(method)
        if need is None:
            if method == "OPTIONS":
                return preflight_response(METHODS, asked.headers)
            allow = (b"allow", METHODS.encode())
            return error_response(405, ErrorCode.METHOD_NOT_ALLOWED, f"a stream has the methods {METHODS}", allow)
        query, token = split_token(scope["query_string"])
        if tenant.is_open:
            if need is not Permission.READ:
                self.authorizer.check_origin(tenant, asked.headers)
            return AuthorizedRequest(asked.name, asked.headers, query, OPEN, asked)
        credentials = Credentials(asked.headers.get(b"authorization"), token, need is Permission.READ)
        permit = self.authorizer.permit(tenant, asked.name, need, credentials)
        return AuthorizedRequest(asked.name, asked.headers, query, permit, asked)

    async def append(self, visit: AuthorizedRequest) -> Response:
        """POST: append, close, or both."""
        body = await self._body(visit)
        command = parse_append(visit.name, visit.headers, body)
        now_ms = self.clock.now_ms()
        commit = plan_append(command, now_ms) if isinstance(command, Append) else plan_close(command, now_ms)
        write = partial(self.store.apply, visit.name, commit)
        outcome = await self.authorizer.throttle.write_within_quota(visit.permit.project, len(body), write)
        response = append_response(command, outcome)
        if outcome.head is not None and outcome.head.delivered is not None:
            response.headers.extend(await self._published(command, outcome))
        return response

    async def _published(self, command: Append | Close, outcome: Outcome) -> list[Header]:
        """Deliver what was appended; so does a retry of what was appended but perhaps not delivered."""
        head = outcome.head
        assert head is not None, "what is followed has a head"
        before = None
        if isinstance(outcome, Applied):
            before = head.tail - len(command.data) if isinstance(command, Append) else None
        elif head.delivered == head.tail or stream_status(head, self.clock.now_ms()) is not StreamStatus.EXISTS:
            return []
        report = await self.publisher.publish(Source(command.name, head), before)
        return [] if report is None else fan_out_headers(report)

    async def create(self, visit: AuthorizedRequest) -> Response:
        """PUT: create or confirm, perhaps as a fork."""
        scope, is_public = visit.asked.scope, parse_is_public(visit.query)
        root: str = scope.get("root_path", "")
        body = await self._body(visit)
        command = parse_create(visit.name, visit.headers, body, is_public=is_public, root_path=root)
        if command.fork is not None:
            visit.permit.also(command.fork.source)
        scheme = client_scheme(visit.headers, scope["scheme"].encode())
        path = root.encode() + scope["raw_path"]
        location = b"%s://%s%s" % (scheme, client_host(visit.headers) or b"localhost", path)
        if self.is_behind_cdn:  # whose name is not known here: a reference to the URL that was asked for
            location = scope["raw_path"]
        write = partial(create, self.store, self.clock, command)
        outcome = await self.authorizer.throttle.write_within_quota(visit.permit.project, len(body), write)
        return create_response(command, outcome, location)

    async def delete(self, visit: AuthorizedRequest) -> Response:
        """DELETE."""
        command = parse_delete(visit.name, visit.headers)
        commit = plan_delete(self.clock.now_ms(), command.preconditions)
        return delete_response(command, await self.store.apply(visit.name, commit))

    async def head(self, visit: AuthorizedRequest) -> Response:
        """HEAD: metadata; does not count as a use of the stream."""
        head, now_ms = await self.store.head(visit.name), self.clock.now_ms()
        visit.permit.check(head, now_ms)
        if head is None or stream_status(head, now_ms) is not StreamStatus.EXISTS:
            return not_found_or_gone_response(head, now_ms)
        return head_response(head, parse_preconditions(visit.headers))

    async def read(self, visit: AuthorizedRequest) -> Response | None:
        """GET: catch up, long-poll or SSE; None when the response has been sent already."""
        name, permit = visit.name, visit.permit
        try:
            read = parse_response_read(visit.query, visit.headers)
        except RequestError:
            await check_anonymous(self.store, self.clock, name, permit)
            raise
        head = await load_head_and_renew(self.store, self.clock, name, permit.check)
        if isinstance(head, Unmet):
            return not_found_or_gone_response(head.head, self.clock.now_ms())
        position = resolve_position(head, read.read_from)
        if not read.of_stream.matches(stream_etag(head)):
            return rejection_response(precondition_failed(head))
        if read.live is LiveMode.SSE:
            if read.has_seen_end and head.closed and position == head.tail:
                return sse_end_response(head)
            encoding = [] if is_text(head.content_type) else [(b"stream-sse-data-encoding", b"base64")]
            fields = _SHARED_EVENTS if permit.is_shared(head) else _PRIVATE_EVENTS
            start = {"type": "http.response.start", "status": 200, "headers": [*fields, *encoding, *visit.asked.fields]}
            subscription = LiveReadRequest(name, head, position, read.cursor, permit)
            await self.live.send_events(subscription, visit.asked.receive, visit.asked.send, start)
            return None
        if read.live is LiveMode.LONG_POLL:
            return await self._long_poll(visit, read, LiveReadRequest(name, head, position, read.cursor, permit))
        if read.read_from is Sentinel.TAIL:
            return tail_response(head)
        return await self._page(visit, read, head, (position, None))

    async def _long_poll(self, visit: AuthorizedRequest, read: Read, subscription: LiveReadRequest) -> Response:
        head, position = subscription.head, subscription.position
        if position == head.tail and not head.closed:
            news = await self.live.long_poll(visit.asked.receive, subscription)
            # What was waited for may have ended, and something else may have begun at its name.
            if news is None or news.incarnation != head.incarnation:
                return not_found_or_gone_response(None, self.clock.now_ms())
            if stream_status(news, self.clock.now_ms()) is not StreamStatus.EXISTS:
                return not_found_or_gone_response(news, self.clock.now_ms())
            head = news
        cursor = next_cursor(subscription.echoed_cursor, self.clock.now_ms(), self.clock.jitter())
        if position == head.tail:
            return long_poll_timeout_response(head, cursor)
        return await self._page(visit, read, head, (position, cursor))

    async def _page(self, visit: AuthorizedRequest, read: Read, head: Head, place: tuple[int, int | None]) -> Response:
        """The page at a position, with the cursor of a long-poll."""
        position, cursor = place
        page = await self.live.pages.at(visit.name, head, position, PAGE_BYTES_MAX)
        is_keyed = read.is_cache_safe and read.reader_key is not None and read.reader_key == head.reader_key
        page_read = PageRead(head, page, cursor, read.of_page, visit.permit.is_shared(head), is_keyed)
        response = page_response(page_read, self.clock.now_ms())
        padding = b"" if page_read.is_shared else b"x" * int(self.clock.jitter() * PADDING_BYTES_MAX)
        return await self.compression.compress_page(response, visit.headers, head, page, padding=padding)

    async def _body(self, visit: AuthorizedRequest) -> bytes:
        """The whole body, counted; the server hangs up on a client that stops sending it.

        Raises RequestError over a limit.
        """
        project, byte_count_max = visit.permit.project, self.body_bytes_max
        if project is not None and project.limits.body_bytes is not None:
            byte_count_max = min(byte_count_max, project.limits.body_bytes)
        body = await whole_body(visit.headers.get(b"content-length"), visit.asked.receive, byte_count_max)
        body = await decode_body(body, visit.headers, byte_count_max)
        await self._check_again(visit)
        return body

    async def _check_again(self, visit: AuthorizedRequest) -> None:
        """A body may take long: what let the request in may have ended meanwhile. Raises RequestError."""
        tenant = self.authorizer.cached_tenant(visit.name) or await self.authorizer.tenant(visit.name)
        is_same = tenant.project == visit.permit.project and tenant.is_open is (visit.permit is OPEN)
        if not is_same or visit.permit.remaining_s(self.clock.now_ms()) == 0:
            self._admitted(tenant, visit.asked)


async def whole_body(declared: bytes | None, receive: Receive, byte_count_max: int) -> bytes:
    """A request's body, which may say how long it is. Raises RequestError when it is too long."""
    if declared == b"0":
        return b""
    if declared is not None and declared.isdigit() and int(declared) > byte_count_max:
        raise body_too_large(byte_count_max)
    parts, byte_count = list[bytes](), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        parts.append(message.get("body", b""))
        byte_count += len(parts[-1])
        if byte_count > byte_count_max:
            raise body_too_large(byte_count_max)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def reject_write(_scope: Scope, _receive: Receive, send: Send) -> None:
    """The answer of a server that only reads to what is no read."""
    allow = (b"allow", ", ".join(SAFE_METHODS).encode())
    message = "this server only reads; send what changes streams to another one"
    await send_response(send, error_response(405, ErrorCode.METHOD_NOT_ALLOWED, message, allow))


async def send_response(send: Send, response: Response) -> None:
    """Send a whole answer."""
    await send({"type": "http.response.start", "status": response.status, "headers": response.headers})
    await send_parts(send, response.parts, is_last=True)


def check_path(path: bytes) -> None:
    """Whether a path is no longer than any needs to be. Raises RequestError."""
    if len(path) > PATH_BYTES_MAX:
        raise RequestError(ErrorCode.PATH_TOO_LONG, f"the path is over {PATH_BYTES_MAX} bytes long", 414)


def name_and_headers(scope: Scope) -> tuple[StreamName, Headers]:
    """What every request on a stream begins with. Raises RequestError."""
    path: bytes = scope["raw_path"]
    check_path(path)
    return _name(path), singular_headers(scope["headers"])


@lru_cache(maxsize=4_096)
def _name(path: bytes) -> StreamName:
    return parse_name(path[len(STREAM_ROOT_BYTES) :].decode("latin-1"))


def fan_out_headers(report: FanOutReport) -> list[Header]:
    """What became of an append's deliveries, as far as its publisher has waited for them."""
    return [
        (b"stream-fanout-count", b"%d" % report.count),
        (b"stream-fanout-successes", b"%d" % report.successes),
        (b"stream-fanout-failures", b"%d" % report.failures),
        (b"stream-fanout-mode", report.mode.value.encode()),
    ]


Handle = Callable[[StreamsApp, AuthorizedRequest], Awaitable[Response | None]]

_HANDLERS: Final[dict[str, Handle]] = {
    "GET": StreamsApp.read,
    "HEAD": StreamsApp.head,
    "PUT": StreamsApp.create,
    "POST": StreamsApp.append,
    "DELETE": StreamsApp.delete,
}
