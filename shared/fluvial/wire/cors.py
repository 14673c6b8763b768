"""CORS: the header fields that let pages of other origins read an answer, and the answers to preflights.

Rules:
1. A page may read an answer only if its origin is allowed: by the project, or by --cors-origins of an open server.
2. A preflight's answer, and one with 401 or 403, has no origin but the page's own, and that only if it is allowed. So
   unauthorized clients learn none of a project's origins.
"""

import re
from functools import lru_cache
from typing import Final

from fluvial.model.project import ANY_ORIGIN
from fluvial.wire.forwarded import client_host
from fluvial.wire.http_head import TOKEN
from fluvial.wire.request import Headers
from fluvial.wire.response import NO_STORE, SECURITY_HEADERS, Header, Response

#: The fields of answers that pages may read in addition to the CORS-safelisted ones.
_EXPOSED: Final = (
    b"Stream-Next-Offset, Stream-Cursor, Stream-Up-To-Date, Stream-Closed, Stream-TTL, Stream-Expires-At, "
    b"Stream-SSE-Data-Encoding, Producer-Epoch, Producer-Seq, Producer-Expected-Seq, Producer-Received-Seq, "
    b"Stream-Fanout-Count, Stream-Fanout-Successes, Stream-Fanout-Failures, Stream-Fanout-Mode, "
    b"Stream-Reader-Key, ETag, Location, Retry-After, Allow, Accept-Encoding, Content-Encoding, "
    b"X-Request-Id, WWW-Authenticate, X-Amzn-Remapped-WWW-Authenticate"
)

#: The fields that pages may send in addition to the CORS-safelisted ones.
_ALLOWED: Final = (
    b"Content-Type, Content-Encoding, Authorization, If-Match, If-None-Match, Last-Event-ID, "
    b"Stream-Seq, Stream-TTL, Stream-Expires-At, Stream-Closed, "
    b"Stream-Forked-From, Stream-Fork-Offset, Stream-Fork-Sub-Offset, Producer-Id, Producer-Epoch, Producer-Seq"
)

#: How long a browser may keep a preflight's answer. Browsers do so for two hours at most, Firefox for a day.
PREFLIGHT_AGE_S: Final = 7_200

#: Stands for all pages of the machine that a browser runs on, at any port.
LOCAL_ORIGINS: Final = "localhost"
_LOCAL: Final = re.compile(r"https?://((?:[a-z0-9_-]+\.)*localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?")

_ORIGIN: Final = re.compile(rb"(https?)://(.+)")
_PORTS: Final = {b"http": b"80", b"https": b"443"}

#: A preflight may request so many fields beyond those that are always allowed, with names of so many bytes.
REQUESTED_FIELDS_MAX: Final = 64
REQUESTED_FIELD_BYTES_MAX: Final = 64
_FIELD_NAME: Final = re.compile(TOKEN)

#: The caches are small, because any client may send origins that are as long as a request's head.
_ORIGINS_CACHED_MAX: Final = 128


@lru_cache(maxsize=_ORIGINS_CACHED_MAX)
def is_allowed(allowed: tuple[str, ...], origin: bytes) -> bool:
    """Whether pages of an origin are allowed."""
    text = origin.decode("latin-1")
    return text in allowed or ANY_ORIGIN in allowed or (LOCAL_ORIGINS in allowed and _LOCAL.fullmatch(text) is not None)


def is_own_page(headers: Headers) -> bool:
    """Whether the page that sends a request has this server's own origin.

    Browsers say so in Sec-Fetch-Site, which a page cannot set. Otherwise the page's origin must be the host of the
    request, compared without case; a scheme's default port may be left out.
    """
    if headers.get(b"sec-fetch-site", b"").strip().lower() == b"same-origin":
        return True
    origin = _ORIGIN.fullmatch(headers.get(b"origin", b"").lower())
    if origin is None:
        return False
    hosts = {headers.get(b"host"), client_host(headers)}
    return any(host and _with_port(host, origin[1]) == _with_port(origin[2], origin[1]) for host in hosts)


def _with_port(host: bytes, scheme: bytes) -> bytes:
    host = host.lower()
    name, colon, port = host.rpartition(b":")
    if not colon or host.endswith(b"]"):
        return host + b":" + _PORTS[scheme]
    return host if port else name + b":" + _PORTS[scheme]


@lru_cache(maxsize=_ORIGINS_CACHED_MAX)
def cors_headers(allowed: tuple[str, ...], origin: bytes | None) -> tuple[Header, ...]:
    """The CORS fields of all other answers; `origin` is the requesting page's.

    If a project has one origin, all answers have that one, so that a cache can use one answer for all clients.
    """
    is_one = len(allowed) == 1 and allowed[0] != LOCAL_ORIGINS
    if is_one:
        return _allow_origin(allowed[0].encode())
    vary: tuple[Header, ...] = ((b"vary", b"Origin"),) if allowed else ()
    return (*vary, *error_cors_headers(allowed, origin))


def error_cors_headers(allowed: tuple[str, ...], origin: bytes | None) -> tuple[Header, ...]:
    """The CORS fields of a preflight's answer, and of one with 401 or 403: with no origin but the page's own."""
    if not origin or not is_allowed(allowed, origin):
        return ()
    return _allow_origin(ANY_ORIGIN.encode() if ANY_ORIGIN in allowed else origin)


def _allow_origin(origin: bytes) -> tuple[Header, ...]:
    return (b"access-control-allow-origin", origin), (b"access-control-expose-headers", _EXPOSED)


def preflight_response(methods: str, headers: Headers) -> Response:
    """The answer to a preflight. The browser takes it for a refusal unless the CORS fields are added to it.

    A page whose origin is allowed may send any field, because tracing, polyfills and proxies add fields of their own,
    and no field gives a request more permissions.
    """
    fields = [
        (b"allow", methods.encode()),
        (b"access-control-allow-methods", methods.encode()),
        (b"access-control-allow-headers", b", ".join((_ALLOWED, *_requested_fields(headers)))),
        (b"access-control-max-age", b"%d" % PREFLIGHT_AGE_S),
        (b"vary", b"Access-Control-Request-Headers, Access-Control-Request-Private-Network"),
    ]
    if headers.get(b"access-control-request-private-network", b"").lower() == b"true":
        fields.append((b"access-control-allow-private-network", b"true"))
    return Response(204, (*SECURITY_HEADERS, *fields, NO_STORE))


def _requested_fields(headers: Headers) -> list[bytes]:
    """The names of fields that a preflight requests beyond those that are always allowed."""
    requested = headers.get(b"access-control-request-headers", b"").lower().split(b",")
    known = set(_ALLOWED.lower().split(b", "))
    names = [name.strip() for name in requested[: REQUESTED_FIELDS_MAX + len(known)]]
    new = dict.fromkeys(name for name in names if name not in known and len(name) <= REQUESTED_FIELD_BYTES_MAX)
    return [name for name in new if _FIELD_NAME.fullmatch(name)][:REQUESTED_FIELDS_MAX]
