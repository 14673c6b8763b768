"""Serves the protocol's own routes: every request below `__ds` in a stream root (spec 6 and 7).

Rules:
1. A request is authorized before its body is looked at: by a token of the project, or by the wake's own token. The
   public keys need none.
2. A narrow token covers the routes below its path, e.g. `__ds/subscriptions/a/` for the workers of one subscription.
3. On a server with projects, a client without a valid token learns of no subscription whether it exists.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs, quote

import msgspec
from msgspec.structs import replace
from starlette.types import Receive, Scope, Send

from fluvial.access.authorizer import Credentials, Tenant
from fluvial.access.wake_tokens import NOT_OF_THIS_SUBSCRIPTION, find_wake_token, invalid_wake_token
from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.limits import SUBSCRIPTION_BODY_BYTES_MAX
from fluvial.model.names import STREAM_ROOT, StreamName
from fluvial.model.permissions import Permission
from fluvial.model.subscriptions.configuration import SubscriptionType, parse_subscription_id
from fluvial.model.subscriptions.moves import Refusal
from fluvial.model.subscriptions.state import Subscription
from fluvial.server.asgi_send import send_response
from fluvial.server.content_coding import decode_body
from fluvial.server.exchange import exchange_of, note_body, note_stream
from fluvial.server.streams import (
    UNAUTHORIZED,
    ClientDisconnected,
    StreamsApp,
    check_path,
    failure_response,
    read_body,
)
from fluvial.subscriptions.receivers import WebhookSigner
from fluvial.subscriptions.service import REFUSAL_STATUS, Place, SubscriptionService, WakeCall
from fluvial.wire.cors import cors_headers, error_cors_headers, preflight_response
from fluvial.wire.forwarded import client_host, client_scheme
from fluvial.wire.request import Headers, singular_headers, split_token
from fluvial.wire.response import (
    NO_STORE,
    SECURITY_HEADERS,
    Header,
    Response,
    error_response,
)
from fluvial.wire.subscription_paths import ControlPath, Route, find_root, parse_control_path
from fluvial.wire.subscriptions import (
    claim_fields,
    id_text,
    parse_configuration,
    parse_streams,
    parse_wake_request,
    parse_worker,
    refusal_fields,
    subscription_fields,
)

T = TypeVar("T")

#: What each method of each route requires. NOTHING: the wake's token is checked instead, or the keys are public.
PERMISSIONS: Final[Mapping[Route, Mapping[str, Permission]]] = {
    Route.KEYS: {"GET": Permission.NOTHING},
    Route.SUBSCRIPTIONS: {"GET": Permission.READ},
    Route.SUBSCRIPTION: {"PUT": Permission.WRITE, "GET": Permission.READ, "DELETE": Permission.WRITE},
    Route.STREAMS: {"POST": Permission.WRITE},
    Route.STREAM: {"DELETE": Permission.WRITE},
    Route.CALLBACK: {"POST": Permission.NOTHING},
    Route.CLAIM: {"POST": Permission.WRITE},
    Route.ACK: {"POST": Permission.NOTHING},
    Route.RELEASE: {"POST": Permission.NOTHING},
}

#: The routes of workers, which the wake's own token opens.
_WORKERS: Final = frozenset({Route.CALLBACK, Route.ACK, Route.RELEASE})

#: Subscriptions of one page of the list.
LISTED_MAX: Final = 100

#: A body of so many bytes is parsed within a millisecond or two.
_PARSED_AT_ONCE_MAX: Final = 4_096

_JSON: Final[Header] = (b"content-type", b"application/json")
_NO_SUBSCRIPTIONS: Final = "the store of this server keeps no subscriptions"


@dataclass(frozen=True, slots=True)
class ServedSubscriptions:
    """What serves subscriptions: the operations, the keys, and the URL that clients use, if it is configured."""

    service: SubscriptionService
    signer: WebhookSigner
    public_url: str = ""


@dataclass(frozen=True, slots=True)
class _Request:
    """A request that is authorized, with its whole body."""

    at: ControlPath
    place: Place
    headers: Headers
    query: bytes
    body: bytes


class SubscriptionsApp:
    """Every HTTP request below `__ds`."""

    def __init__(self, streams: StreamsApp, served: ServedSubscriptions | None) -> None:
        """`served` is None on a store that keeps no subscriptions: every route is answered with 501."""
        self._streams, self._served, self._authorizer = streams, served, streams.authorizer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; one that is on a stream after all is passed on."""
        cors: tuple[Header, ...] = ()
        is_head = scope["method"] == "HEAD"
        try:
            path: bytes = scope["raw_path"]
            check_path(path)
            headers = singular_headers(scope["headers"])
            tenant = await self._authorizer.find_tenant(path[len(STREAM_ROOT) :].decode("latin-1"))
            found = find_root(path, has_projects=not tenant.is_open)
            if found is None:
                return await self._streams(scope, receive, send)
            note_stream(scope, None, tenant.project, headers)
            self._authorizer.log_rejected_origin(tenant, headers)
            if is_head:  # "the same header fields [...] as it would have sent if the request method had been GET"
                scope = {**scope, "method": "GET"}
            method, origin = scope["method"], headers.get(b"origin")
            cors = (error_cors_headers if method == "OPTIONS" else cors_headers)(tenant.origins, origin)
            root, rest = found
            response = await self._answer(scope, receive, headers, tenant, (root, parse_control_path(rest)))
        except ClientDisconnected:
            return None
        except asyncio.CancelledError:
            if self._streams.live.is_stopping:  # the server has waited long enough for this request
                return None
            raise
        except Exception as exc:  # noqa: BLE001  `failure_response` logs what is unforeseen
            response = failure_response(exc, scope)
            if response.status in UNAUTHORIZED:
                cors = error_cors_headers(tenant.origins, headers.get(b"origin"))
        if is_head:
            response = Response(response.status, response.headers)
        return await send_response(send, response, cors)

    async def _answer(
        self, scope: Scope, receive: Receive, headers: Headers, tenant: Tenant, where: tuple[str, ControlPath]
    ) -> Response:
        (root, at), method, exchange = where, scope["method"], exchange_of(scope)
        if exchange is not None:
            exchange.route = STREAM_ROOT + at.route.value
        permissions = PERMISSIONS[at.route]
        methods = ", ".join((*permissions, "OPTIONS"))
        if method == "OPTIONS":
            return preflight_response(methods, headers)
        if method not in permissions:
            message, allow = f"this path has the methods {methods}", (b"allow", methods.encode())
            return error_response(405, ErrorCode.METHOD_NOT_ALLOWED, message, allow)
        query, token = split_token(scope["query_string"])
        if permissions[method] is not Permission.NOTHING:
            credentials = Credentials(headers.get(b"authorization"), token, method == "GET")
            self._authorize(tenant, root, at, permissions[method], (headers, credentials))
        if self._served is None:
            return error_response(501, ErrorCode.NOT_IMPLEMENTED, _NO_SUBSCRIPTIONS)
        owner = 0 if tenant.project is None else tenant.project.incarnation
        place = Place(root, owner, self._base_url(scope, headers))
        handle, is_workers = _HANDLERS[method, at.route], at.route in _WORKERS
        try:
            if is_workers:
                if not tenant.is_open:
                    find_wake_token(headers.get(b"authorization"))  # its absence is told first, whatever exists
                await self._served.service.check_token(place, at.subscription_id, headers.get(b"authorization"))
            body = await read_body(headers.get(b"content-length"), receive, SUBSCRIPTION_BODY_BYTES_MAX)
            note_body(scope, len(body))
            body = await decode_body(body, headers, SUBSCRIPTION_BODY_BYTES_MAX)
            return await handle(self._served, _Request(at, place, headers, query, body))
        except RequestError as exc:
            if not tenant.is_open and is_workers and exc.code is ErrorCode.SUBSCRIPTION_NOT_FOUND:
                raise invalid_wake_token(NOT_OF_THIS_SUBSCRIPTION) from exc
            raise

    def _authorize(
        self, tenant: Tenant, root: str, at: ControlPath, required: Permission, sent: tuple[Headers, Credentials]
    ) -> None:
        """Authorize a request by a token of the project. Raises RequestError."""
        headers, credentials = sent
        if required is not Permission.READ:
            self._authorizer.check_origin(tenant, headers)
        # To say which streams are a subscription's is to change the subscription: a worker's narrow token does not
        # cover it, as it does not cover `PUT`.
        route = Route.SUBSCRIPTION if at.route in {Route.STREAMS, Route.STREAM} else at.route
        path = route.value.replace("{id}", at.subscription_id)
        self._authorizer.authorize_reserved(tenant, StreamName(root + path), required, credentials)

    def _base_url(self, scope: Scope, headers: Headers) -> str:
        """The part of the server's URL before `/v1/stream/`; empty if it is not known."""
        if self._served is not None and self._served.public_url:
            return self._served.public_url
        if self._streams.is_behind_cdn:
            return ""
        scheme = client_scheme(headers, scope["scheme"].encode())
        host = client_host(headers) or b"localhost"
        return f"{scheme.decode()}://{host.decode('latin-1')}{scope.get('root_path', '')}"


def json_response(status: int, value: object, *headers: Header) -> Response:
    """A JSON body; never cached unless `headers` say otherwise."""
    body = msgspec.json.encode(value)
    length = (b"content-length", b"%d" % len(body))
    fields = headers or (_JSON, NO_STORE)
    return Response(status, (*SECURITY_HEADERS, *fields, length), (body,))


def _no_content() -> Response:
    return Response(204, (*SECURITY_HEADERS, NO_STORE))


def _refusal_response(refusal: Refusal) -> Response:
    return json_response(REFUSAL_STATUS.get(refusal.code, 409), refusal_fields(refusal))


async def _parse(parse: Callable[[bytes], T], body: bytes) -> T:
    """Parse a body; in a thread if it may have so many paths that the event loop would wait for them."""
    return parse(body) if len(body) <= _PARSED_AT_ONCE_MAX else await asyncio.to_thread(parse, body)


async def _show_keys(served: ServedSubscriptions, _request: _Request) -> Response:
    content_type = (b"content-type", b"application/jwk-set+json")
    return json_response(200, await served.signer.jwks(), content_type, (b"cache-control", b"public, max-age=300"))


async def _list(served: ServedSubscriptions, request: _Request) -> Response:
    asked = parse_qs(request.query.decode("latin-1"), keep_blank_values=True)
    after = asked.get("after", [""])[0]
    if after:  # an id, as bodies have it
        after = parse_subscription_id(quote(after, safe=""))
    found = await served.service.list_after(request.place, after, LISTED_MAX + 1)
    listed = [
        {"id": id_text(one.id), "type": one.configuration.type.value, "status": "failed" if one.is_failed else "active"}
        for one in found[:LISTED_MAX]
    ]
    fields: dict[str, Any] = {"subscriptions": listed}
    if len(found) > LISTED_MAX:
        fields["next"] = listed[-1]["id"]
    return json_response(200, fields)


async def _create(served: ServedSubscriptions, request: _Request) -> Response:
    configuration = await _parse(parse_configuration, request.body)
    if configuration.type is SubscriptionType.WEBHOOK and not request.place.base_url:
        message = "the server does not know its own URL, which webhooks need: see --public-url"
        raise RequestError(ErrorCode.INVALID_SUBSCRIPTION_REQUEST, message)
    created = await served.service.create(request.place, request.at.subscription_id, configuration)
    kid = await served.signer.active_kid()
    return json_response(201 if created.is_new else 200, _fields(served, created.subscription, kid))


def _fields(served: ServedSubscriptions, subscription: Subscription, kid: str) -> dict[str, Any]:
    """The body of a subscription. A URL that is configured counts, and not the one that was known at the creation."""
    if served.public_url:
        subscription = replace(subscription, base_url=served.public_url)
    return subscription_fields(subscription, kid)


async def _show(served: ServedSubscriptions, request: _Request) -> Response:
    shown = await served.service.show(request.place, request.at.subscription_id)
    return json_response(200, _fields(served, shown, await served.signer.active_kid()))


async def _delete(served: ServedSubscriptions, request: _Request) -> Response:
    await served.service.delete(request.place, request.at.subscription_id)
    return _no_content()


async def _add_streams(served: ServedSubscriptions, request: _Request) -> Response:
    streams = await _parse(parse_streams, request.body)
    await served.service.add_streams(request.place, request.at.subscription_id, streams)
    return _no_content()


async def _remove_stream(served: ServedSubscriptions, request: _Request) -> Response:
    assert request.at.path is not None, "the route has a path"
    await served.service.remove_stream(request.place, request.at.subscription_id, request.at.path)
    return _no_content()


async def _claim(served: ServedSubscriptions, request: _Request) -> Response:
    claimed = await served.service.claim(request.place, request.at.subscription_id, parse_worker(request.body))
    if isinstance(claimed, Refusal):
        return _refusal_response(claimed)
    wake = claimed.subscription.wake
    assert wake is not None, "a claim is of a wake"
    return json_response(200, claim_fields(claimed.subscription, wake, claimed.token))


async def _acknowledge(served: ServedSubscriptions, request: _Request) -> Response:
    is_callback = request.at.route is Route.CALLBACK
    kind = SubscriptionType.WEBHOOK if is_callback else SubscriptionType.PULL_WAKE
    result = await served.service.acknowledge(request.place, request.at.subscription_id, _wake_call(request, kind))
    if isinstance(result, Refusal):
        return _refusal_response(result)
    return json_response(200, {"ok": True, "next_wake": result})


async def _release(served: ServedSubscriptions, request: _Request) -> Response:
    call = _wake_call(request, SubscriptionType.PULL_WAKE)
    refusal = await served.service.release(request.place, request.at.subscription_id, call)
    return _no_content() if refusal is None else _refusal_response(refusal)


def _wake_call(request: _Request, kind: SubscriptionType) -> WakeCall:
    return WakeCall(parse_wake_request(request.body), request.headers.get(b"authorization"), kind)


_Handle = Callable[[ServedSubscriptions, _Request], Awaitable[Response]]

_HANDLERS: Final[dict[tuple[str, Route], _Handle]] = {
    ("GET", Route.KEYS): _show_keys,
    ("GET", Route.SUBSCRIPTIONS): _list,
    ("PUT", Route.SUBSCRIPTION): _create,
    ("GET", Route.SUBSCRIPTION): _show,
    ("DELETE", Route.SUBSCRIPTION): _delete,
    ("POST", Route.STREAMS): _add_streams,
    ("DELETE", Route.STREAM): _remove_stream,
    ("POST", Route.CALLBACK): _acknowledge,
    ("POST", Route.CLAIM): _claim,
    ("POST", Route.ACK): _acknowledge,
    ("POST", Route.RELEASE): _release,
}
