"""The door of every route that is not a stream's: what a route needs is in a table, and what is not there is shut."""

import logging
import traceback
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from fastapi import FastAPI
from starlette.routing import Match
from starlette.types import Message, Receive, Scope, Send

from fluvial.access.authorizer import Authorizer, Credentials, Tenant
from fluvial.model.errors import ErrorCode, RequestError, StoreError
from fluvial.model.limits import CONTROL_BODY_BYTES_MAX
from fluvial.model.names import StreamName, parse_name
from fluvial.model.permissions import Permission
from fluvial.server.content_coding import compress_answer, decode_body
from fluvial.server.control.fastapi_errors import Needs
from fluvial.server.streams import ClientDisconnected, check_path, send_response, whole_body
from fluvial.wire.cors import cors_headers, error_cors_headers, preflight_response
from fluvial.wire.request import Headers, singular_headers, split_token
from fluvial.wire.response import (
    NO_STORE,
    SECURITY_HEADERS,
    Header,
    error_response,
    internal_error_response,
    request_error_response,
    store_error_response,
)

log = logging.getLogger(__name__)

METHODS: Final = "GET, HEAD, PUT, POST, DELETE, OPTIONS"

_STREAM: Final = "{stream:path}"


class _Routed(Protocol):
    """A route of the framework's: it has a path with placeholders."""

    path: str


@dataclass(frozen=True, slots=True)
class ControlApp:
    """Lets requests through to the framework's application, each by the need of its route."""

    app: FastAPI
    authorizer: Authorizer
    needs: Needs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request; what goes wrong becomes an answer, too."""
        fields: tuple[Header, ...] = ()
        answering: _Answering | None = None
        try:
            headers = singular_headers(scope["headers"])
            is_head = scope["method"] == "HEAD"
            if is_head:  # "the same header fields [...] as it would have sent if the request method had been GET"
                scope = {**scope, "method": "GET"}
            route, scope, methods = self._routed(scope)
            name = _name(route, scope)
            body = await whole_body(headers.get(b"content-length"), receive, CONTROL_BODY_BYTES_MAX)
            body = await decode_body(body, headers, CONTROL_BODY_BYTES_MAX)
            tenant = await self.authorizer.tenant(_project(name, scope))
            self.authorizer.log_rejected_origin(tenant, headers)
            fields = error_cors_headers(tenant.origins, headers.get(b"origin"))
            if scope["method"] == "OPTIONS":
                response = preflight_response(METHODS, headers)
            elif methods:
                message, allow = f"this path has the methods {methods}", (b"allow", methods.encode())
                response = error_response(405, ErrorCode.METHOD_NOT_ALLOWED, message, allow)
            else:
                asked = scope if route is None else await self._admitted(route, tenant, name, scope, headers)
                told = cors_headers(tenant.origins, headers.get(b"origin"))
                answering = _Answering(send, told, headers if scope["method"] == "GET" else {}, is_head=is_head)
                return await self.app(asked, partial(_received, [body], receive), answering)
        except RequestError as exc:
            response = request_error_response(exc)
        except StoreError as exc:
            response = store_error_response(exc)
        except ClientDisconnected:
            return None
        except Exception as exc:  # noqa: BLE001  its text, and what it came from, may have a secret in it
            _log_failure(scope, exc)
            if answering is not None and answering.has_begun:
                return None
            response = internal_error_response()
        response.headers.extend(fields)
        return await send_response(send, response)

    async def _admitted(
        self, route: _Routed, tenant: Tenant, name: StreamName | None, scope: Scope, headers: Headers
    ) -> Scope:
        """What the framework gets of a request that is let in: its name, its permit, and no token. RequestError."""
        query, token = split_token(scope["query_string"])
        credentials = Credentials(headers.get(b"authorization"), token, scope["method"] == "GET")
        need = self.needs.get((scope["method"], route.path), Permission.ADMINISTER)
        if need in {Permission.WRITE, Permission.MANAGE}:
            self.authorizer.check_origin(tenant, headers)
        if need in {Permission.READ, Permission.WRITE}:
            assert name is not None, "what is read or written has a name"
            # An estuary is nobody's but its project's.
            permit = self.authorizer.permit(tenant, name, need, credentials, shows_public=False)
        else:
            permit = await self.authorizer.control(tenant, need, credentials, name)
        return {**scope, "query_string": query, "fluvial.name": name, "fluvial.permit": permit}

    def _routed(self, scope: Scope) -> tuple[_Routed | None, Scope, str]:
        """The route of a request, the scope with what its path has in the placeholders, and the path's methods.

        No route when there is none for the method. A preflight is for any.
        """
        check_path(scope["raw_path"])
        methods = set[str]()
        for route in self.app.router.routes:
            match, found = route.matches(scope)
            if match is Match.FULL or (match is Match.PARTIAL and scope["method"] == "OPTIONS"):
                return route, {**scope, **found}, ""  # type: ignore[return-value]
            if match is Match.PARTIAL:
                methods |= route.methods  # type: ignore[attr-defined]
        if methods:
            methods |= {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
        return None, scope, ", ".join(sorted(methods))


def _log_failure(scope: Scope, error: Exception) -> None:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{frame.filename}:{frame.lineno}"
    log.error("request_failed", extra={"path": scope["path"], "error": type(error).__name__, "place": place})


def _name(route: _Routed | None, scope: Scope) -> StreamName | None:
    """The stream or estuary that the path names, as it was sent: `a%2Fb` is one segment."""
    if route is None or not ("{estuary}" in route.path or _STREAM in route.path):
        return None
    root, _, rest = route.path.partition("{project}")
    suffix = rest.removeprefix("/{estuary}").removeprefix("/" + _STREAM)
    path: str = scope["raw_path"].decode("latin-1")
    if not path.startswith(root) or not path.endswith(suffix):  # its words were sent percent-encoded
        raise RequestError(ErrorCode.MALFORMED_NAME, f"the path must begin with {root}, spelt as it is")
    return parse_name(path.removeprefix(root).removesuffix(suffix))


def _project(name: StreamName | None, scope: Scope) -> str | None:
    if name is not None:
        return name
    project: str | None = scope.get("path_params", {}).get("project")
    return project


class _Answering:
    """A way to send that adds fields to the answer, and what the framework's own answers lack."""

    def __init__(self, send: Send, fields: tuple[Header, ...], headers: Headers, *, is_head: bool) -> None:
        """`headers` are those of a request whose answer may be compressed; one to HEAD has no body."""
        self._send, self._fields, self._headers, self._is_head = send, fields, headers, is_head
        self._start: Message = {}
        self.has_begun = False

    async def __call__(self, message: Message) -> None:
        """Pass a part of the answer on; its start waits for the body, which comes whole."""
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


async def _received(rest: list[bytes], receive: Receive) -> Message:
    """The body that was read already; after it what the connection tells."""
    if rest:
        return {"type": "http.request", "body": rest.pop(), "more_body": False}
    return await receive()
