"""Origins: what pages of other origins may do with an answer, and what a browser is told that asks before."""

import re
from functools import lru_cache
from typing import Final

from fluvial.model.project import ANY_ORIGIN
from fluvial.wire.forwarded import client_host
from fluvial.wire.http_head import TOKEN
from fluvial.wire.request import Headers
from fluvial.wire.response import NO_STORE, SECURITY_HEADERS, Header, Response

#: The fields of answers that browsers' pages may see besides what every page may.
_EXPOSED: Final = (
    b"Stream-Next-Offset, Stream-Cursor, Stream-Up-To-Date, Stream-Closed, Stream-TTL, Stream-Expires-At, "
    b"Stream-SSE-Data-Encoding, Producer-Epoch, Producer-Seq, Producer-Expected-Seq, Producer-Received-Seq, "
    b"Stream-Fanout-Count, Stream-Fanout-Successes, Stream-Fanout-Failures, Stream-Fanout-Mode, "
    b"Stream-Reader-Key, ETag, Location, Retry-After, Allow, Accept-Encoding, Content-Encoding, "
    b"WWW-Authenticate, X-Amzn-Remapped-WWW-Authenticate"
)

#: What browsers' pages may send besides what every page may.
_ALLOWED: Final = (
    b"Content-Type, Content-Encoding, Authorization, If-Match, If-None-Match, Last-Event-ID, "
    b"Stream-Seq, Stream-TTL, Stream-Expires-At, Stream-Closed, "
    b"Stream-Forked-From, Stream-Fork-Offset, Stream-Fork-Sub-Offset, Producer-Id, Producer-Epoch, Producer-Seq"
)

#: How long a browser need not ask again; none keeps it for more than two hours or, Firefox, a day.
PREFLIGHT_AGE_S: Final = 7_200

#: Pages of the machine that a browser runs on, at any port.
LOCAL_ORIGINS: Final = "localhost"
_LOCAL: Final = re.compile(r"https?://((?:[a-z0-9_-]+\.)*localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?")

_ORIGIN: Final = re.compile(rb"(https?)://(.+)")
_PORTS: Final = {b"http": b"80", b"https": b"443"}

#: How many names of fields a page may ask for beyond those that are always allowed, and how long each may be.
ASKED_FIELDS_MAX: Final = 64
ASKED_FIELD_BYTES_MAX: Final = 64
_FIELD_NAME: Final = re.compile(TOKEN)

#: Answers that are remembered. Anybody may send origins as long as a head may be, so there are few.
_ORIGINS_KEPT_MAX: Final = 128


@lru_cache(maxsize=_ORIGINS_KEPT_MAX)
def is_allowed(allowed: tuple[str, ...], origin: bytes) -> bool:
    """Whether pages of an origin are among those that are allowed."""
    text = origin.decode("latin-1")
    return text in allowed or ANY_ORIGIN in allowed or (LOCAL_ORIGINS in allowed and _LOCAL.fullmatch(text) is not None)


def is_own_page(headers: Headers) -> bool:
    """Whether the page that sends a request has this server's own origin, as far as the request tells.

    Browsers say so themselves in a field that no page can set; else the page's origin is the host that was asked, in
    whatever case, and with or without the port that its scheme has anyway.
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


@lru_cache(maxsize=_ORIGINS_KEPT_MAX)
def cors_headers(allowed: tuple[str, ...], origin: bytes | None) -> tuple[Header, ...]:
    """What pages of other origins may do with an answer; `origin` is the requesting page's.

    The only one of its project is told to everybody, so that one cached answer does for all.
    """
    is_one = len(allowed) == 1 and allowed[0] != LOCAL_ORIGINS
    if is_one:
        return _told(allowed[0].encode())
    vary: tuple[Header, ...] = ((b"vary", b"Origin"),) if allowed else ()
    return (*vary, *error_cors_headers(allowed, origin))


def error_cors_headers(allowed: tuple[str, ...], origin: bytes | None) -> tuple[Header, ...]:
    """The same for an answer to somebody who is not let in, who is told no origin but the page's own."""
    if not origin or not is_allowed(allowed, origin):
        return ()
    return _told(ANY_ORIGIN.encode() if ANY_ORIGIN in allowed else origin)


def _told(origin: bytes) -> tuple[Header, ...]:
    return (b"access-control-allow-origin", origin), (b"access-control-expose-headers", _EXPOSED)


def preflight_response(methods: str, headers: Headers) -> Response:
    """The answer to a browser that asks before it sends a request; it is a no, unless its origin is told with it.

    A page whose origin is allowed may send any field: tracing, polyfills and proxies add theirs, and none of them
    lets a request do what it may not do otherwise.
    """
    allowed = [
        (b"allow", methods.encode()),
        (b"access-control-allow-methods", methods.encode()),
        (b"access-control-allow-headers", b", ".join((_ALLOWED, *_asked_fields(headers)))),
        (b"access-control-max-age", b"%d" % PREFLIGHT_AGE_S),
        (b"vary", b"Access-Control-Request-Headers, Access-Control-Request-Private-Network"),
    ]
    if headers.get(b"access-control-request-private-network", b"").lower() == b"true":
        allowed.append((b"access-control-allow-private-network", b"true"))
    return Response(204, [*SECURITY_HEADERS, *allowed, NO_STORE])


def _asked_fields(headers: Headers) -> list[bytes]:
    """The fields that a page asks for besides those that are always allowed."""
    asked = headers.get(b"access-control-request-headers", b"").lower().split(b",")
    known = set(_ALLOWED.lower().split(b", "))
    names = [name.strip() for name in asked[: ASKED_FIELDS_MAX + len(known)]]
    new = dict.fromkeys(name for name in names if name not in known and len(name) <= ASKED_FIELD_BYTES_MAX)
    return [name for name in new if _FIELD_NAME.fullmatch(name)][:ASKED_FIELDS_MAX]
