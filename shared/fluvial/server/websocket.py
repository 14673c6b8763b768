"""Live reads over a WebSocket: `GET /v1/stream/…?live=websocket&offset=…`, upgraded (docs/websocket.md)."""

import logging
from dataclasses import dataclass, field
from typing import Final

from cachetools import LRUCache
from starlette.types import Receive, Scope, Send

from fluvial.access.authorizer import Authorizer, Credentials, Tenant, check_anonymous
from fluvial.model.commit import Unmet
from fluvial.model.errors import ErrorCode, FluvialError, RequestError, StoreError, StoreUnavailable, StreamVanished
from fluvial.model.head import Head, Incarnation
from fluvial.model.names import StreamName
from fluvial.model.page import Page
from fluvial.model.permissions import Permission
from fluvial.operations.open_read import load_head_and_renew, resolve_position
from fluvial.server.live_reads import KEPT_EVENT_BYTES_MAX, LiveReadRequest, LiveReads, OpenRead
from fluvial.server.streams import name_and_headers, send_response
from fluvial.wire.cors import error_cors_headers
from fluvial.wire.http_head import check_subprotocols
from fluvial.wire.request import Headers, parse_socket_read, split_token
from fluvial.wire.response import (
    Header,
    Response,
    error_response,
    not_found_or_gone_response,
    request_error_response,
    store_error_response,
)
from fluvial.wire.websocket_messages import PONG, is_ping, page_messages

log = logging.getLogger(__name__)

#: Encoded pages that readers may be about to share.
FRAME_CACHE_BYTES: Final = 16 * 1_048_576

#: A connection ends after two hours, as on API Gateway; its client comes back with its last offset.
SOCKET_AGE_S_MAX: Final = 7_200.0

#: Close codes (RFC 6455, section 7.4.1, and IANA's registry).
NORMAL: Final = 1000
SERVICE_RESTART: Final = 1012
UNSUPPORTED: Final = 1003
ABNORMAL: Final = 1006
POLICY_VIOLATION: Final = 1008
INTERNAL: Final = 1011

_FrameKey = tuple[Incarnation, int, int, bool, bool]


class _NotBegun(FluvialError):
    """The handshake ends in an answer by HTTP."""

    def __init__(self, response: Response) -> None:
        super().__init__(str(response.status))
        self.response = response


@dataclass(frozen=True, slots=True)
class WebSocketApp:
    """Every WebSocket below /v1/stream/."""

    live: LiveReads
    authorizer: Authorizer
    _frames: LRUCache[_FrameKey, tuple[str, ...]] = field(
        default_factory=lambda: LRUCache(FRAME_CACHE_BYTES, getsizeof=lambda frames: sum(map(len, frames)))
    )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one handshake, and send what comes until the stream or the connection ends."""
        fields: tuple[Header, ...] = ()
        try:
            name, headers = name_and_headers(scope)
            tenant = await self.authorizer.tenant(name)
            fields = error_cors_headers(tenant.origins, headers.get(b"origin"))
            subscription = await self._subscription(scope, tenant, name, headers)
        except RequestError as exc:
            subscription = request_error_response(exc)
        except StoreError as exc:
            subscription = store_error_response(exc)
        if isinstance(subscription, Response):
            await _refuse(send, subscription, fields)
            return
        code = INTERNAL
        try:
            code = await self._served(subscription, receive, send)
        except _NotBegun as exc:
            await _refuse(send, exc.response, fields)
            return
        except Exception:
            log.exception("socket_failed", extra={"stream": subscription.name})
        if code != ABNORMAL:
            await send({"type": "websocket.close", "code": code})

    async def _subscription(
        self, scope: Scope, tenant: Tenant, name: StreamName, headers: Headers
    ) -> LiveReadRequest | Response:
        query, token = split_token(scope["query_string"])
        self.authorizer.check_origin(tenant, headers)
        check_subprotocols(headers)
        credentials = Credentials(headers.get(b"authorization"), token, reads=True)
        permit = self.authorizer.permit(tenant, name, Permission.READ, credentials)
        try:
            read = parse_socket_read(query)
        except RequestError:
            await check_anonymous(self.live.store, self.live.clock, name, permit)
            raise
        head = await load_head_and_renew(self.live.store, self.live.clock, name, permit.check)
        if isinstance(head, Unmet):
            return not_found_or_gone_response(head.head, self.live.clock.now_ms())
        return LiveReadRequest(name, head, resolve_position(head, read.read_from), None, permit)

    async def _served(self, subscription: LiveReadRequest, receive: Receive, send: Send) -> int:
        """Send a stream's pages; the code to close with."""
        code = NORMAL

        async def listen(read: OpenRead) -> None:
            """Answer the client's pings, until it goes or says something else."""
            nonlocal code
            while (message := await receive())["type"] != "websocket.disconnect":
                if message["type"] != "websocket.receive":
                    continue  # the handshake
                if not is_ping(message.get("text")):
                    code = UNSUPPORTED
                    break
                await send({"type": "websocket.send", "text": PONG})
            else:
                code = ABNORMAL
            read.interrupt()

        has_begun = False
        try:
            async with self.live.opened(listen, subscription.permit):
                page = await self.live.first_page(subscription)
                has_begun = True
                await send({"type": "websocket.accept"})
                await self._send_pages(subscription, page, send)
        except (RequestError, StoreError, StreamVanished) as exc:
            if has_begun:
                raise
            raise _NotBegun(_answer_to(exc, self.live.clock.now_ms())) from exc
        if code != NORMAL:
            return code
        if not has_begun:
            raise _NotBegun(store_error_response(StoreUnavailable()))  # the server stops
        if subscription.permit.remaining_s(self.live.clock.now_ms()) == 0 or self.live.has_lost(subscription.permit):
            return POLICY_VIOLATION  # the token has expired, or one is needed now
        return SERVICE_RESTART if self.live.is_stopping else NORMAL

    async def _send_pages(self, subscription: LiveReadRequest, page: Page, send: Send) -> None:
        is_first = True
        async for head, found, _ in self.live.following(subscription, page, SOCKET_AGE_S_MAX):
            if not (is_first or found.data or head.closed):
                continue
            is_first = False
            for frame in self._encoded(head, found):
                await send({"type": "websocket.send", "text": frame})

    def _encoded(self, head: Head, page: Page) -> tuple[str, ...]:
        """The messages of a page, shared by all who read it now."""
        is_at_tail = page.end == head.tail
        key = (head.incarnation, page.start, page.end, is_at_tail, is_at_tail and head.closed)
        frames = self._frames.get(key)
        if frames is None:
            frames = page_messages(head, page)
            if len(page.data) <= KEPT_EVENT_BYTES_MAX:
                self._frames[key] = frames
        return frames


def _answer_to(error: RequestError | StoreError | StreamVanished, now_ms: int) -> Response:
    match error:
        case RequestError():
            return request_error_response(error)
        case StoreError():
            return store_error_response(error)
        case StreamVanished():
            return not_found_or_gone_response(None, now_ms)


async def _refuse(send: Send, response: Response, fields: tuple[Header, ...]) -> None:
    """Answer a handshake with plain HTTP."""
    headers = [*response.headers, *fields]
    await send({"type": "websocket.http.response.start", "status": response.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": response.body})


async def reject_cdn_bypass(scope: Scope, send: Send) -> None:
    """Answer what did not come through the CDN."""
    response = error_response(403, ErrorCode.NOT_THROUGH_THE_CDN, "this server is reached through its CDN alone")
    if scope["type"] == "websocket":
        await _refuse(send, response, ())
    else:
        await send_response(send, response)


async def reject_websocket_path(_scope: Scope, _receive: Receive, send: Send) -> None:
    """A handshake on a path that is no stream's."""
    await _refuse(send, error_response(404, ErrorCode.NOT_FOUND, "WebSockets are below /v1/stream/"), ())
