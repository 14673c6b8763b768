"""Serves streams over HTTP: every request below /v1/stream/ but WebSockets.

It is an ASGI application without a framework, because routing and dependency injection cost more than all the work of
an append (docs/decisions/0003). Rules:

1. A request is authorized before its query and its body are looked at, and a write again after its body has come.
2. An exception that Fluvial raises on purpose has its answer in wire/response.py; any other one is logged, and answered
   with 500.
3. `__call__` computes the CORS fields of an answer, and `send_response` or the event stream adds them.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Final

import msgspec
from starlette.types import Receive, Scope, Send

from fluvial.access.authorizer import OPEN_ACCESS, Authorization, Authorizer, Credentials, Tenant
from fluvial.clock import Clock
from fluvial.fanout.publisher import FanOutReport, Publisher, publish_append
from fluvial.model.append_result import precondition_failed
from fluvial.model.command import Append
from fluvial.model.commit import Applied, Outcome
from fluvial.model.entity_tag import stream_etag
from fluvial.model.errors import ErrorCode, FluvialError, RequestError
from fluvial.model.head import Head, StreamStatus, stream_status
from fluvial.model.limits import PAGE_BYTES_MAX, PATH_BYTES_MAX
from fluvial.model.names import STREAM_ROOT, StreamName, parse_name
from fluvial.model.offset import ReservedOffset
from fluvial.model.permissions import Permission
from fluvial.model.plan import plan_delete, plan_write
from fluvial.model.project import Project
from fluvial.operations.create_stream import create_stream
from fluvial.operations.open_read import OpenedRead, open_read
from fluvial.server.asgi_send import send_response
from fluvial.server.content_coding import PADDING_BYTES_MAX, Compression, decode_body
from fluvial.server.exchange import exchange_of, note_append, note_body, note_live_read, note_stream, request_id_of
from fluvial.server.live_reads import LiveReads
from fluvial.server.sse import EventStream, EventStreams
from fluvial.storage.contract import Store
from fluvial.wire.content_coding import body_too_large
from fluvial.wire.cors import cors_headers, error_cors_headers, preflight_response
from fluvial.wire.cursor import next_cursor
from fluvial.wire.forwarded import client_host, client_scheme
from fluvial.wire.request import (
    Headers,
    LiveMode,
    parse_append,
    parse_create,
    parse_delete,
    parse_http_read,
    parse_is_public,
    parse_preconditions,
    singular_headers,
    split_token,
)
from fluvial.wire.response import (
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
    response_of,
    sse_end_response,
    tail_response,
)

log = logging.getLogger(__name__)

STREAM_ROOT_BYTES: Final = STREAM_ROOT.encode()

#: The permission that each method requires. A method that is not here is answered with 405.
STREAM_PERMISSIONS: Final[dict[str, Permission]] = {
    "GET": Permission.READ,
    "HEAD": Permission.READ,
    "PUT": Permission.WRITE,
    "POST": Permission.WRITE,
    "DELETE": Permission.WRITE,
}

METHODS: Final = ", ".join((*STREAM_PERMISSIONS, "OPTIONS"))

#: The statuses whose answers have CORS fields of their own (see error_cors_headers).
UNAUTHORIZED: Final = frozenset({401, 403})


class ClientDisconnected(FluvialError):
    """The client has disconnected before its request was complete, so there is no answer to send."""


class Request(msgspec.Struct, frozen=True, gc=False):
    """A request on a stream. `token` was taken out of `query`."""

    name: StreamName
    headers: Headers
    query: bytes
    token: str | None
    scope: Scope
    receive: Receive


@dataclass(slots=True)
class StreamsApp:
    """Every HTTP request below /v1/stream/."""

    store: Store
    clock: Clock
    live: LiveReads
    publisher: Publisher
    authorizer: Authorizer
    body_bytes_max: int
    is_behind_cdn: bool = False
    compression: Compression = field(default_factory=Compression)
    events: EventStreams = field(init=False)

    def __post_init__(self) -> None:
        """Event streams are counted among the other live reads of the process."""
        self.events = EventStreams(self.live)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request, also if it fails."""
        cors: tuple[Header, ...] = ()
        try:
            name, headers = parse_name_and_headers(scope)
            tenant = self.authorizer.cached_tenant(name) or await self.authorizer.find_tenant(name)
            note_stream(scope, name, tenant.project, headers)
            self.authorizer.log_rejected_origin(tenant, headers)
            method, origin = scope["method"], headers.get(b"origin")
            cors = (error_cors_headers if method == "OPTIONS" else cors_headers)(tenant.origins, origin)
            answer: Response | EventStream | None
            if method not in STREAM_PERMISSIONS:
                answer = _other_method_response(method, headers)
            else:
                request = Request(name, headers, *split_token(scope["query_string"]), scope, receive)
                if method == "GET":
                    answer = await self._read(request, tenant)
                else:
                    answer = await _HANDLERS[method](self, request, self._authorize(request, tenant))
            if isinstance(answer, EventStream):
                return await self.events.send(answer, receive, send, cors)
        except ClientDisconnected:
            return None
        except asyncio.CancelledError:
            if self.live.is_stopping:  # the server has waited long enough for this request
                return None
            raise
        except Exception as exc:  # noqa: BLE001  `failure_response` logs what is unforeseen
            answer = failure_response(exc, scope)
            if answer.status in UNAUTHORIZED:
                cors = error_cors_headers(tenant.origins, headers.get(b"origin"))
        return await send_response(send, answer, cors)

    def _authorize(self, request: Request, tenant: Tenant) -> Authorization:
        """Authorize any request but a GET, which `open_read` authorizes. Raises RequestError."""
        required = STREAM_PERMISSIONS[request.scope["method"]]
        if required is not Permission.READ:
            self.authorizer.check_origin(tenant, request.headers)
        return self.authorizer.authorize(tenant, request.name, required, _credentials(request))

    async def append(self, request: Request, authorization: Authorization) -> Response:
        """POST: append, close, or both."""
        body = await self._read_body(request, authorization)
        command = parse_append(request.name, request.headers, body)
        write = partial(self.store.apply, request.name, plan_write(command, self.clock.now_ms()))
        outcome = await self._write(request, authorization.project, len(body), write)
        if isinstance(outcome, Applied) and isinstance(command, Append):
            note_append(request.scope, len(command.data))
        response = append_response(command, outcome)
        if outcome.head is None or outcome.head.delivered is None:  # most streams have no followers
            return response
        report = await publish_append(self.publisher, command, outcome, self.clock.now_ms())
        fields = () if report is None else fan_out_headers(report)
        return Response(response.status, (*response.headers, *fields), response.parts)

    def _write(
        self, request: Request, project: Project | None, byte_count: int, write: Callable[[], Awaitable[Outcome]]
    ) -> Awaitable[Outcome]:
        """Carry out a write within the project's quota; traced, if requests are. Raises RequestError, StoreError."""
        carried_out = self.authorizer.throttle.write_within_quota(project, byte_count, write)
        exchange = exchange_of(request.scope)
        return exchange.time_write(carried_out) if exchange is not None and exchange.is_traced else carried_out

    async def create(self, request: Request, authorization: Authorization) -> Response:
        """PUT: create a stream or a fork, or confirm an existing one."""
        scope, is_public = request.scope, parse_is_public(request.query)
        root_path: str = scope.get("root_path", "")
        body = await self._read_body(request, authorization)
        command = parse_create(request.name, request.headers, body, is_public=is_public, root_path=root_path)
        if command.fork is not None:
            authorization.require_stream(command.fork.source)
        write = partial(create_stream, self.store, self.clock, command)
        outcome = await self._write(request, authorization.project, len(body), write)
        if isinstance(outcome, Applied) and body:
            note_append(request.scope, len(body))
        return create_response(command, outcome, self._location(request, root_path))

    def _location(self, request: Request, root_path: str) -> bytes:
        """The stream's URL; without a host behind a CDN, whose host is not known here."""
        path: bytes = request.scope["raw_path"]
        if self.is_behind_cdn:
            return path
        scheme = client_scheme(request.headers, request.scope["scheme"].encode())
        return b"%s://%s%s%s" % (scheme, client_host(request.headers) or b"localhost", root_path.encode(), path)

    async def delete(self, request: Request, _authorization: Authorization) -> Response:
        """DELETE."""
        command = parse_delete(request.name, request.headers)
        commit = plan_delete(self.clock.now_ms(), command.preconditions)
        return delete_response(command, await self.store.apply(request.name, commit))

    async def head(self, request: Request, authorization: Authorization) -> Response:
        """HEAD: metadata. It does not count as a use of the stream."""
        head, now_ms = await self.store.head(request.name), self.clock.now_ms()
        authorization.require_visible(head, now_ms)
        if head is None or stream_status(head, now_ms) is not StreamStatus.EXISTS:
            return not_found_or_gone_response(head, now_ms)
        return head_response(head, parse_preconditions(request.headers))

    async def _read(self, request: Request, tenant: Tenant) -> Response | EventStream:
        """GET: a catch-up read, a long-poll or an event stream."""
        read = await open_read(
            self.store,
            self.clock,
            self.authorizer,
            tenant=tenant,
            name=request.name,
            credentials=_credentials(request),
            parse_query=partial(parse_http_read, request.query, request.headers),
        )
        if isinstance(read, Response):
            return read
        head, query = read.head, read.query
        conditions = query.stream_preconditions
        if conditions.if_match is not None and not conditions.matches(stream_etag(head)):
            return rejection_response(precondition_failed(head))
        if query.live is not LiveMode.NONE:
            note_live_read(request.scope, query.live.value)
        match query.live:
            case LiveMode.SSE:
                is_at_end = query.has_seen_end and head.closed and read.position == head.tail
                return sse_end_response(head) if is_at_end else EventStream(read)
            case LiveMode.LONG_POLL:
                return await self._long_poll(request, read)
            case _:
                if query.read_from is ReservedOffset.TAIL:
                    return tail_response(head)
                return await self._page(request, read, head, cursor=None)

    async def _long_poll(self, request: Request, read: OpenedRead) -> Response:
        head = read.head
        if read.position == head.tail and not head.closed:
            changed = await self.live.long_poll(request.receive, read)
            # The stream may have been deleted during the wait, and another one created with its name.
            if changed is None or changed.incarnation != head.incarnation:
                return not_found_or_gone_response(None, self.clock.now_ms())
            if stream_status(changed, self.clock.now_ms()) is not StreamStatus.EXISTS:
                return not_found_or_gone_response(changed, self.clock.now_ms())
            head = changed
        cursor = next_cursor(read.query.cursor, self.clock.now_ms(), self.clock.jitter())
        if read.position == head.tail:
            return long_poll_timeout_response(head, cursor)
        return await self._page(request, read, head, cursor=cursor)

    async def _page(self, request: Request, read: OpenedRead, head: Head, *, cursor: int | None) -> Response:
        """The page at the read's position; `head` may be newer than the read's, and a long-poll has a cursor."""
        query = read.query
        page = await self.live.pages.at(read.name, head, read.position, PAGE_BYTES_MAX)
        is_shared = read.authorization.is_shared(head)
        is_keyed = query.is_cache_safe and query.reader_key is not None and query.reader_key == head.reader_key
        found = PageRead(head, page, cursor, query.page_preconditions, is_shared, is_keyed)
        response = page_response(found, self.clock.now_ms())
        padding = b"" if is_shared else b"x" * int(self.clock.jitter() * PADDING_BYTES_MAX)
        return await self.compression.compress_page(response, request.headers, head, page, padding=padding)

    async def _read_body(self, request: Request, authorization: Authorization) -> bytes:
        """The whole body of a write, decoded. The server disconnects a client that stops sending it.

        Raises RequestError over a limit, or if the request is not authorized any more.
        """
        project, byte_count_max = authorization.project, self.body_bytes_max
        if project is not None and project.limits.body_bytes is not None:
            byte_count_max = min(byte_count_max, project.limits.body_bytes)
        body = await read_body(request.headers.get(b"content-length"), request.receive, byte_count_max)
        note_body(request.scope, len(body))
        body = await decode_body(body, request.headers, byte_count_max)
        await self._authorize_again(request, authorization)
        return body

    async def _authorize_again(self, request: Request, authorization: Authorization) -> None:
        """Authorize a write again whose project has changed, or whose token has expired, while its body came.

        Raises RequestError.
        """
        tenant = self.authorizer.cached_tenant(request.name) or await self.authorizer.find_tenant(request.name)
        is_same = tenant.project == authorization.project and tenant.is_open is (authorization is OPEN_ACCESS)
        if not is_same or authorization.remaining_s(self.clock.now_ms()) == 0:
            self._authorize(request, tenant)


def _other_method_response(method: str, headers: Headers) -> Response:
    """The answer to a preflight, or to a method that streams do not have."""
    if method == "OPTIONS":
        return preflight_response(METHODS, headers)
    allow = (b"allow", METHODS.encode())
    return error_response(405, ErrorCode.METHOD_NOT_ALLOWED, f"a stream has the methods {METHODS}", allow)


def _credentials(request: Request) -> Credentials:
    is_read = STREAM_PERMISSIONS[request.scope["method"]] is Permission.READ
    return Credentials(request.headers.get(b"authorization"), request.token, is_read)


def failure_response(error: Exception, scope: Scope) -> Response:
    """The answer to a request that has raised an error. An unforeseen error is logged, with its traceback."""
    known = response_of(error)
    if known is None:
        fields = {"method": scope["method"], "path": scope["path"], "request_id": request_id_of(scope)}
        log.error("request_failed", extra=fields, exc_info=error)
    return known or internal_error_response()


async def read_body(content_length: bytes | None, receive: Receive, byte_count_max: int) -> bytes:
    """The whole body of a request. Raises RequestError when it is too long, ClientDisconnected."""
    if content_length == b"0":
        return b""
    if content_length is not None and content_length.isdigit() and int(content_length) > byte_count_max:
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


def check_path(path: bytes) -> None:
    """Raise RequestError if a path is longer than the path of any stream."""
    if len(path) > PATH_BYTES_MAX:
        raise RequestError(ErrorCode.PATH_TOO_LONG, f"the path is over {PATH_BYTES_MAX} bytes long", 414)


def parse_name_and_headers(scope: Scope) -> tuple[StreamName, Headers]:
    """The stream that a request is on, and its header fields. Raises RequestError."""
    path: bytes = scope["raw_path"]
    check_path(path)
    return _parse_path(path), singular_headers(scope["headers"])


@lru_cache(maxsize=4_096)
def _parse_path(path: bytes) -> StreamName:
    return parse_name(path[len(STREAM_ROOT_BYTES) :].decode("latin-1"))


def fan_out_headers(report: FanOutReport) -> tuple[Header, ...]:
    """How an append's deliveries went, as far as the publisher has waited for them."""
    return (
        (b"stream-fanout-count", b"%d" % report.count),
        (b"stream-fanout-successes", b"%d" % report.successes),
        (b"stream-fanout-failures", b"%d" % report.failures),
        (b"stream-fanout-mode", report.mode.value.encode()),
    )


Handle = Callable[[StreamsApp, Request, Authorization], Awaitable[Response]]

_HANDLERS: Final[dict[str, Handle]] = {
    "HEAD": StreamsApp.head,
    "PUT": StreamsApp.create,
    "POST": StreamsApp.append,
    "DELETE": StreamsApp.delete,
}
