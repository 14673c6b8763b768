"""Checks of a request's head: what RFC 9112 and RFC 6455 demand of it before its meaning is looked at.

Rules:
1. A head that leaves open where its request ends, or which host it is for, is refused: two servers in a row could read
   it in two ways, and one request would become two (request smuggling).
2. Each RequestError from here closes the connection, because what follows such a head cannot be parsed. The exception
   is `check_subprotocols`, which looks at a handshake whose head is right.
3. A check takes time in proportion to the length of the head.
"""

import re
from base64 import b64decode
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from fluvial.model.errors import ErrorCode, RequestError

Fields = list[tuple[bytes, bytes]]

HTTP_1_0: Final = "1.0"
_VERSIONS: Final = {"1.0", "1.1"}

#: A token of RFC 9110, section 5.6.2; methods and names of fields are tokens.
TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_METHOD: Final = re.compile(TOKEN + rb" \S+ HTTP/1\.[01]\r\n")

#: `uri-host [ ":" port ]`; the host may be empty (RFC 9112, section 3.2).
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-fv:.]+\])(?::[0-9]{0,5})?")
_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]+)(/[^?#]*)?(?:\?([^#]*))?", re.IGNORECASE)

_CHECKED_FIELDS: Final = frozenset({b"host", b"transfer-encoding", b"expect"})

WEBSOCKET_VERSION: Final = b"13"
_KEY_BYTES: Final = 16
#: Within the limits of the websockets library, which parses a handshake again after it was checked here.
HANDSHAKE_FIELDS_MAX: Final = 100
HANDSHAKE_LINE_BYTES_MAX: Final = 8_000

_HANDSHAKE_SINGULAR: Final = (b"origin", b"upgrade")
_PROTOCOLS: Final = re.compile(TOKEN + rb"(?:[ \t]*,[ \t]*" + TOKEN + rb")*")

_CLOSE: Final = (("connection", "close"),)


class Target(NamedTuple):
    """A request's target: path and query as they were sent, and the host of a target in absolute form."""

    path: bytes
    query: bytes
    host: bytes | None = None


def _malformed_request(message: str, code: ErrorCode = ErrorCode.MALFORMED_REQUEST) -> RequestError:
    return RequestError(code, message, 400, _CLOSE)


def check_fields(version: str, fields: Fields) -> None:
    """Check the fields that decide where the request ends and which host it is for. Raises RequestError."""
    if version not in _VERSIONS:
        message = "this server speaks HTTP/1.1 and HTTP/1.0"
        raise RequestError(ErrorCode.NOT_IMPLEMENTED, message, 505, _CLOSE)
    hosts, has_transfer_coding = 0, False
    for name, value in fields:
        if name not in _CHECKED_FIELDS:
            continue
        if name == b"host":
            hosts += 1
            if not is_host(value):
                raise _malformed_request("Host is not a host with or without a port", ErrorCode.MALFORMED_HEADER)
        elif name == b"transfer-encoding":
            has_transfer_coding = True
        elif version != HTTP_1_0 and not _is_continue(value):
            message = "the one expectation that this server meets is 100-continue"
            raise RequestError(ErrorCode.EXPECTATION_FAILED, message, 417, _CLOSE)
    if has_transfer_coding:  # once for all lines, or thousands of them would take the square of their number
        _check_transfer_codings(version, fields)
    _check_host_count(version, hosts)


def _check_host_count(version: str, hosts: int) -> None:
    # "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message that lacks a Host
    # header field and to any request message that contains more than one Host header field line" -- RFC 9112, 3.2
    if hosts > 1:
        raise _malformed_request("Host was sent more than once", ErrorCode.MALFORMED_HEADER)
    if not hosts and version != HTTP_1_0:
        raise _malformed_request("an HTTP/1.1 request needs a Host", ErrorCode.MALFORMED_HEADER)


@lru_cache(maxsize=256)
def is_host(value: bytes) -> bool:
    """Whether a value is a host with or without a port; the host may be empty."""
    return _HOST.fullmatch(value) is not None


def _is_continue(value: bytes) -> bool:
    return all(part.strip().lower() in {b"", b"100-continue"} for part in value.split(b","))


def _check_transfer_codings(version: str, fields: Fields) -> None:
    names = list_members(fields, b"transfer-encoding")
    # "If a Transfer-Encoding header field is present in a request and the chunked transfer coding is not the final
    # encoding [...] the server MUST respond with the 400 (Bad Request) status code and then close the connection."
    # -- RFC 9112, 6.3; and of HTTP/1.0 "as if the framing is faulty" -- 6.1
    if version == HTTP_1_0 or not names or names[-1] != b"chunked":
        raise _malformed_request(
            "the last transfer coding of a request must be chunked; HTTP/1.0 has no transfer codings"
        )
    if names != [b"chunked"]:
        message = "this server knows no transfer coding but chunked"
        raise RequestError(ErrorCode.NOT_IMPLEMENTED, message, 501, _CLOSE)


def list_members(fields: Fields, name: bytes) -> list[bytes]:
    """The members of a list field, from all its lines, in lower case and in order."""
    members = (member.strip().lower() for key, value in fields if key == name for member in value.split(b","))
    return [member for member in members if member]


def parse_target(method: str, target: bytes) -> Target:
    """The target in any of its four forms (RFC 9112, section 3.2). Raises RequestError for what is none."""
    if target.startswith(b"/"):
        path, _, query = target.partition(b"#")[0].partition(b"?")
        return Target(path, query)
    if method == "CONNECT":
        message = "this server is not a proxy and opens no tunnels"
        raise RequestError(ErrorCode.METHOD_NOT_ALLOWED, message, 405, (*_CLOSE, ("allow", "GET, HEAD, OPTIONS")))
    if target == b"*" and method == "OPTIONS":
        return Target(b"*", b"")
    # "When an origin server receives a request with an absolute-form of request-target, the origin server MUST ignore
    # the received Host header field (if any) and instead use the host information of the request-target."
    found = _ABSOLUTE.match(target)
    if found is None or not is_host(found[1]) or found[1].startswith(b":"):
        raise _malformed_request("the request's target is neither a path nor an http URL of this server")
    return Target(found[2] or b"/", found[3] or b"", found[1])


def replace_host(fields: Fields, host: bytes) -> Fields:
    """The fields with the target's host instead of the one that was sent."""
    return [(b"host", host), *(field for field in fields if field[0] != b"host")]


def check_handshake(target: bytes, fields: Fields) -> None:
    """Check a GET that asks for a WebSocket (RFC 6455, section 4.2.1). Raises RequestError."""
    if len(target) > HANDSHAKE_LINE_BYTES_MAX:
        message = f"a handshake's target may have {HANDSHAKE_LINE_BYTES_MAX} bytes"
        raise RequestError(ErrorCode.PATH_TOO_LONG, message, 414, _CLOSE)
    if [value.strip() for name, value in fields if name == b"sec-websocket-version"] != [WEBSOCKET_VERSION]:
        message = "this server speaks version 13 of the WebSocket protocol: Sec-WebSocket-Version: 13"
        upgrade = (("sec-websocket-version", "13"), ("upgrade", "websocket"), ("connection", "upgrade, close"))
        raise RequestError(ErrorCode.UPGRADE_REQUIRED, message, 426, upgrade)
    keys = [value.strip() for name, value in fields if name == b"sec-websocket-key"]
    if len(keys) != 1 or not _is_key(keys[0]):
        raise _malformed_request("Sec-WebSocket-Key must be 16 bytes in base64, sent once", ErrorCode.MALFORMED_HEADER)
    names = [name for name, _ in fields]
    if any(names.count(name) > 1 for name in _HANDSHAKE_SINGULAR):
        raise _malformed_request("Origin and Upgrade must be sent once", ErrorCode.MALFORMED_HEADER)
    if any(_PROTOCOLS.fullmatch(value) is None for name, value in fields if name == b"sec-websocket-protocol"):
        raise _malformed_request("Sec-WebSocket-Protocol must be a list of names", ErrorCode.MALFORMED_HEADER)
    if b"transfer-encoding" in names or any(value != b"0" for name, value in fields if name == b"content-length"):
        raise _malformed_request("a handshake must not have a body")
    longest = max(len(name) + len(value) for name, value in fields)
    if len(fields) > HANDSHAKE_FIELDS_MAX or longest > HANDSHAKE_LINE_BYTES_MAX:
        message = f"a handshake may have {HANDSHAKE_FIELDS_MAX} fields of {HANDSHAKE_LINE_BYTES_MAX} bytes"
        raise RequestError(ErrorCode.HEADERS_TOO_LARGE, message, 431, _CLOSE)


def check_subprotocols(headers: Mapping[bytes, bytes]) -> None:
    """Raise a RequestError for a browser that offers subprotocols; any other client may go on without one.

    A browser fails the connection when none of its subprotocols is chosen, and does not tell its page why. An answer
    over HTTP, which its developer tools show, does.
    """
    if b"origin" in headers and b"sec-websocket-protocol" in headers:
        message = "this server has no WebSocket subprotocols; send a token in the query: token="
        raise RequestError(ErrorCode.MALFORMED_HEADER, message)


def _is_key(value: bytes) -> bool:
    try:
        return len(b64decode(value, validate=True)) == _KEY_BYTES
    except ValueError:
        return False


def is_request_line(data: bytes) -> bool:
    """Whether bytes begin with a request line, of a method that the parser may not know."""
    return _METHOD.match(data) is not None
