"""Forwarded: the scheme and the host of the URL that the client used, as the proxies in front tell them.

Each proxy adds to the end of a list, so the client's own is the first. They are believed for what only the client
itself is told, and for nothing that lets a request in.
"""

import re
from typing import Final

from fluvial.wire.http_head import TOKEN, is_host
from fluvial.wire.request import Headers

#: A pair and what ends it. Nothing is looked at twice: no two neighbours take the same bytes, and none gives any back.
_PAIR: Final = re.compile(rb"""[; \t]*+(""" + TOKEN + rb"""+)=("(?:[^"\\]|\\.)*+"|[^;" \t]*+)[ \t]*+(?:;|\Z)""")
_SCHEMES: Final = frozenset({b"http", b"https"})


def client_scheme(headers: Headers, default: bytes) -> bytes:
    """`http` or `https` of the client's URL."""
    told = _first(headers, b"proto", b"x-forwarded-proto").lower()
    return told if told in _SCHEMES else default


def client_host(headers: Headers) -> bytes | None:
    """The host, perhaps with a port, of the client's URL."""
    told = _first(headers, b"host", b"x-forwarded-host")
    return told if told and is_host(told) else headers.get(b"host")


def _first(headers: Headers, parameter: bytes, field: bytes) -> bytes:
    forwarded = headers.get(b"forwarded")
    if forwarded is not None:  # RFC 7239
        element, at = forwarded.partition(b",")[0], 0
        while (pair := _PAIR.match(element, at)) is not None:
            if pair[1].lower() == parameter:
                return pair[2].strip(b'"')
            at = pair.end()
    return headers.get(field, b"").partition(b",")[0].strip()
