"""Targets: the parts of a webhook's URL, and the rules for it (spec 6.2, 12.8).

1. A URL is parsed once, here, and the client uses the parts alone: no other parser reads it differently.
2. What is not plainly spelt is refused: an IPv4 address other than as four decimal numbers, an IPv6 zone, escapes in a
   host, a user name, a fragment.
3. An address must be public. A name is looked up at each delivery (fluvial.webhooks.client), and all of its addresses
   must be public then. They are not looked up here, because an answer of now says nothing of later, and because it
   would tell who creates a subscription which names the server's own network has.
4. This machine is a target only where the server allows it, for development: `localhost`, 127.0.0.x and ::1.
"""

import re
from dataclasses import dataclass
from typing import Final

import idna

from fluvial.model.errors import FluvialError
from fluvial.model.limits import WEBHOOK_URL_BYTES_MAX
from fluvial.webhooks.addresses import LOCAL_ADDRESSES, Address, is_local, is_public, parse_address

HOST_BYTES_MAX: Final = 253
PORT_MAX: Final = 65_535

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_URL: Final = re.compile(r"(https?)://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_AUTHORITY: Final = re.compile(r"(?:\[([^\]]*)\]|([^:\[\]]*))(?::([0-9]{1,5}))?")
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_PATH: Final = re.compile(r"[!-~]*")

#: The last label of a name that the C library takes for an IPv4 address, such as 2130706433, 127.1 and 0x7f000001.
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")

LOCALHOST: Final = "localhost"

#: Ends of names that are never public: RFC 6761, 6762 (with appendix G), 7686, 8375, and ICANN's `internal`.
_PRIVATE_SUFFIXES: Final = tuple(
    f".{name}"
    for name in (
        *("localhost", "local", "localdomain", "internal", "intranet", "private", "corp", "home", "lan", "home.arpa"),
        "onion",
    )
)


class TargetRefused(FluvialError):
    """A URL is none that webhooks may go to; the message says why, for who creates the subscription."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a webhook goes. The path has the query.

    The host is in lower case and in ASCII, an IPv6 address without brackets. `addresses` is empty when the host is a
    name that is looked up.
    """

    scheme: str
    host: str
    port: int
    path: str
    addresses: tuple[Address, ...] = ()

    @property
    def is_encrypted(self) -> bool:
        """Whether the connection is one of TLS."""
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """The value of the Host field."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def check_url(url: str, *, allow_localhost: bool) -> Target:
    """Parse a webhook's URL, and check it as far as that is possible without a lookup. Raises TargetRefused."""
    if len(url.encode("utf-8", "surrogatepass")) > WEBHOOK_URL_BYTES_MAX:
        raise TargetRefused(f"a webhook's URL has up to {WEBHOOK_URL_BYTES_MAX} bytes")
    match = _URL.fullmatch(url)
    if match is None:
        raise TargetRefused("a webhook's URL begins with https://")
    scheme, path = match[1].lower(), match[3]
    host, port = _parse_authority(match[2], _DEFAULT_PORTS[scheme])
    target = Target(scheme, host, port, _parse_path(path), _addresses_of(host, allow_localhost=allow_localhost))
    if scheme == "http" and not any(map(is_local, target.addresses)):
        reason = "except for localhost, 127.0.0.x and [::1]" if allow_localhost else "this server sends none to http://"
        raise TargetRefused(f"a webhook's URL begins with https://; {reason}")
    return target


def _parse_authority(text: str, default_port: int) -> tuple[str, int]:
    """The host, in lower case and in ASCII, and the port."""
    if "@" in text:
        raise TargetRefused("a webhook's URL has no user name and no password")
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        raise TargetRefused("the host or the port of the webhook's URL is malformed")
    port = default_port if match[3] is None else int(match[3])
    if not 1 <= port <= PORT_MAX:
        raise TargetRefused("the port of the webhook's URL is malformed")
    if match[1] is None:
        return _parse_host(match[2]), port
    address = parse_address(match[1])
    if address is None or address.version == 4 or "%" in match[1]:  # noqa: PLR2004  the protocol's version
        raise TargetRefused("the IPv6 address of the webhook's URL is malformed, or has a zone")
    return str(address), port


def _parse_host(text: str) -> str:
    """A name or an IPv4 address, in lower case and in ASCII."""
    try:
        ascii_text = text if text.isascii() else idna.encode(text, uts46=True, std3_rules=True).decode("ascii")
    except (idna.IDNAError, UnicodeError) as exc:
        raise TargetRefused("the host of the webhook's URL is not an internationalized name") from exc
    host = ascii_text.lower().removesuffix(".")
    labels = host.split(".")
    if not (text.isascii() or any(label.startswith("xn--") for label in labels)):
        raise TargetRefused("the host of the webhook's URL has characters that only look like letters or digits")
    if _NUMBER.fullmatch(labels[-1]):
        if parse_address(host) is None:
            raise TargetRefused("an IPv4 address in a webhook's URL has four decimal numbers, such as 192.0.2.1")
        return host
    if len(host) > HOST_BYTES_MAX or not all(map(_LABEL.fullmatch, labels)):
        raise TargetRefused("the host of the webhook's URL is malformed")
    return host


def _parse_path(text: str) -> str:
    if "#" in text:
        raise TargetRefused("a webhook's URL has no fragment")
    if not _PATH.fullmatch(text) or "\\" in text:
        raise TargetRefused("characters other than printable ASCII are percent-encoded in a webhook's URL")
    return text if text.startswith("/") else f"/{text}"


def _addresses_of(host: str, *, allow_localhost: bool) -> tuple[Address, ...]:
    """The addresses of a host that is not looked up."""
    address = parse_address(host)
    if address is not None:
        if not (is_public(address) or (allow_localhost and is_local(address))):
            raise TargetRefused("the address in the webhook's URL is not a public one")
        return (address,)
    if host == LOCALHOST and allow_localhost:
        return LOCAL_ADDRESSES
    if "." not in host or host.endswith(_PRIVATE_SUFFIXES):
        raise TargetRefused("the host of the webhook's URL is not a public name")
    return ()
