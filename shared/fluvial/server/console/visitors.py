"""Who may see the console while the server is open: people at this machine.

Once there are projects everybody gets the page, which holds no data: it asks for a token. While the server is open, the
page could do everything, so it is for browsers of this machine alone:

1. The connection comes from a loopback address.
2. No proxy has forwarded the request, because then the address is the proxy's.
3. The request's host is a name of this machine. Otherwise it may be a page whose name was made to point here (DNS
   rebinding).
"""

import ipaddress
import re
from typing import Final

from fluvial.wire.request import Headers

#: Fields that proxies add. One of them is enough, because proxies differ in those that they send.
FORWARDING_FIELDS: Final = (
    b"forwarded",
    b"via",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
    b"x-forwarded-server",
    b"x-real-ip",
    b"true-client-ip",
    b"cf-connecting-ip",
)

_LOCAL_HOST: Final = re.compile(rb"(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)


def find_objection(peer: str | None, headers: Headers) -> str | None:
    """The reason why a request may not see the console of an open server; None if it may."""
    if peer is None or not _is_loopback(peer):
        return "this request comes from another machine"
    for field in FORWARDING_FIELDS:
        if field in headers:
            return f"this request was forwarded (it has the field {field.decode()})"
    if _LOCAL_HOST.fullmatch(headers.get(b"host", b"")) is None:
        return "this request names another host than localhost, 127.0.0.1 or [::1]"
    return None


def _is_loopback(peer: str) -> bool:
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback
