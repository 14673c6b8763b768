"""The protocol over ASGI: no framework between the server and the store.

A framework's routing and dependency injection cost more than all the work of an append (docs/decisions/0003).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from starlette.types import Receive, Scope, Send

from fluvial.core.command import Append, Close, Delete
from fluvial.core.commit import Applied, Outcome, Unmet
from fluvial.core.content_type import is_text
from fluvial.core.cursor import next_cursor
from fluvial.core.errors import ErrorCode, FluvialError, RefusedRequest, StoreError, StreamVanished
from fluvial.core.head import Head, Life, life_of
from fluvial.core.limits import PAGE_BYTES_MAX, PATH_BYTES_MAX
from fluvial.core.names import STREAM_ROOT, StreamName, parse_name
from fluvial.core.offset import Sentinel
from fluvial.core.plan import plan_append, plan_close, plan_delete
from fluvial.core.request import (
    Headers,
    LiveMode,
    parse_append,
    parse_create,
    parse_read,
    singular_headers,
)
from fluvial.core.response import (
    SECURITY_HEADERS,
    Header,
    PageRead,
    Response,
    append_response,
    create_response,
    delete_response,
    error_response,
    head_response,
    no_news_response,
    not_live_response,
    page_response,
    refused_response,
    store_error_response,
    tail_response,
)
from fluvial.fanout.delivering import Source
from fluvial.fanout.publishing import FanOutReport, Publisher
from fluvial.operations.creating import create
from fluvial.operations.reading import page_at, position_in, used_head
from fluvial.stores.contract import Store
from fluvial.transports.bodies import send_parts
from fluvial.transports.live import LiveReads, Subscription
from fluvial.world import World

log = logging.getLogger(__name__)

STREAM_ROOT_BYTES: Final = STREAM_ROOT.encode()

METHODS: Final = "GET, HEAD, PUT, POST, DELETE, OPTIONS"

#: What a server that only reads answers.
SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")
_ALLOWED: Final = (
    b"Content-Type, Authorization, If-None-Match, Stream-Seq, Stream-TTL, Stream-Expires-At, Stream-Closed, "
    b"Stream-Forked-From, Stream-Fork-Offset, Stream-Fork-Sub-Offset, Producer-Id, Producer-Epoch, Producer-Seq"
)
_PREFLIGHT: Final[list[Header]] = [
    *SECURITY_HEADERS,
    (b"access-control-allow-methods", METHODS.encode()),
    (b"access-control-allow-headers", _ALLOWED),
    (b"access-control-max-age", b"86400"),
]

_SSE_HEADERS: Final[list[Header]] = [
    *SECURITY_HEADERS,
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
]


class _ClientLeft(FluvialError):
    """The client hung up before its request was whole: there is nobody to answer."""


@dataclass(frozen=True, slots=True)
class StreamsApp:
    """Every request below /v1/stream/."""

    store: Store
    world: World
    live: LiveReads
    publisher: Publisher
    body_bytes_max: int

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request; what goes wrong becomes an answer, too."""
        try:
            handle = _HANDLERS.get(scope["method"], StreamsApp.unknown_method)
            response = await handle(self, scope, receive, send)
        except RefusedRequest as exc:
            response = refused_response(exc)
        except StoreError as exc:
            response = store_error_response(exc)
        except _ClientLeft:
            return
        except asyncio.CancelledError:
            if self.live.is_stopping:  # the server has waited long enough for this request
                return
            raise
        except Exception:
            log.exception("request_failed", extra={"method": scope["method"], "path": scope["path"]})
            response = error_response(500, ErrorCode.INTERNAL, "the server failed to answer this request")
        if response is not None:
            await _send_response(send, response)

    async def append(self, scope: Scope, receive: Receive, _send: Send) -> Response:
        """POST: append, close, or both."""
        name, headers = name_and_headers(scope)
        body = await self._body(headers, receive)
        command = parse_append(name, headers, body)
        now_ms = self.world.now_ms()
        commit = plan_append(command, now_ms) if isinstance(command, Append) else plan_close(command, now_ms)
        outcome = await self.store.apply(name, commit)
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
        elif head.delivered == head.tail or life_of(head, self.world.now_ms()) is not Life.LIVE:
            return []
        report = await self.publisher.publish(Source(command.name, head), before)
        return [] if report is None else fan_out_headers(report)

    async def create(self, scope: Scope, receive: Receive, _send: Send) -> Response:
        """PUT: create or confirm, perhaps as a fork."""
        name, headers = name_and_headers(scope)
        command = parse_create(name, headers, await self._body(headers, receive))
        forwarded = headers.get(b"x-forwarded-proto")
        scheme = forwarded if forwarded in {b"http", b"https"} else scope["scheme"].encode()
        path = scope.get("root_path", "").encode() + scope["raw_path"]
        location = b"%s://%s%s" % (scheme, headers.get(b"host", b"localhost"), path)
        return create_response(command, await create(self.store, self.world, command), location)

    async def delete(self, scope: Scope, _receive: Receive, _send: Send) -> Response:
        """DELETE."""
        name, _ = name_and_headers(scope)
        return delete_response(Delete(name), await self.store.apply(name, plan_delete(self.world.now_ms())))

    async def head(self, scope: Scope, _receive: Receive, _send: Send) -> Response:
        """HEAD: metadata; does not count as a use of the stream."""
        name, _ = name_and_headers(scope)
        head, now_ms = await self.store.head(name), self.world.now_ms()
        if head is None or life_of(head, now_ms) is not Life.LIVE:
            return not_live_response(head, now_ms)
        return head_response(head)

    async def options(self, _scope: Scope, _receive: Receive, _send: Send) -> Response:
        """OPTIONS: a browser's preflight."""
        return Response(204, _PREFLIGHT)

    async def unknown_method(self, _scope: Scope, _receive: Receive, _send: Send) -> Response:
        """Any other method."""
        allow = (b"allow", METHODS.encode())
        return error_response(405, ErrorCode.METHOD_NOT_ALLOWED, f"a stream has the methods {METHODS}", allow)

    async def read(self, scope: Scope, receive: Receive, send: Send) -> Response | None:
        """GET: catch up, long-poll or SSE; None when the response has been sent already."""
        name, headers = name_and_headers(scope)
        read = parse_read(scope["query_string"])
        if read.live is LiveMode.WEBSOCKET:
            upgrade = ((b"upgrade", b"websocket"), (b"connection", b"Upgrade"))
            message = "live=websocket needs a WebSocket handshake; long-poll and sse do without"
            return error_response(426, ErrorCode.UPGRADE_REQUIRED, message, *upgrade)
        head = await used_head(self.store, self.world, name)
        if isinstance(head, Unmet):
            return not_live_response(head.head, self.world.now_ms())
        position = position_in(head, read.read_from)
        if read.live is LiveMode.SSE:
            encoding = [] if is_text(head.content_type) else [(b"stream-sse-data-encoding", b"base64")]
            start = {
                "type": "http.response.start",
                "status": 200,
                "headers": [*_SSE_HEADERS, *encoding],
            }
            await self.live.send_events(Subscription(name, head, position, read.cursor), receive, send, start)
            return None
        if read.live is LiveMode.LONG_POLL:
            return await self._long_poll(Subscription(name, head, position, read.cursor), headers, receive)
        if read.read_from is Sentinel.TAIL:
            return tail_response(head)
        return await self._page(name, head, position, None, headers)

    async def _long_poll(self, subscription: Subscription, headers: Headers, receive: Receive) -> Response:
        head, position = subscription.head, subscription.position
        if position == head.tail and not head.closed:
            news = await self.live.long_poll(receive, subscription.name, head)
            # What was waited for may have ended, and something else may have begun at its name.
            if news is None or news.incarnation != head.incarnation:
                return not_live_response(None, self.world.now_ms())
            if life_of(news, self.world.now_ms()) is not Life.LIVE:
                return not_live_response(news, self.world.now_ms())
            head = news
        cursor = next_cursor(subscription.echoed_cursor, self.world.now_ms(), self.world.jitter())
        if position == head.tail:
            return no_news_response(head, cursor)
        return await self._page(subscription.name, head, position, cursor, headers)

    async def _page(
        self, name: StreamName, head: Head, position: int, cursor: int | None, headers: Headers
    ) -> Response:
        try:
            page = await page_at(self.store, name, head, position, PAGE_BYTES_MAX)
        except StreamVanished:
            return not_live_response(None, self.world.now_ms())
        return page_response(PageRead(head, page, cursor, headers.get(b"if-none-match")), self.world.now_ms())

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        """The whole body; the server hangs up on a client that stops sending it. RefusedRequest over the limit."""
        declared = headers.get(b"content-length")
        if declared is not None:
            if declared == b"0":
                return b""
            if int(declared) > self.body_bytes_max:
                raise self._too_large()
        parts, byte_count = list[bytes](), 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _ClientLeft
            parts.append(message.get("body", b""))
            byte_count += len(parts[-1])
            if byte_count > self.body_bytes_max:
                raise self._too_large()
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    def _too_large(self) -> RefusedRequest:
        return RefusedRequest(ErrorCode.BODY_TOO_LARGE, f"a body may have up to {self.body_bytes_max} bytes", 413)


async def refuse_change(_scope: Scope, _receive: Receive, send: Send) -> None:
    """The answer of a server that only reads to what is no read."""
    allow = (b"allow", ", ".join(SAFE_METHODS).encode())
    message = "this server only reads; send what changes streams to another one"
    await _send_response(send, error_response(405, ErrorCode.METHOD_NOT_ALLOWED, message, allow))


async def _send_response(send: Send, response: Response) -> None:
    await send({"type": "http.response.start", "status": response.status, "headers": response.headers})
    await send_parts(send, response.parts, is_last=True)


def name_and_headers(scope: Scope) -> tuple[StreamName, Headers]:
    """What every request on a stream begins with. Raises RefusedRequest."""
    path: bytes = scope["raw_path"]
    if len(path) > PATH_BYTES_MAX:
        raise RefusedRequest(ErrorCode.PATH_TOO_LONG, f"the path is over {PATH_BYTES_MAX} bytes long", 414)
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


Handle = Callable[[StreamsApp, Scope, Receive, Send], Awaitable[Response | None]]

_HANDLERS: Final[dict[str, Handle]] = {
    "GET": StreamsApp.read,
    "HEAD": StreamsApp.head,
    "PUT": StreamsApp.create,
    "POST": StreamsApp.append,
    "DELETE": StreamsApp.delete,
    "OPTIONS": StreamsApp.options,
}
