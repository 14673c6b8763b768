"""Hostile requests: each is refused with its documented 4xx in the shape of all errors, and changes nothing."""

from dataclasses import dataclass, field
from itertools import count

import httpx
import pytest

from fluvial.model.errors import ErrorCode as Code
from tests.support.raw_http import exchange, request_bytes
from tests.support.servers import RunningServer

TEXT = ("Content-Type", "text/plain")
JSON = ("Content-Type", "application/json")
LONG = "9" * 400
numbers = count()


@dataclass(frozen=True)
class Hostile:
    """A request with its expected status and code; `{s}` in it stands for the path of an existing stream."""

    name: str
    method: str
    target: str
    status: int
    code: Code
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    raw: bytes | None = None


def put(name: str, *headers: tuple[str, str], status: int = 400, code: Code = Code.MALFORMED_HEADER) -> Hostile:
    """A PUT of a stream that does not exist yet."""
    return Hostile(name, "PUT", "/v1/stream/hostile-new", status, code, list(headers))


def post(
    name: str, body: bytes, *headers: tuple[str, str], status: int = 400, code: Code = Code.INVALID_JSON
) -> Hostile:
    """A POST to an existing stream."""
    return Hostile(name, "POST", "{s}", status, code, list(headers), body)


def get(name: str, query: str, code: Code = Code.MALFORMED_OFFSET, status: int = 400) -> Hostile:
    """A GET of an existing stream."""
    return Hostile(name, "GET", "{s}?" + query, status, code)


def path(name: str, target: str, status: int = 400, code: Code = Code.MALFORMED_NAME) -> Hostile:
    """A PUT to an invalid path."""
    return Hostile(name, "PUT", target, status, code, [TEXT])


def producer(name: str, *fields: tuple[str, str], code: Code = Code.MALFORMED_HEADER, status: int = 400) -> Hostile:
    """A POST with invalid producer headers."""
    return post(name, b"x", TEXT, *fields, code=code, status=status)


ROOT = "/v1/stream/"
ID, EPOCH, SEQ = ("Producer-Id", "p"), ("Producer-Epoch", "0"), ("Producer-Seq", "0")
FROM = "Stream-Forked-From"

HOSTILE = [
    # JSON
    post("truncated JSON", b'{"a":', JSON),
    post("trailing comma", b"[1,2,]", JSON),
    post("bare word", b"nope", JSON),
    post("NaN", b"NaN", JSON),
    post("two values", b"1 2", JSON),
    post("control character in a string", b'"\x01"', JSON),
    post("byte order mark", b"\xef\xbb\xbf[1]", JSON),
    post("invalid UTF-8", b'"\xff\xfe"', JSON),
    post("overlong UTF-8", b'"\xc0\xaf"', JSON),
    post("surrogate in UTF-8", b'"\xed\xa0\x80"', JSON),
    post("100,000 arrays", b"[" * 100_000 + b"]" * 100_000, JSON),
    post("100,000 objects", b'{"a":' * 100_000 + b"1" + b"}" * 100_000, JSON),
    post("100,000 open arrays", b"[" * 100_000, JSON),
    post("empty array", b"[]", JSON, code=Code.EMPTY_ARRAY),
    post("millions of messages", b"[" + b"0," * 2_000_000 + b"0]", JSON, status=413, code=Code.BODY_TOO_LARGE),
    # offsets and queries
    get("empty offset", "offset="),
    get("two offsets", "offset=-1&offset=now", Code.MALFORMED_QUERY),
    get("negative offset", "offset=-2"),
    get("exponent offset", "offset=1e3"),
    get("400-digit offset", f"offset={LONG}"),
    get("offset in other digits", "offset=0000000000000000_00000000000000%D9%A3%D9%A3"),
    get("offset with NUL", "offset=-1%00"),
    get("offset of another incarnation", "offset=0000000000000000_0000000000000001", Code.OFFSET_GONE, 410),
    get("offset of a future incarnation", "offset=9999999999999999_0000000000000001", Code.OFFSET_GONE, 410),
    get(
        "offset of another incarnation, live",
        "offset=0000000000000000_0000000000000001&live=sse",
        Code.OFFSET_GONE,
        410,
    ),
    get("offset path traversal", "offset=../../etc/passwd"),
    get("unknown live mode", "offset=-1&live=carrier-pigeon", Code.MALFORMED_QUERY),
    get("live without offset", "live=sse", Code.MISSING_OFFSET),
    get("two cursors", "offset=-1&live=long-poll&cursor=1&cursor=2", Code.MALFORMED_QUERY),
    get("10 KB query", "x=" + "y" * 10_000, Code.PATH_TOO_LONG, 414),
    # lifetimes
    put("signed TTL", ("Stream-TTL", "+60")),
    put("negative TTL", ("Stream-TTL", "-60")),
    put("TTL with leading zero", ("Stream-TTL", "060")),
    put("fractional TTL", ("Stream-TTL", "60.0")),
    put("exponent TTL", ("Stream-TTL", "6e1")),
    put("400-digit TTL", ("Stream-TTL", LONG)),
    put("TTL in other digits", ("Stream-TTL", "\xb2\xb3")),
    put("empty TTL", ("Stream-TTL", "")),
    put("TTL past a hundred years", ("Stream-TTL", "99999999999")),
    put("TTL and moment", ("Stream-TTL", "60"), ("Stream-Expires-At", "2030-01-01T00:00:00Z")),
    put("moment without zone", ("Stream-Expires-At", "2030-01-01T00:00:00")),
    put("moment on the 32nd", ("Stream-Expires-At", "2030-01-32T00:00:00Z")),
    put("moment in words", ("Stream-Expires-At", "tomorrow")),
    put("two TTLs", ("Stream-TTL", "60"), ("Stream-TTL", "61")),
    # producers
    producer("producer id alone", ID),
    producer("producer without seq", ID, EPOCH),
    producer("producer without id", EPOCH, SEQ),
    producer("empty producer id", ("Producer-Id", ""), EPOCH, SEQ),
    producer("10 KB producer id", ("Producer-Id", "p" * 10_000), EPOCH, SEQ),
    producer("negative epoch", ID, ("Producer-Epoch", "-1"), SEQ),
    producer("fractional seq", ID, EPOCH, ("Producer-Seq", "0.0")),
    producer("epoch with leading zero", ID, ("Producer-Epoch", "00"), SEQ),
    producer("epoch past 2^53", ID, ("Producer-Epoch", "9007199254740992"), SEQ),
    producer("400-digit seq", ID, EPOCH, ("Producer-Seq", LONG)),
    producer("seq in other digits", ID, EPOCH, ("Producer-Seq", "\xb9")),
    producer("seq that begins late", ID, EPOCH, ("Producer-Seq", "5"), code=Code.PRODUCER_GAP, status=409),
    producer("two producer ids", ID, ID, EPOCH, SEQ),
    post("10 KB Stream-Seq", b"x", TEXT, ("Stream-Seq", "s" * 10_000), code=Code.MALFORMED_HEADER),
    post("empty Stream-Seq", b"x", TEXT, ("Stream-Seq", ""), code=Code.MALFORMED_HEADER),
    # forks
    put("fork of nothing", (FROM, ROOT + "nothing-here"), status=404, code=Code.SOURCE_NOT_FOUND),
    put("fork of itself", (FROM, ROOT + "hostile-new"), status=404, code=Code.SOURCE_NOT_FOUND),
    put("fork of another origin", (FROM, "http://example.com/v1/stream/a")),
    put("fork of another root", (FROM, "/etc/passwd")),
    put("fork of a traversal", (FROM, ROOT + "../a"), code=Code.MALFORMED_NAME),
    put("fork offset without source", ("Stream-Fork-Offset", "-1")),
    put("fork sub-offset without source", ("Stream-Fork-Sub-Offset", "1")),
    put("fork at a wild offset", (FROM, "{s}"), ("Stream-Fork-Offset", "12"), code=Code.MALFORMED_OFFSET),
    put(
        "fork past the tail",
        (FROM, "{s}"),
        ("Stream-Fork-Offset", "0000000000000000_0000000000009999"),
        code=Code.UNKNOWN_FORK_OFFSET,
    ),
    put("fork with a negative sub-offset", (FROM, "{s}"), ("Stream-Fork-Sub-Offset", "-1")),
    put("fork with a 400-digit sub-offset", (FROM, "{s}"), ("Stream-Fork-Sub-Offset", LONG)),
    put("fork sub-offset past the tail", (FROM, "{s}"), ("Stream-Fork-Sub-Offset", "1"), code=Code.UNKNOWN_FORK_OFFSET),
    # paths
    path("traversal", ROOT + "../secret"),
    path("encoded traversal", ROOT + "%2e%2e/secret"),
    path("traversal in a segment", ROOT + "a%2F..%2Fb"),
    path("backslash traversal", ROOT + "a%5C..%5Cb"),
    path("NUL", ROOT + "a%00b"),
    path("line break", ROOT + "a%0D%0Ab"),
    path("bad escape", ROOT + "a%zz"),
    path("cut escape", ROOT + "a%2"),
    path("path that is no UTF-8", ROOT + "%ff%fe"),
    path("empty segment", ROOT + "a//b"),
    path("10 KB path", ROOT + "a" * 10_000, 414, Code.PATH_TOO_LONG),
    path("name over its bound", ROOT + "a" * 2_000, 414, Code.PATH_TOO_LONG),
    path("no name", ROOT, 404, Code.NOT_FOUND),
    path("reserved prefix", ROOT + "__ds/x", 404, Code.RESERVED_PATH),
    path("dots in a subscription's id", ROOT + "__ds/subscriptions/..", 400, Code.INVALID_SUBSCRIPTION_REQUEST),
    path("encoded reserved prefix", ROOT + "%5f%5fds/x", 404, Code.RESERVED_PATH),
    path("outside the root", "/v2/stream/a", 404, Code.NOT_FOUND),
    # methods, types, bodies, heads
    Hostile("unknown method", "PATCH", "{s}", 405, Code.METHOD_NOT_ALLOWED),
    Hostile("made-up method", "PROPFIND", "{s}", 405, Code.METHOD_NOT_ALLOWED),
    post("body without type", b"x", code=Code.MISSING_CONTENT_TYPE),
    post("type that is none", b"x", ("Content-Type", "not a type"), code=Code.MALFORMED_HEADER),
    post("type made to backtrack", b"x", ("Content-Type", "text/plain" + "; " * 100 + '"'), code=Code.MALFORMED_HEADER),
    post("10 KB type", b"x", ("Content-Type", "text/" + "x" * 10_000), code=Code.MALFORMED_HEADER),
    post("no body", b"", TEXT, ("Content-Length", "0"), code=Code.EMPTY_BODY),
    post("another stream's type", b"x", ("Content-Type", "image/png"), code=Code.CONTENT_TYPE_MISMATCH, status=409),
    post("64 MB body", b"x" * 64_000_000, TEXT, status=413, code=Code.BODY_TOO_LARGE),
    put("40 KB of header fields", ("X-Long", "y" * 40_000), status=431, code=Code.HEADERS_TOO_LARGE),
    put("1,000 header fields", *[(f"X-{n}", "y" * 60) for n in range(1_000)], status=431, code=Code.HEADERS_TOO_LARGE),
    Hostile(
        "not HTTP", "", "", 400, Code.MALFORMED_REQUEST, raw=b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"
    ),
    Hostile(
        "raw bytes in the path",
        "",
        "",
        400,
        Code.MALFORMED_REQUEST,
        raw=b"GET /v1/stream/\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    ),
    Hostile(
        "two lengths",
        "",
        "",
        400,
        Code.MALFORMED_REQUEST,
        raw=b"POST /v1/stream/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    ),
]


@pytest.fixture
def stream(http: httpx.Client) -> str:
    """The path of a text stream; the path with `/json` is that of a JSON stream."""
    name = f"/v1/stream/hostile-{next(numbers)}"
    assert http.put(name, content=b"hello", headers={"Content-Type": "text/plain"}).status_code == 201
    assert (
        http.put(name + "/json", content=b'["hello"]', headers={"Content-Type": "application/json"}).status_code == 201
    )
    return name


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: hostile.name)
def test_hostile_request_is_refused_with_documented_status_and_code(
    hostile: Hostile, server: RunningServer, http: httpx.Client, stream: str
) -> None:
    """The existing streams keep their bytes, and none is created."""
    target = stream + "/json" if JSON in hostile.headers else stream
    before = [http.get(stream).content, http.get(stream + "/json").content]
    if hostile.raw is not None:
        answer = exchange(server.url, hostile.raw)
    else:
        headers = [(name, value.replace("{s}", target)) for name, value in hostile.headers]
        if hostile.body:
            headers.append(("Content-Length", str(len(hostile.body))))
        answer = exchange(
            server.url, request_bytes(hostile.method, hostile.target.replace("{s}", target), headers, hostile.body)
        )
    assert (answer.status, answer.error_code) == (hostile.status, hostile.code.value)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert [http.get(stream).content, http.get(stream + "/json").content] == before
    assert http.head("/v1/stream/hostile-new").status_code == 404


def test_hostile_requests_are_at_least_sixty_distinct_cases() -> None:
    """The names of the cases are distinct, so that a failure names one."""
    assert len(HOSTILE) >= 60
    assert len({hostile.name for hostile in HOSTILE}) == len(HOSTILE)
