"""Answers to requests that no application gets, because their head or their framing is wrong.

Rules:
1. A refusal has the shape of every other error: `{"error": {"code", "message"}}`.
2. It closes the connection, for where the next request begins is unknown.
3. A refusal of a whole head is an ASGI application (`send_refusal`), so it waits behind the answers that are due before
   it. A request without a whole head never gets a cycle: its refusal is bytes (`render_refusal`), and the protocol
   writes them only when no other answer is due.
"""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Final, NamedTuple

import httptools
from starlette.types import Receive, Scope, Send

from fluvial.model.errors import ErrorCode
from fluvial.model.limits import HEADER_BYTES_MAX
from fluvial.server.asgi_send import send_response
from fluvial.server.http1.bounds import ARRIVAL_S
from fluvial.wire.http_head import is_request_line
from fluvial.wire.response import Header, Response, error_response


class Refusal(NamedTuple):
    """Why a request is refused."""

    status: int
    code: ErrorCode
    message: str


HEADERS_TOO_LARGE: Final = Refusal(431, ErrorCode.HEADERS_TOO_LARGE, f"header fields may have {HEADER_BYTES_MAX} bytes")
CUT_OFF: Final = Refusal(400, ErrorCode.MALFORMED_REQUEST, "the connection ended within the request")
TOO_SLOW: Final = Refusal(408, ErrorCode.REQUEST_TIMEOUT, f"no more of the request came in {ARRIVAL_S} seconds")


async def send_refusal(response: Response, _scope: Scope, _receive: Receive, send: Send) -> None:
    """An ASGI application, once `response` is bound: it answers without looking at the request."""
    await send_response(send, response)


def render_refusal(refusal: Refusal, default_headers: Iterable[Header]) -> bytes:
    """The whole answer as bytes; it says that the connection closes."""
    response = error_response(refusal.status, refusal.code, refusal.message, (b"connection", b"close"))
    fields = b"".join(b"%s: %s\r\n" % field for field in (*default_headers, *response.headers))
    phrase = HTTPStatus(refusal.status).phrase.encode()
    return b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (refusal.status, phrase, fields, response.body)


def parse_error_refusal(error: httptools.HttpParserError, line: bytes) -> Refusal:
    """The refusal of what the parser cannot parse; `line` is the beginning of the request, if that is known."""
    if isinstance(error, httptools.HttpParserInvalidMethodError) and is_request_line(line):
        return Refusal(501, ErrorCode.NOT_IMPLEMENTED, "this server does not know the request's method")
    if isinstance(error, httptools.HttpParserInvalidURLError):
        message = "the request's target is empty, or has a character that must be percent-encoded"
        return Refusal(400, ErrorCode.MALFORMED_REQUEST, message)
    return Refusal(400, ErrorCode.MALFORMED_REQUEST, "the request is not valid HTTP/1.1")
