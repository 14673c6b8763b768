import pytest

from fluvial.model.errors import RequestError
from fluvial.model.limits import HEADER_BYTES_MAX
from fluvial.wire.http_head import Target, check_fields, check_handshake, is_request_line, parse_target
from fluvial.wire.request import singular_headers

HOST = (b"host", b"x")
KEY = (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")
VERSION = (b"sec-websocket-version", b"13")


@pytest.mark.parametrize(
    "host",
    [b"x", b"", b"Example.COM:80", b"a.b:", b"127.0.0.1:4437", b"[::1]", b"[fe80::1]:8080", b"a_b-c.example", b"a%2Db"],
)
def test_host_with_or_without_port_is_accepted(host: bytes) -> None:
    """The forms of RFC 9112, section 3.2; the host may be empty."""
    check_fields("1.1", [(b"host", host)])


@pytest.mark.parametrize("host", [b"a b", b"a/b", b"a:b", b"a:1:2", b"u@a", b"::1", b"[::1", b"a:999999", b"\xe9"])
def test_malformed_host_is_refused(host: bytes) -> None:
    """Which host the request is for is unknown, and the connection closes."""
    with pytest.raises(RequestError) as caught:
        check_fields("1.1", [(b"host", host)])
    assert caught.value.status == 400
    assert ("connection", "close") in caught.value.fields


@pytest.mark.parametrize(
    ("version", "fields", "status"),
    [
        ("1.1", [], 400),
        ("1.1", [HOST, HOST], 400),
        ("1.0", [HOST, HOST], 400),
        ("2.0", [HOST], 505),
        ("0.9", [], 505),
        ("1.1", [HOST, (b"transfer-encoding", b"gzip, chunked")], 501),
        ("1.1", [HOST, (b"transfer-encoding", b"gzip"), (b"transfer-encoding", b"chunked")], 501),
        ("1.1", [HOST, (b"transfer-encoding", b"gzip")], 400),
        ("1.1", [HOST, (b"transfer-encoding", b"")], 400),
        ("1.0", [HOST, (b"transfer-encoding", b"chunked")], 400),
        ("1.1", [HOST, (b"expect", b"the-moon")], 417),
        ("1.1", [HOST, (b"expect", b"100-continue, the-moon")], 417),
    ],
)
def test_invalid_head_is_refused_with_status_of_the_rfc(
    version: str, fields: list[tuple[bytes, bytes]], status: int
) -> None:
    """The statuses are those of RFC 9112 and RFC 9110."""
    with pytest.raises(RequestError) as caught:
        check_fields(version, fields)
    assert caught.value.status == status


def test_valid_head_is_accepted() -> None:
    """HTTP/1.0 needs no Host, and its expectations are ignored."""
    check_fields("1.0", [(b"expect", b"the-moon")])
    check_fields("1.1", [HOST, (b"transfer-encoding", b"Chunked"), (b"expect", b"100-Continue")])


@pytest.mark.parametrize(
    ("method", "target", "found"),
    [
        ("GET", b"/a?b=c?d", Target(b"/a", b"b=c?d")),
        ("GET", b"/a#b?c", Target(b"/a", b"")),
        ("GET", b"//a/b", Target(b"//a/b", b"")),
        ("OPTIONS", b"*", Target(b"*", b"")),
        ("GET", b"http://h:1/a/b?c", Target(b"/a/b", b"c", b"h:1")),
        ("GET", b"HTTPS://h?c", Target(b"/", b"c", b"h")),
        ("PUT", b"http://[::1]/a", Target(b"/a", b"", b"[::1]")),
    ],
)
def test_target_is_parsed_in_each_form(method: str, target: bytes, found: Target) -> None:
    """Origin form, absolute form and asterisk form."""
    assert parse_target(method, target) == found


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", b"*", 400),
        ("GET", b"a:443", 400),
        ("GET", b"http://u@h/a", 400),
        ("GET", b"http:///a", 400),
        ("GET", b"http://:80/a", 400),
        ("GET", b"ftp://h/a", 400),
        ("CONNECT", b"h:443", 405),
    ],
)
def test_invalid_target_is_refused(method: str, target: bytes, status: int) -> None:
    """CONNECT is a 405, because the server opens no tunnels."""
    with pytest.raises(RequestError) as caught:
        parse_target(method, target)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([KEY], 426),
        ([KEY, (b"sec-websocket-version", b"8")], 426),
        ([KEY, VERSION, VERSION], 426),
        ([VERSION], 400),
        ([KEY, KEY, VERSION], 400),
        ([(b"sec-websocket-key", b"c2hvcnQ="), VERSION], 400),
        ([(b"sec-websocket-key", b"!!!"), VERSION], 400),
        ([KEY, VERSION, *[(b"x-%d" % number, b"") for number in range(100)]], 431),
        ([KEY, VERSION, (b"x", b"y" * 8_001)], 431),
        ([KEY, VERSION, (b"origin", b"http://a"), (b"origin", b"http://a")], 400),
        ([KEY, VERSION, (b"upgrade", b"h2c"), (b"upgrade", b"websocket")], 400),
        ([KEY, VERSION, (b"sec-websocket-protocol", b",,")], 400),
        ([KEY, VERSION, (b"content-length", b"5")], 400),
        ([KEY, VERSION, (b"transfer-encoding", b"chunked")], 400),
    ],
)
def test_invalid_handshake_is_refused(fields: list[tuple[bytes, bytes]], status: int) -> None:
    """The answer to another version names the supported one (RFC 6455, section 4.4)."""
    with pytest.raises(RequestError) as caught:
        check_handshake(b"/a", fields)
    assert caught.value.status == status
    if status == 426:
        assert dict(caught.value.fields)["sec-websocket-version"] == "13"


def test_handshake_with_long_target_is_refused() -> None:
    """The WebSocket library parses no longer line."""
    check_handshake(b"/a", [KEY, VERSION])
    with pytest.raises(RequestError) as caught:
        check_handshake(b"/" + b"a" * 8_000, [KEY, VERSION])
    assert caught.value.status == 414


def test_request_line_of_unknown_method_is_recognised() -> None:
    """Other protocols have no request line."""
    assert is_request_line(b"BREW /a HTTP/1.1\r\nHost: x\r\n\r\n")
    assert not is_request_line(b"\x16\x03\x01\x02\x00\x01 x HTTP/1.1\r\n")
    assert not is_request_line(b"GARBAGE\r\n\r\n")


def test_repeated_fields_are_joined_in_order() -> None:
    """RFC 9110, section 5.3; a field that must be unique is refused."""
    fields = [(b"accept", b"a"), (b"host", b"h"), (b"accept", b"b"), (b"accept", b"c")]
    assert singular_headers(fields) == {b"accept": b"a, b, c", b"host": b"h"}
    with pytest.raises(RequestError):
        singular_headers([*fields, (b"stream-seq", b"1"), (b"stream-seq", b"1")])


#: At so many times the longest head, an algorithm of quadratic time takes an hour: a test that hangs fails.
MANY = 60


def test_repeated_fields_are_joined_in_linear_time() -> None:
    """One request cannot stop the event loop: each field is looked at once."""
    count = MANY * HEADER_BYTES_MAX // 3
    fields = [(b"%06x" % (number % (count // 2)), b"") for number in range(count)]
    assert len(singular_headers(fields)) == count // 2


def test_transfer_coding_lines_are_checked_in_linear_time() -> None:
    """The lines are one list, which is checked once."""
    commas = [(b"transfer-encoding", b",")] * (MANY * HEADER_BYTES_MAX // 18)
    check_fields("1.1", [HOST, *commas, (b"transfer-encoding", b"chunked")])
