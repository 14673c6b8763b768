"""Live reads over a WebSocket: `GET /v1/stream/…?live=websocket&offset=…`, upgraded (docs/websocket.md).

Errors before the connection is accepted are answered over HTTP, as those of a GET are. After that the close code tells
why the connection ends.
"""

import logging
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from cachetools import LRUCache
from starlette.types import Receive, Scope, Send

from fluvial.access.authorizer import Authorizer, Credentials, Tenant
from fluvial.model.errors import ErrorCode, StoreUnavailable
from fluvial.model.head import Head, Incarnation
from fluvial.model.names import StreamName
from fluvial.model.page import Page
from fluvial.operations.open_read import OpenedRead, open_read
from fluvial.server.asgi_send import send_response
from fluvial.server.exchange import note_live_read, note_stream, request_id_of
from fluvial.server.live_reads import LiveRead, LiveReads
from fluvial.server.streams import parse_name_and_headers
from fluvial.wire.cors import error_cors_headers
from fluvial.wire.http_head import check_subprotocols
from fluvial.wire.request import Headers, LiveMode, parse_websocket_read, split_token
from fluvial.wire.response import Header, Response, error_response, internal_error_response, response_of
from fluvial.wire.websocket_messages import PONG, is_ping, page_messages

log = logging.getLogger(__name__)

#: Encoded pages that readers of one stream share. The messages of a larger page would evict many others.
MESSAGE_CACHE_BYTES: Final = 16 * 1_048_576
CACHED_PAGE_BYTES_MAX: Final = 1_048_576

#: A connection ends after two hours, as on API Gateway; its client reconnects with its last offset.
SOCKET_AGE_S_MAX: Final = 7_200.0

#: Close codes (RFC 6455, section 7.4.1, and IANA's registry).
NORMAL: Final = 1000
SERVICE_RESTART: Final = 1012
UNSUPPORTED: Final = 1003
ABNORMAL: Final = 1006
POLICY_VIOLATION: Final = 1008
INTERNAL: Final = 1011

_MessagesKey = tuple[Incarnation, int, int, bool, bool]


@dataclass(slots=True)
class _Connection:
    """A client's connection: whether the handshake was accepted, and the code to close it with."""

    receive: Receive
    send: Send
    is_accepted: bool = False
    close_code: int = NORMAL

    async def listen(self, live_read: LiveRead) -> None:
        """Answer the client's pings. Interrupt the read when the client disconnects or sends anything else."""
        while (message := await self.receive())["type"] != "websocket.disconnect":
            if message["type"] != "websocket.receive":
                continue  # the handshake
            if not is_ping(message.get("text")):
                self.close_code = UNSUPPORTED
                break
            await self.send({"type": "websocket.send", "text": PONG})
        else:
            self.close_code = ABNORMAL
        live_read.interrupt()


@dataclass(frozen=True, slots=True)
class WebSocketApp:
    """Every WebSocket below /v1/stream/."""

    live: LiveReads
    authorizer: Authorizer
    _messages: LRUCache[_MessagesKey, tuple[str, ...]] = field(
        default_factory=lambda: LRUCache(MESSAGE_CACHE_BYTES, getsizeof=lambda messages: sum(map(len, messages)))
    )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one handshake, and send the stream's pages until the stream, the read or the connection ends."""
        cors, connection = tuple[Header, ...](), _Connection(receive, send)
        name: StreamName | None = None
        try:
            name, headers = parse_name_and_headers(scope)
            tenant = await self.authorizer.find_tenant(name)
            cors = error_cors_headers(tenant.origins, headers.get(b"origin"))
            note_stream(scope, name, tenant.project, headers)
            note_live_read(scope, LiveMode.WEBSOCKET.value)
            read = await self._open_read(scope, tenant, name, headers)
            if isinstance(read, Response):
                return await _refuse_handshake(send, read, cors)
            await self._serve(read, connection)
        except Exception as exc:
            response = response_of(exc)
            if connection.is_accepted or response is None:
                log.exception("socket_failed", extra={"stream": name, "request_id": request_id_of(scope)})
            if not connection.is_accepted:
                return await _refuse_handshake(send, response or internal_error_response(), cors)
            connection.close_code = INTERNAL
        if connection.close_code != ABNORMAL:
            await send({"type": "websocket.close", "code": connection.close_code})
        return None

    async def _open_read(
        self, scope: Scope, tenant: Tenant, name: StreamName, headers: Headers
    ) -> OpenedRead | Response:
        query, token = split_token(scope["query_string"])
        self.authorizer.check_origin(tenant, headers)
        check_subprotocols(headers)
        return await open_read(
            self.live.store,
            self.live.clock,
            self.authorizer,
            tenant=tenant,
            name=name,
            credentials=Credentials(headers.get(b"authorization"), token, is_read=True),
            parse_query=partial(parse_websocket_read, query),
        )

    async def _serve(self, read: OpenedRead, connection: _Connection) -> None:
        """Accept the connection, send the stream's pages, and set the close code.

        Before the connection is accepted this raises RequestError over a limit, StreamVanished or a StoreError:
        StoreUnavailable also when the server stops.
        """
        async with self.live.register(read.name, read.authorization, connection.listen):
            page = await self.live.load_first_page(read)
            connection.is_accepted = True
            await connection.send({"type": "websocket.accept"})
            await self._send_pages(read, page, connection.send)
        if connection.close_code != NORMAL:
            return
        if not connection.is_accepted:
            raise StoreUnavailable
        if read.authorization.remaining_s(self.live.clock.now_ms()) == 0:
            connection.close_code = POLICY_VIOLATION  # the token has expired
        elif self.live.has_lost_access(read.authorization):
            connection.close_code = POLICY_VIOLATION  # the server is not open any more
        elif self.live.is_stopping:
            connection.close_code = SERVICE_RESTART

    async def _send_pages(self, read: OpenedRead, page: Page, send: Send) -> None:
        is_first = True
        async for head, next_page, _ in self.live.follow(read, page, SOCKET_AGE_S_MAX):
            # The empty pages that keep an event stream alive are not sent: a client of a WebSocket sends pings.
            if is_first or next_page.data or head.closed:
                for message in self._page_messages(head, next_page):
                    await send({"type": "websocket.send", "text": message})
            is_first = False

    def _page_messages(self, head: Head, page: Page) -> tuple[str, ...]:
        """A page's messages, encoded once for all readers."""
        is_at_tail = page.end == head.tail
        key = (head.incarnation, page.start, page.end, is_at_tail, is_at_tail and head.closed)
        messages = self._messages.get(key)
        if messages is None:
            messages = page_messages(head, page)
            if len(page.data) <= CACHED_PAGE_BYTES_MAX:
                self._messages[key] = messages
        return messages


async def _refuse_handshake(send: Send, response: Response, cors: tuple[Header, ...]) -> None:
    """Answer a handshake over HTTP."""
    headers = (*response.headers, *cors)
    await send({"type": "websocket.http.response.start", "status": response.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": response.body})


async def reject_cdn_bypass(scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer a request that did not come through the CDN."""
    response = error_response(403, ErrorCode.NOT_THROUGH_THE_CDN, "this server is reached through its CDN alone")
    if scope["type"] == "websocket":
        await _refuse_handshake(send, response, ())
    else:
        await send_response(send, response)


async def reject_websocket_path(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer a handshake on a path other than a stream's."""
    await _refuse_handshake(send, error_response(404, ErrorCode.NOT_FOUND, "WebSockets are below /v1/stream/"), ())
