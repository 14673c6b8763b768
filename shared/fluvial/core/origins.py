"""Origins: what pages of other origins may do with an answer, and what a browser is told that asks before."""

import re
from functools import lru_cache
from typing import Final

from fluvial.core.project import ANY_ORIGIN
from fluvial.core.response import NO_STORE, SECURITY_HEADERS, Header, Response

#: The fields of answers that browsers' pages may see besides what every page may.
_EXPOSED: Final = (
    b"Stream-Next-Offset, Stream-Cursor, Stream-Up-To-Date, Stream-Closed, Stream-TTL, Stream-Expires-At, "
    b"Stream-SSE-Data-Encoding, Producer-Epoch, Producer-Seq, Producer-Expected-Seq, Producer-Received-Seq, "
    b"Stream-Fanout-Count, Stream-Fanout-Successes, Stream-Fanout-Failures, Stream-Fanout-Mode, "
    b"Stream-Reader-Key, ETag, Location, Retry-After, WWW-Authenticate, X-Amzn-Remapped-WWW-Authenticate"
)

#: What browsers' pages may send besides what every page may.
_ALLOWED: Final = (
    b"Content-Type, Authorization, If-Match, If-None-Match, Stream-Seq, Stream-TTL, Stream-Expires-At, Stream-Closed, "
    b"Stream-Forked-From, Stream-Fork-Offset, Stream-Fork-Sub-Offset, Producer-Id, Producer-Epoch, Producer-Seq"
)

#: How long a browser need not ask again; none keeps it for more than two hours or, Firefox, a day.
PREFLIGHT_AGE_S: Final = 7_200

#: Pages of the machine that a browser runs on, at any port.
LOCAL_ORIGINS: Final = "localhost"
_LOCAL: Final = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?")


def is_allowed(allowed: tuple[str, ...], origin: bytes) -> bool:
    """Whether pages of an origin are among those that are allowed."""
    text = origin.decode("latin-1")
    return text in allowed or ANY_ORIGIN in allowed or (LOCAL_ORIGINS in allowed and _LOCAL.fullmatch(text) is not None)


@lru_cache(maxsize=1_024)
def origin_fields(allowed: tuple[str, ...], origin: bytes | None) -> tuple[Header, ...]:
    """What pages of other origins may do with an answer; `origin` is the requesting page's.

    The only one of its project is told to everybody, so that one cached answer does for all.
    """
    is_one = len(allowed) == 1 and allowed[0] != LOCAL_ORIGINS
    if is_one:
        return _told(allowed[0].encode())
    vary: tuple[Header, ...] = ((b"vary", b"Origin"),) if allowed else ()
    return (*vary, *refusal_origin_fields(allowed, origin))


def refusal_origin_fields(allowed: tuple[str, ...], origin: bytes | None) -> tuple[Header, ...]:
    """The same for an answer to somebody who is not let in, who is told no origin but the page's own."""
    if not origin or not is_allowed(allowed, origin):
        return ()
    return _told(ANY_ORIGIN.encode() if ANY_ORIGIN in allowed else origin)


def _told(origin: bytes) -> tuple[Header, ...]:
    return (b"access-control-allow-origin", origin), (b"access-control-expose-headers", _EXPOSED)


def preflight_response(methods: str) -> Response:
    """The answer to a browser that asks before it sends a request; it is a no, unless its origin is told with it."""
    allowed = (
        (b"access-control-allow-methods", methods.encode()),
        (b"access-control-allow-headers", _ALLOWED),
        (b"access-control-max-age", b"%d" % PREFLIGHT_AGE_S),
    )
    return Response(204, [*SECURITY_HEADERS, *allowed, NO_STORE])
