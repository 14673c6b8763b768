"""Forwarded fields: the scheme and the host of the client's URL, as the proxies in front of the server report them.

Rules:
1. Each proxy appends to a list, so its first member is about the client's own request.
2. A client can send these fields itself. So they are used only in what that client is told, such as `Location`, and to
   recognise the server's own pages, because a page of another origin cannot send them. They never let a request in.
"""

import re
from typing import Final

from fluvial.wire.http_head import TOKEN, is_host
from fluvial.wire.request import Headers

#: A pair and its end. Matching takes linear time: neighbouring parts match different bytes, and none backtracks.
_PAIR: Final = re.compile(rb"""[; \t]*+(""" + TOKEN + rb"""+)=("(?:[^"\\]|\\.)*+"|[^;" \t]*+)[ \t]*+(?:;|\Z)""")
_SCHEMES: Final = frozenset({b"http", b"https"})


def client_scheme(headers: Headers, default: bytes) -> bytes:
    """The scheme of the client's URL: `http`, `https`, or else the default."""
    scheme = _first_member(headers, b"proto", b"x-forwarded-proto").lower()
    return scheme if scheme in _SCHEMES else default


def client_host(headers: Headers) -> bytes | None:
    """The host of the client's URL, with its port if it has one; else that of the Host field."""
    host = _first_member(headers, b"host", b"x-forwarded-host")
    return host if host and is_host(host) else headers.get(b"host")


def _first_member(headers: Headers, parameter: bytes, field: bytes) -> bytes:
    """A parameter of Forwarded's first member, or else the first member of the older field; empty without either."""
    forwarded = headers.get(b"forwarded")
    if forwarded is not None:  # RFC 7239
        element, at = forwarded.partition(b",")[0], 0
        while (pair := _PAIR.match(element, at)) is not None:
            if pair[1].lower() == parameter:
                return pair[2].strip(b'"')
            at = pair.end()
    return headers.get(field, b"").partition(b",")[0].strip()
