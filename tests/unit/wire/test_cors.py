import pytest

from fluvial.model.limits import HEADER_BYTES_MAX
from fluvial.wire.cors import ASKED_FIELDS_MAX, is_allowed, is_own_page, preflight_response
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
def test_look_alikes_of_this_machine_are_not_local(origin: bytes) -> None:
    """Nor are applications' own schemes, which are to be named."""
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
def test_own_pages_are_known_however_the_host_is_spelt(headers: dict[bytes, bytes]) -> None:
    """With default ports and capitals, and behind proxies."""
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
def test_other_pages_are_not_own(headers: dict[bytes, bytes]) -> None:
    """Another host, another port, or none."""
    assert not is_own_page(headers)


def allowed_fields(asked: bytes) -> set[bytes]:
    """What a preflight that asks for these is allowed."""
    answer = preflight_response("GET", {b"access-control-request-headers": asked})
    return set(dict(answer.headers)[b"access-control-allow-headers"].lower().split(b", "))


def test_preflight_allows_what_is_asked_for() -> None:
    """Fields of tracing and polyfills among them; the protocol's own are allowed in any case."""
    asked = {b"traceparent", b"baggage", b"sentry-trace", b"last-event-id", b"x-requested-with"}
    assert asked | {b"stream-seq", b"if-match"} <= allowed_fields(
        b"Traceparent, baggage,sentry-trace," + b",".join(asked)
    )


def test_preflight_allows_nothing_that_is_no_field() -> None:
    """Neither what would split the answer, nor more than there is room for."""
    base = allowed_fields(b"")
    assert allowed_fields(b"a b, x:y, \xff, " + b"z" * 65 + b", ,") == base
    many = b",".join(b"x-%d" % number for number in range(1_000))
    assert len(allowed_fields(many)) == len(base) + ASKED_FIELDS_MAX


def test_preflight_from_a_public_page_to_this_machine_is_answered() -> None:
    """When the browser asks for it; its origin must be allowed as well."""
    asked = {b"access-control-request-private-network": b"true"}
    assert (b"access-control-allow-private-network", b"true") in preflight_response("GET", asked).headers
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
def test_first_proxy_tells_the_clients_url(headers: dict[bytes, bytes], scheme: bytes, host: bytes) -> None:
    """Those behind it add theirs to the end of the lists."""
    assert client_scheme(headers, b"http") == scheme
    assert client_host(headers) == host


@pytest.mark.parametrize("piece", [b"a", b" ", b";", b"a=", b'a="', b"a=b ", b"a=b; ", b'a="\\'])
def test_odd_forwarded_field_takes_no_time(piece: bytes) -> None:
    """It is read once from the left: what took the square of its length would hang at sixty times the longest head."""
    headers = {b"host": b"h", b"forwarded": piece * (60 * HEADER_BYTES_MAX // len(piece))}
    assert client_host(headers) == b"h"
