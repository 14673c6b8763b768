"""CORS: which pages are local or own, what a preflight allows, and the client's URL behind proxies."""

import pytest

from fluvial.model.limits import HEADER_BYTES_MAX
from fluvial.wire.cors import REQUESTED_FIELDS_MAX, is_allowed, is_own_page, preflight_response
from fluvial.wire.forwarded import client_host, client_scheme


@pytest.mark.parametrize(
    "origin",
    [
        b"http://localhost",
        b"https://localhost:5173",
        b"http://app.localhost:3000",
        b"http://a.b.localhost",
        b"https://tauri.localhost",
        b"http://127.0.0.1:8080",
        b"http://127.1.2.3",
        b"http://[::1]:3000",
    ],
)
def test_pages_of_this_machine_are_local(origin: bytes) -> None:
    """Names below localhost are loopback, too (RFC 6761, section 6.3)."""
    assert is_allowed(("localhost",), origin)


@pytest.mark.parametrize(
    "origin",
    [
        b"http://localhost.example",
        b"http://evil-localhost",
        b"http://localhost:80:80",
        b"http://.localhost",
        b"http://127.0.0.1.example",
        b"http://128.0.0.1",
        b"capacitor://localhost",
        b"tauri://localhost",
        b"null",
        b"",
    ],
)
def test_origins_that_resemble_local_ones_are_not_local(origin: bytes) -> None:
    """Nor are the schemes of packaged applications, which must be named."""
    assert not is_allowed(("localhost",), origin)


@pytest.mark.parametrize(
    "headers",
    [
        {b"host": b"Example.com:80", b"origin": b"http://example.com"},
        {b"host": b"example.com", b"origin": b"http://EXAMPLE.com:80"},
        {b"host": b"example.com", b"origin": b"https://example.com"},
        {b"host": b"example.com:443", b"origin": b"https://example.com"},
        {b"host": b"example.com:", b"origin": b"http://example.com"},
        {b"host": b"[::1]:8080", b"origin": b"http://[::1]:8080"},
        {b"host": b"[::1]", b"origin": b"http://[::1]:80"},
        {b"host": b"upstream:4437", b"origin": b"https://a.example", b"sec-fetch-site": b"same-origin"},
        {b"host": b"upstream:4437", b"origin": b"https://a.example", b"x-forwarded-host": b"a.example, inner"},
        {b"host": b"upstream", b"origin": b"https://a.example:8443", b"forwarded": b'for=1;host="a.example:8443"'},
    ],
)
def test_own_page_is_recognized_however_its_host_is_spelt(headers: dict[bytes, bytes]) -> None:
    """With default ports, in capitals, and behind proxies."""
    assert is_own_page(headers)


@pytest.mark.parametrize(
    "headers",
    [
        {b"host": b"example.com", b"origin": b"http://evil.example"},
        {b"host": b"example.com:8080", b"origin": b"http://example.com"},
        {b"host": b"example.com:80", b"origin": b"https://example.com"},
        {b"host": b"example.com", b"origin": b"null"},
        {b"host": b"", b"origin": b"http://:80"},
        {b"host": b"example.com", b"origin": b"http://example.com.evil.example"},
        {b"host": b"example.com", b"origin": b"http://evil.example", b"sec-fetch-site": b"same-site"},
        {b"origin": b"http://evil.example"},
    ],
)
def test_page_of_another_host_is_not_own(headers: dict[bytes, bytes]) -> None:
    """Another host, another port, or no host."""
    assert not is_own_page(headers)


def allowed_fields(requested: bytes) -> set[bytes]:
    """The fields that a preflight allows when these are requested."""
    answer = preflight_response("GET", {b"access-control-request-headers": requested})
    return set(dict(answer.headers)[b"access-control-allow-headers"].lower().split(b", "))


def test_preflight_allows_the_requested_fields() -> None:
    """Such as those of tracing; the protocol's own fields are always allowed."""
    requested = {b"traceparent", b"baggage", b"sentry-trace", b"last-event-id", b"x-requested-with"}
    assert requested | {b"stream-seq", b"if-match"} <= allowed_fields(
        b"Traceparent, baggage,sentry-trace," + b",".join(requested)
    )


def test_preflight_allows_no_invalid_field_names() -> None:
    """Neither names that would add a header field, nor more names than the limit."""
    base = allowed_fields(b"")
    assert allowed_fields(b"a b, x:y, \xff, " + b"z" * 65 + b", ,") == base
    many = b",".join(b"x-%d" % number for number in range(1_000))
    assert len(allowed_fields(many)) == len(base) + REQUESTED_FIELDS_MAX


def test_preflight_allows_private_network_access_when_requested() -> None:
    """A page from the internet asks for it before it sends a request to this machine."""
    requested = {b"access-control-request-private-network": b"true"}
    assert (b"access-control-allow-private-network", b"true") in preflight_response("GET", requested).headers
    assert b"access-control-allow-private-network" not in dict(preflight_response("GET", {}).headers)


@pytest.mark.parametrize(
    ("headers", "scheme", "host"),
    [
        ({b"host": b"h"}, b"http", b"h"),
        ({b"host": b"h", b"x-forwarded-proto": b"https,http"}, b"https", b"h"),
        ({b"host": b"h", b"x-forwarded-proto": b" HTTPS "}, b"https", b"h"),
        ({b"host": b"h", b"x-forwarded-proto": b"gopher"}, b"http", b"h"),
        ({b"host": b"h", b"x-forwarded-host": b"a.example, b"}, b"http", b"a.example"),
        ({b"host": b"h", b"x-forwarded-host": b"a/b"}, b"http", b"h"),
        (
            {
                b"host": b"h",
                b"forwarded": b'For="[::1]"; Proto=https ;host="a:1", proto=http',
                b"x-forwarded-host": b"b",
            },
            b"https",
            b"a:1",
        ),
    ],
)
def test_client_url_is_that_of_the_first_proxy(headers: dict[bytes, bytes], scheme: bytes, host: bytes) -> None:
    """Further proxies add their values to the end of the lists."""
    assert client_scheme(headers, b"http") == scheme
    assert client_host(headers) == host


@pytest.mark.parametrize("piece", [b"a", b" ", b";", b"a=", b'a="', b"a=b ", b"a=b; ", b'a="\\'])
def test_malformed_forwarded_field_is_parsed_in_linear_time(piece: bytes) -> None:
    """Quadratic time would hang the test at sixty times the length of the longest head."""
    headers = {b"host": b"h", b"forwarded": piece * (60 * HEADER_BYTES_MAX // len(piece))}
    assert client_host(headers) == b"h"
