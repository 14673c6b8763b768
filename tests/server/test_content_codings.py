"""Content codings over a real connection: compressed request bodies, and compressed answers."""

import asyncio
import gzip
import zlib
from itertools import count

import httpx
import pytest

from fluvial.server.content_coding import INLINE_CODED_BYTES_MAX, decode_body

TEXT = {"Content-Type": "text/plain"}
JSON = {"Content-Type": "application/json"}
LINES = b"the same line again and again\n" * 5_000
numbers = count()


@pytest.fixture
def name() -> str:
    """A path without a stream."""
    return f"/v1/stream/coded-{next(numbers)}"


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(LINES)),
        ("X-GZIP", gzip.compress(LINES)),
        ("deflate", zlib.compress(LINES)),
        ("gzip, deflate", zlib.compress(gzip.compress(LINES))),
        ("identity", LINES),
        ("gzip", gzip.compress(LINES, 0)),
    ],
    ids=["gzip", "X-GZIP", "deflate", "gzip, deflate", "identity", "gzip that is no smaller"],
)
def test_compressed_append_is_stored_decoded(http: httpx.Client, name: str, coding: str, body: bytes) -> None:
    """So is the body that creates a stream."""
    fields = {**TEXT, "Content-Encoding": coding}
    assert http.put(name, content=body, headers=fields).status_code == 201
    assert http.post(name, content=body, headers=fields).status_code == 204
    assert http.get(name).content == LINES * 2


async def test_body_with_several_codings_is_decoded_in_a_thread() -> None:
    """A few hundred bytes may decode to 16 MB; the event loop goes on meanwhile."""
    plain = bytes(16 * 1_048_576)
    body = gzip.compress(gzip.compress(gzip.compress(plain)))
    assert len(body) <= INLINE_CODED_BYTES_MAX
    decoding = asyncio.ensure_future(decode_body(body, {b"content-encoding": b"gzip, gzip, gzip"}, len(plain)))
    await asyncio.sleep(0)
    assert not decoding.done()
    assert await decoding == plain


def test_compressed_json_is_split_after_decoding(http: httpx.Client, name: str) -> None:
    """The messages are those of the decoded body."""
    http.put(name, headers=JSON)
    assert http.post(name, content=gzip.compress(b"[1,2]"), headers={**JSON, "Content-Encoding": "gzip"}).is_success
    assert http.get(name).json() == [1, 2]


def test_content_encoding_lines_are_one_list(http: httpx.Client, name: str) -> None:
    """The codings are in the order of the lines."""
    body = zlib.compress(gzip.compress(b"hello"))
    fields = [*TEXT.items(), ("Content-Encoding", "gzip"), ("Content-Encoding", "deflate")]
    assert http.put(name, content=body, headers=fields).status_code == 201
    assert http.get(name).content == b"hello"


@pytest.mark.parametrize(
    ("coding", "body", "refusal"),
    [
        ("br", b"x", (415, "unsupported_coding")),
        ("gzip, br", b"x", (415, "unsupported_coding")),
        ("gzip", b"x", (400, "malformed_request")),
        ("gzip", gzip.compress(bytes(30_000_000)), (413, "body_too_large")),
    ],
)
def test_undecodable_body_is_refused(
    http: httpx.Client, name: str, coding: str, body: bytes, refusal: tuple[int, str]
) -> None:
    """An unknown coding, damaged data, and too much data have their own errors, and nothing is stored."""
    http.put(name, headers=TEXT)
    answer = http.post(name, content=body, headers={**TEXT, "Content-Encoding": coding})
    assert (answer.status_code, answer.json()["error"]["code"]) == refusal
    assert answer.headers.get("accept-encoding") == ("gzip, deflate" if refusal[0] == 415 else None)
    assert http.get(name).content == b""


def test_compressed_body_of_control_route_is_decoded(http: httpx.Client) -> None:
    """The limit of such bodies is that of the decoded body."""
    fields = {**JSON, "Content-Encoding": "gzip"}
    bomb = gzip.compress(b'{"name":"' + b"x" * 100_000 + b'"}')
    assert http.put("/v1/projects/shop", content=bomb, headers=fields).status_code == 413
    assert http.put("/v1/projects/shop", content=b"x", headers={**JSON, "Content-Encoding": "br"}).status_code == 415


@pytest.mark.parametrize(("fields", "body"), [(TEXT, LINES), (JSON, b"[" + b'{"n":1},' * 1_000 + b"0]")])
def test_large_page_is_compressed_when_asked_for(
    http: httpx.Client, name: str, fields: dict[str, str], body: bytes
) -> None:
    """Each form has its own entity tag; either tag in If-None-Match gives a 304 with the tag of the form asked for."""
    http.put(name, content=body, headers=fields)
    plain = http.get(name, headers={"Accept-Encoding": "identity"})
    coded = http.get(name, headers={"Accept-Encoding": "br;q=1, gzip;q=0.8"})
    assert coded.content == plain.content
    assert (coded.headers["content-encoding"], "content-encoding" in plain.headers) == ("gzip", False)
    assert int(coded.headers["content-length"]) < int(plain.headers["content-length"]) / 10
    assert coded.headers["etag"] != plain.headers["etag"]
    for answer in (plain, coded):
        assert "Accept-Encoding" in answer.headers["vary"]
        for coding in ("identity", "gzip"):
            known = {"Accept-Encoding": coding, "If-None-Match": answer.headers["etag"]}
            again = http.get(name, headers=known)
            assert again.status_code == 304
            assert again.headers["etag"] == (coded if coding == "gzip" else plain).headers["etag"]
            assert "Accept-Encoding" in again.headers["vary"]
    assert http.get(name, headers={"Accept-Encoding": "gzip;q=0"}).headers.get("content-encoding") is None


def test_entity_tag_of_compressed_page_is_a_precondition_of_a_write(http: httpx.Client, name: str) -> None:
    """A browser asks for compressed pages, and never sees the plain form's tag."""
    http.put(name, content=LINES, headers=TEXT)
    read = http.get(name, headers={"Accept-Encoding": "gzip"})
    assert read.headers["content-encoding"] == "gzip"
    guarded = {**TEXT, "If-Match": read.headers["etag"]}
    assert [http.post(name, content=b"x", headers=guarded).status_code for _ in range(2)] == [204, 412]


def test_412_has_the_streams_own_entity_tag(http: httpx.Client, name: str) -> None:
    """It is the tag of HEAD: a 412 is never compressed, whatever its reader accepts."""
    http.put(name, content=LINES, headers=TEXT)
    refused = http.get(name, headers={"If-Match": '"other"', "Accept-Encoding": "gzip"})
    assert (refused.status_code, refused.headers["etag"]) == (412, http.head(name).headers["etag"])
    assert "accept-encoding" not in refused.headers.get("vary", "").lower()


def test_binary_short_and_empty_answers_are_not_compressed(http: httpx.Client, name: str) -> None:
    """Nor do they vary by Accept-Encoding; the answer to a HEAD has no body."""
    asked = {"Accept-Encoding": "gzip"}
    http.put(name, content=LINES, headers={"Content-Type": "application/octet-stream"})
    http.put(name + "s", content=b"short", headers=TEXT)
    for path in (name, name + "s"):
        for method in ("GET", "HEAD"):
            answer = http.request(method, path, headers=asked)
            assert "content-encoding" not in answer.headers
            assert "Accept-Encoding" not in answer.headers.get("vary", "")


def test_events_are_never_compressed(http: httpx.Client, name: str) -> None:
    """A proxy must not compress them either, because events would wait in its buffer."""
    http.put(name, content=LINES, headers={**TEXT, "Stream-Closed": "true"})
    answer = http.get(name, params={"offset": "-1", "live": "sse"}, headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in answer.headers
    assert "no-transform" in answer.headers["cache-control"]


def test_estuary_is_never_compressed(http: httpx.Client, name: str) -> None:
    """The length of a compressed answer would show publishers of its sources whether they guessed its contents."""
    source = name.removeprefix("/v1/stream/")
    http.put(f"/v1/stream/coded/{source}", headers=TEXT)
    made = http.post(f"/v1/estuary/subscribe/coded/{source}", json={"estuaryId": source + "-e"})
    assert made.is_success, made.text
    http.post(f"/v1/stream/coded/{source}", content=LINES, headers=TEXT)
    answer = http.get(f"/v1/stream/coded/{source}-e", headers={"Accept-Encoding": "gzip"})
    assert LINES in answer.content
    assert "content-encoding" not in answer.headers


def test_large_answer_of_control_route_is_compressed_when_asked_for(http: httpx.Client) -> None:
    """HEAD has the same Content-Length."""
    plain = http.get("/openapi.json", headers={"Accept-Encoding": "identity"})
    coded = http.get("/openapi.json", headers={"Accept-Encoding": "gzip"})
    head = http.head("/openapi.json", headers={"Accept-Encoding": "gzip"})
    assert coded.json() == plain.json()
    assert coded.headers["content-encoding"] == head.headers["content-encoding"] == "gzip"
    assert int(head.headers["content-length"]) == int(coded.headers["content-length"]) < len(plain.content)
    assert "Accept-Encoding" in plain.headers["vary"]
