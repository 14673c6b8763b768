"""Where a webhook may go: URLs, names and addresses."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluvial.model.limits import WEBHOOK_URL_BYTES_MAX
from fluvial.webhooks.addresses import is_public
from fluvial.webhooks.target import PORT_MAX, Target, TargetRefused, check_url

ALLOWED = {
    "https://worker.example/hooks": Target("https", "worker.example", 443, "/hooks"),
    "HTTPS://Worker.EXAMPLE./a?b=c%20d": Target("https", "worker.example", 443, "/a?b=c%20d"),
    "https://worker.example:8443": Target("https", "worker.example", 8443, "/"),
    "https://worker.example?x": Target("https", "worker.example", 443, "/?x"),
    "https://8.8.8.8/": Target("https", "8.8.8.8", 443, "/", (ip_address("8.8.8.8"),)),
    "https://[2606:4700::1111]:1/": Target("https", "2606:4700::1111", 1, "/", (ip_address("2606:4700::1111"),)),
    "https://bücher.example/": Target("https", "xn--bcher-kva.example", 443, "/"),
    "https://BÜCHER\u3002example/": Target("https", "xn--bcher-kva.example", 443, "/"),
    "https://xn--bcher-kva.example/": Target("https", "xn--bcher-kva.example", 443, "/"),
    "https://a_b.example/": Target("https", "a_b.example", 443, "/"),
}

LOCAL = [
    "http://localhost/hook",
    "http://LOCALHOST:3000/hook",
    "http://localhost.:3000/",
    "http://127.0.0.1:3000/",
    "http://127.0.0.7/",
    "http://[::1]:3000/",
    "http://[0:0:0:0:0:0:0:1]/",
    "https://localhost/",
]

#: Refused whether or not localhost is allowed.
REFUSED = [
    # schemes
    "http://worker.example/",
    "http://8.8.8.8/",
    "ftp://worker.example/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_INFO",
    "javascript:alert(1)",
    "//worker.example/",
    "worker.example",
    "",
    " https://worker.example/",
    "https:worker.example",
    "https:/worker.example/",
    "https:///worker.example/",
    "https://",
    # credentials, and what looks like a host but is none
    "https://user@worker.example/",
    "https://user:password@worker.example/",
    "https://worker.example@127.0.0.1/",
    "https://worker.example:443@127.0.0.1/",
    "https://127.0.0.1\\@worker.example/",
    "https://worker.example\\@127.0.0.1/",
    "https://@worker.example/",
    # fragments, control characters, spaces, and characters that are not percent-encoded
    "https://worker.example/#fragment",
    "https://worker.example#@127.0.0.1/",
    "https://worker.example/a b",
    "https://worker.example/\r\nHost: metadata",
    "https://worker.example/\x00",
    "https://worker.example\t/",
    "https://worker.example/ü",
    "https://worker.example/\\..\\",
    # ports
    "https://worker.example:0/",
    "https://worker.example:65536/",
    "https://worker.example:/",
    "https://worker.example:44 3/",
    "https://worker.example:+443/",
    "https://worker.example:443:443/",
    "https://worker.example:٤٤٣/",
    # escapes and malformed names
    "https://worker%2eexample/",
    "https://127%2e0%2e0%2e1/",
    "https://%31%32%37.0.0.1/",
    "https://worker..example/",
    "https://.worker.example/",
    "https://-worker.example/",
    f"https://{'a' * 64}.example/",
    f"https://{'a.' * 127}example/",
    "https://wor\u200bker.example\uff0f/",
    "https://a\u2488com/",
    "https://\ud800.example/",
    # names that are never public
    "https://worker/",
    "https://metadata/",
    "https://metadata.google.internal/computeMetadata/v1/",
    "https://instance-data.ec2.internal/",
    "https://printer.local/",
    "https://service.default.svc.cluster.local/",
    "https://router.lan/",
    "https://nas.home.arpa/",
    "https://a.localhost/",
    "https://localhost.localdomain/",
    "https://abcdefghij.onion/",
    # IPv4: private, loopback, link-local, metadata, CGNAT, multicast, reserved, documentation
    "https://0.0.0.0/",
    "https://10.0.0.1/",
    "https://100.64.0.1/",
    "https://100.100.100.200/",
    "https://127.0.1.1/",
    "https://127.255.255.254/",
    "https://168.63.129.16/",
    "https://169.254.169.254/latest/meta-data/",
    "https://169.254.170.2/v2/credentials/",
    "https://172.16.0.1/",
    "https://172.31.255.255/",
    "https://192.0.0.192/",
    "https://192.0.2.1/",
    "https://192.168.0.1/",
    "https://198.18.0.1/",
    "https://203.0.113.9/",
    "https://224.0.0.1/",
    "https://240.0.0.1/",
    "https://255.255.255.255/",
    "http://10.0.0.1/hook",
    # IPv4 in other spellings: decimal, octal, hexadecimal, short, with more parts, in other digits
    "https://2130706433/",
    "https://3232235777/",
    "https://0x7f000001/",
    "https://0X7F.1/",
    "https://0x7f.0.0.0x1/",
    "https://0177.0.0.1/",
    "https://127.0.0.01/",
    "https://010.8.8.8/",
    "https://08.8.8.8/",
    "https://127.1/",
    "https://127.0.1/",
    "https://0/",
    "https://00000000000/",
    "https://0x/",
    "https://8.8.8.8.8/",
    "https://8.8.8.256/",
    "https://1.2.3.4.5.6.7.0x08/",
    "https://worker.example.1/",
    "https://\uff11\uff12\uff17.\uff10.\uff10.\uff11/",
    "https://\u2460\u2461\u2466.\u24ea.\u24ea.\u2460/",
    "https://\uff11\uff16\uff19\u3002\uff12\uff15\uff14\u3002\uff11\uff16\uff19\u3002\uff12\uff15\uff14/",
    "https://lo\u00adcalhost/",
    "https://ⓛocalhost/",
    # IPv6: loopback, unspecified, mapped, compatible, NAT64, 6to4, Teredo, unique local, link-local, multicast, zones
    "https://[::]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[::ffff:8.8.8.8]/",
    "https://[::127.0.0.1]/",
    "https://[::ffff:0:127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[64:ff9b::169.254.169.254]/",
    "https://[64:ff9b::8.8.8.8]/",
    "https://[64:ff9b:1::a00:1]/",
    "https://[2002:7f00:1::]/",
    "https://[2002:a9fe:a9fe::1]/",
    "https://[2001:0:7f00:1::]/",
    "https://[2001:20::1]/",
    "https://[2001:db8::1]/",
    "https://[3fff::1]/",
    "https://[fc00::1]/",
    "https://[fd00:ec2::254]/",
    "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/",
    "https://[fe80::1%eth0]/",
    "https://[::1%25lo]/",
    "https://[2606:4700::1111%25eth0]/",
    "https://[fec0::1]/",
    "https://[ff02::1]/",
    "https://[100::1]/",
    "https://[5f00::1]/",
    "https://[4000::1]/",
    "https://[127.0.0.1]/",
    "https://[8.8.8.8]/",
    "https://[v1.fe]/",
    "https://[]/",
    "https://[::1/",
    "https://::1/",
    "https://[::1]x/",
    "https://[[::1]]/",
]


@pytest.mark.parametrize("url", ALLOWED, ids=ascii)
def test_public_target_is_allowed(url: str) -> None:
    """With its parts as the client uses them."""
    assert check_url(url, allow_localhost=False) == ALLOWED[url]
    assert check_url(url, allow_localhost=True) == ALLOWED[url]


@pytest.mark.parametrize("url", LOCAL)
def test_localhost_is_allowed_only_if_asked_for(url: str) -> None:
    """Development webhook URLs "MAY use `http://localhost` or `http://127.0.0.x`" (spec 6.2)."""
    assert check_url(url, allow_localhost=True).addresses
    with pytest.raises(TargetRefused):
        check_url(url, allow_localhost=False)


@pytest.mark.parametrize("url", REFUSED, ids=ascii)
def test_other_target_is_refused(url: str) -> None:
    """Also where localhost is allowed."""
    for allow_localhost in (False, True):
        with pytest.raises(TargetRefused) as refused:
            check_url(url, allow_localhost=allow_localhost)
        assert "password" not in str(refused.value).replace("no password", "")


def test_length_of_a_url_is_bounded() -> None:
    """Its bytes are counted, not its characters."""
    longest = "https://worker.example/".ljust(WEBHOOK_URL_BYTES_MAX, "a")
    assert check_url(longest, allow_localhost=False).host == "worker.example"
    with pytest.raises(TargetRefused):
        check_url(f"{longest}a", allow_localhost=False)


def test_host_field_has_the_port_only_if_it_is_not_the_schemes() -> None:
    """And an IPv6 address in brackets."""
    hosts = {
        "https://a.example/": "a.example",
        "https://a.example:443/": "a.example",
        "https://a.example:80/": "a.example:80",
        "https://[2606:4700::1111]/": "[2606:4700::1111]",
        "https://[2606:4700::1111]:8/": "[2606:4700::1111]:8",
        "http://127.0.0.1:80/": "127.0.0.1",
    }
    for url, host in hosts.items():
        assert check_url(url, allow_localhost=True).authority == host


@given(st.ip_addresses())
def test_public_address_is_also_global_for_python(address: object) -> None:
    """The list of networks is at least as strict as the one of the standard library, in whatever release."""
    parsed = ip_address(str(address))
    assert not is_public(parsed) or (parsed.is_global and not parsed.is_multicast)


@given(st.text(max_size=60))
def test_any_text_is_a_target_or_refused(text: str) -> None:
    """And a target that is parsed can be sent in a request."""
    for url in (text, f"https://{text}", f"https://a.example{text}", f"https://a.example/{text}"):
        try:
            target = check_url(url, allow_localhost=False)
        except TargetRefused:
            continue
        assert 1 <= target.port <= PORT_MAX
        assert f"{target.authority}{target.path}".isascii()
        assert not {" ", "\r", "\n", "@", "\\"} & set(target.authority)
        assert all(map(is_public, target.addresses))
