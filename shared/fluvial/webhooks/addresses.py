"""Public addresses: those that a webhook may go to.

The networks are those of IANA's registries of special-purpose addresses, not `ipaddress.is_global`, which differs
between the releases of Python. An IPv6 address that carries an IPv4 address is not public, whatever that one is: a
gateway on the server's own network may translate it (NAT64, 6to4, Teredo, IPv4-mapped).
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

Address = IPv4Address | IPv6Address

#: https://www.iana.org/assignments/iana-ipv4-special-registry
_NOT_PUBLIC_V4: Final = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this host and this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # shared by the customers of a provider (CGNAT); a cloud's metadata at 100.100.100.200
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # public in name only: the agent of Azure's machines
            "169.254.0.0/16",  # link-local, with the metadata of most clouds
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments
            "192.0.2.0/24",  # documentation
            "192.31.196.0/24",  # AS112
            "192.52.193.0/24",  # automatic multicast tunnels
            "192.88.99.0/24",  # relays of 6to4
            "192.168.0.0/16",  # private
            "192.175.48.0/24",  # AS112
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)

#: All addresses that are assigned to hosts so far. Outside of it are, among others, loopback (::1), IPv4-mapped
#: (::ffff:0:0/96), NAT64 (64:ff9b::/96, 64:ff9b:1::/48), unique local (fc00::/7), link-local (fe80::/10) and
#: multicast addresses (ff00::/8).
_GLOBAL_V6: Final = IPv6Network("2000::/3")

#: https://www.iana.org/assignments/iana-ipv6-special-registry
_NOT_PUBLIC_V6: Final = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments, with Teredo and ORCHID
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4
            "2620:4f:8000::/48",  # AS112
            "3fff::/20",  # documentation
        ),
    )
)

#: "Development webhook URLs MAY use `http://localhost` or `http://127.0.0.x`." -- spec 6.2
_LOCAL_V4: Final = IPv4Network("127.0.0.0/24")
LOCAL_ADDRESSES: Final[tuple[Address, ...]] = (IPv4Address("127.0.0.1"), IPv6Address("::1"))


def is_public(address: Address) -> bool:
    """Whether an address is one of a host on the internet."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_V4)
    if address.scope_id is not None or address not in _GLOBAL_V6:
        return False
    return not any(address in network for network in _NOT_PUBLIC_V6)


def is_local(address: Address) -> bool:
    """Whether an address is one of this machine that a webhook in development may go to."""
    return address in LOCAL_ADDRESSES or (isinstance(address, IPv4Address) and address in _LOCAL_V4)


def parse_address(text: str) -> Address | None:
    """The address with this spelling; None for other text, and for spellings that programs read differently.

    `0177.0.0.1` and `127.1` are none, because the C library takes them for loopback and others do not.
    """
    try:
        return ip_address(text)
    except ValueError:
        return None
