"""Authorizes requests of control routes before FastAPI sees them.

A table says which permission each route requires; a route that is not in the table requires an operator's token.
"""

import logging
import traceback
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from fastapi import FastAPI
from starlette.routing import Match
from starlette.types import Message, Receive, Scope, Send

from fluvial.access.authorizer import Authorizer, Credentials, Tenant
from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.limits import CONTROL_BODY_BYTES_MAX
from fluvial.model.names import StreamName, parse_name
from fluvial.model.permissions import Permission
from fluvial.server.asgi_send import send_response
from fluvial.server.content_coding import compress_answer, decode_body
from fluvial.server.control.fastapi_errors import RoutePermissions
from fluvial.server.exchange import exchange_of, note_body, note_stream, request_id_of
from fluvial.server.streams import ClientDisconnected, check_path, read_body
from fluvial.wire.cors import cors_headers, error_cors_headers, preflight_response
from fluvial.wire.request import Headers, singular_headers, split_token
from fluvial.wire.response import (
    NO_STORE,
    SECURITY_HEADERS,
    Header,
    error_response,
    internal_error_response,
    response_of,
)

log = logging.getLogger(__name__)

METHODS: Final = "GET, HEAD, PUT, POST, DELETE, OPTIONS"

_STREAM: Final = "{stream:path}"


class _RouteWithPath(Protocol):
    """A route of the framework that has a path with placeholders."""

    path: str


@dataclass(frozen=True, slots=True)
class ControlApp:
    """Passes authorized requests on to the FastAPI application; each route requires its own permission."""

    app: FastAPI
    authorizer: Authorizer
    permissions: RoutePermissions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request, also if it fails."""
        fields: tuple[Header, ...] = ()
        answer_sender: _AnswerSender | None = None
        try:
            headers = singular_headers(scope["headers"])
            is_head = scope["method"] == "HEAD"
            if is_head:  # "the same header fields [...] as it would have sent if the request method had been GET"
                scope = {**scope, "method": "GET"}
            route, scope, methods = self._match_route(scope)
            exchange, name = exchange_of(scope), _stream_name(route, scope)
            if exchange is not None and route is not None:
                exchange.route = route.path
            body = await read_body(headers.get(b"content-length"), receive, CONTROL_BODY_BYTES_MAX)
            body = await decode_body(body, headers, CONTROL_BODY_BYTES_MAX)
            note_body(scope, len(body))
            tenant = await self.authorizer.find_tenant(_tenant_name(name, scope))
            note_stream(scope, name, tenant.project, headers)
            self.authorizer.log_rejected_origin(tenant, headers)
            fields = error_cors_headers(tenant.origins, headers.get(b"origin"))
            if scope["method"] == "OPTIONS":
                response = preflight_response(METHODS, headers)
            elif methods:
                message, allow = f"this path has the methods {methods}", (b"allow", methods.encode())
                response = error_response(405, ErrorCode.METHOD_NOT_ALLOWED, message, allow)
            else:
                authorized = scope if route is None else await self._authorize(route, tenant, name, scope, headers)
                cors = cors_headers(tenant.origins, headers.get(b"origin"))
                answer_sender = _AnswerSender(send, cors, headers if scope["method"] == "GET" else {}, is_head=is_head)
                return await self.app(authorized, partial(_replay_body, [body], receive), answer_sender)
        except ClientDisconnected:
            return None
        except Exception as exc:  # noqa: BLE001  not logged with its text or cause, which may contain a secret
            known = response_of(exc)
            if known is None:
                _log_failure(scope, exc)
            if answer_sender is not None and answer_sender.has_begun:
                return None
            response = known or internal_error_response()
        return await send_response(send, response, fields)

    async def _authorize(
        self, route: _RouteWithPath, tenant: Tenant, name: StreamName | None, scope: Scope, headers: Headers
    ) -> Scope:
        """The scope for FastAPI, with the name and the authorization, and no token in the query. RequestError."""
        query, token = split_token(scope["query_string"])
        credentials = Credentials(headers.get(b"authorization"), token, scope["method"] == "GET")
        required = self.permissions.get((scope["method"], route.path), Permission.ADMINISTER)
        if required in {Permission.WRITE, Permission.MANAGE}:
            self.authorizer.check_origin(tenant, headers)
        if required in {Permission.READ, Permission.WRITE}:
            assert name is not None, "routes of streams and estuaries have a name"
            # Only the project's own tokens give access to an estuary, even if its streams are public.
            shows_public = _STREAM in route.path
            authorization = self.authorizer.authorize(tenant, name, required, credentials, shows_public=shows_public)
        else:
            authorization = await self.authorizer.authorize_control(tenant, required, credentials, name)
        return {**scope, "query_string": query, "fluvial.name": name, "fluvial.authorization": authorization}

    def _match_route(self, scope: Scope) -> tuple[_RouteWithPath | None, Scope, str]:
        """Find the route of a request, and the scope with the values of the path's placeholders.

        Without a route for the method there are the methods that the path has. A preflight matches any method.
        """
        check_path(scope["raw_path"])
        methods = set[str]()
        for route in self.app.router.routes:
            match, child_scope = route.matches(scope)
            if match is Match.FULL or (match is Match.PARTIAL and scope["method"] == "OPTIONS"):
                return route, {**scope, **child_scope}, ""  # type: ignore[return-value]
            if match is Match.PARTIAL:
                methods |= route.methods  # type: ignore[attr-defined]
        if methods:
            methods |= {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
        return None, scope, ", ".join(sorted(methods))


def _log_failure(scope: Scope, error: Exception) -> None:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    location = f"{frame.filename}:{frame.lineno}"
    fields = {"path": scope["path"], "error": type(error).__name__, "place": location}
    log.error("request_failed", extra={**fields, "request_id": request_id_of(scope)})


def _stream_name(route: _RouteWithPath | None, scope: Scope) -> StreamName | None:
    """The name of the stream or estuary in the raw path, where `a%2Fb` is one segment."""
    if route is None or not ("{estuary}" in route.path or _STREAM in route.path):
        return None
    root = route.path.partition("{")[0]
    suffix = route.path.rpartition("}")[2]
    path: str = scope["raw_path"].decode("latin-1")
    if not path.startswith(root) or not path.endswith(suffix):  # the client has percent-encoded the route's own words
        raise RequestError(ErrorCode.MALFORMED_NAME, f"the path must begin with {root} literally")
    return parse_name(path.removeprefix(root).removesuffix(suffix))


def _tenant_name(name: StreamName | None, scope: Scope) -> str | None:
    """A name that begins with the project's, if the path has a project."""
    if name is not None:
        return name
    project: str | None = scope.get("path_params", {}).get("project")
    return project


class _AnswerSender:
    """Wraps `send`: adds header fields to FastAPI's answers, and compresses them if the client accepts that."""

    def __init__(self, send: Send, fields: tuple[Header, ...], headers: Headers, *, is_head: bool) -> None:
        """`fields` are added to the answer. `headers` are the request's, or empty for an uncompressed answer.

        `is_head` drops the body.
        """
        self._send, self._fields, self._headers, self._is_head = send, fields, headers, is_head
        self._start: Message = {}
        self.has_begun = False

    async def __call__(self, message: Message) -> None:
        """Pass on a message. The start waits for the body, which FastAPI sends whole, to decide on compression."""
        if message["type"] == "http.response.start":
            headers = [*message["headers"], *self._fields]
            named = {name for name, _ in headers}
            missing = [field for field in (*SECURITY_HEADERS, NO_STORE) if field[0] not in named]
            self._start = {**message, "headers": [*headers, *missing]}
            return
        if not self.has_begun:
            self.has_begun = True
            start, message = await compress_answer(self._start, message, self._headers)
            await self._send(start)
        await self._send({**message, "body": b""} if self._is_head else message)


async def _replay_body(unread: list[bytes], receive: Receive) -> Message:
    """Return the body, which was read before, as the first message; then receive further messages."""
    if unread:
        return {"type": "http.request", "body": unread.pop(), "more_body": False}
    return await receive()
