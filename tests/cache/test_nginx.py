"""The cache in front: readers of one page are one request, and nobody gets what is not theirs, or not any more."""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from fluvial.model.permissions import Scope
from tests.access.clients import JSON, bearer, mint_token, operator, server_client
from tests.cache.nginx import Nginx, running_nginx
from tests.support.access import SECRET

#: They wait for nginx and for clocks.
pytestmark = pytest.mark.slow

READERS = 100
TEXT = {"content-type": "text/plain"}
LIFETIME_S = 3

#: How long one request may take.
TOLERANCE_S = 0.5
_NUMBERS = count(1)


@dataclass
class Front:
    """nginx, and the server behind it."""

    nginx: Nginx
    origin: httpx.Client
    cached: httpx.Client

    def stream(self, *batches: bytes, public: bool = False, **fields: str) -> tuple[str, str]:
        """A new stream of `demo`: its path, and its reader key."""
        path = f"/v1/stream/demo/{next(_NUMBERS)}"
        return path, self.make(path, *batches, public=public, **fields)

    def make(self, path: str, *batches: bytes, public: bool = False, **fields: str) -> str:
        """A new stream at a path; its reader key."""
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        query = "?public=true" if public else ""
        made = self.cached.put(path + query, headers={**writer(), **TEXT, **headers})
        assert made.status_code == 201, made.text
        for batch in batches:
            assert self.cached.post(path, content=batch, headers={**writer(), **TEXT}).status_code == 204
        return made.headers["stream-reader-key"]

    def close(self, path: str) -> None:
        """End a stream: all of it may be cached."""
        assert self.cached.post(path, headers={**writer(), "stream-closed": "true"}).status_code == 204

    def offset(self, path: str, position: int) -> str:
        """The token of a position in a stream's present incarnation."""
        tail = self.origin.head(path, headers=reader()).headers["stream-next-offset"]
        return f"{tail.partition('_')[0]}_{position:016d}"


def is_hit(answer: httpx.Response) -> bool:
    """Whether the cache had it, as the answer says. The log would tell as well, but only some time after the answer."""
    assert answer.headers["cache-status"].startswith("nginx; ")
    return "; hit" in answer.headers["cache-status"]


def writer() -> dict[str, str]:
    """A writer's token."""
    return bearer(mint_token(Scope.WRITE))


def reader() -> dict[str, str]:
    """A reader's token."""
    return bearer(mint_token())


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    """A server with projects, behind nginx."""
    with (
        server_client(tmp_path, "--long-poll-timeout", "0.3") as api,
        running_nginx(tmp_path / "nginx", str(api.http.base_url).rstrip("/")) as nginx,
        httpx.Client(base_url=nginx.url, timeout=30) as cached,
    ):
        yield Front(nginx, api.http, cached)


async def all_at_once(url: str, path: str, headers: dict[str, str]) -> list[httpx.Response]:
    """Many readers that begin at the same time, each with a connection of its own."""
    limits = httpx.Limits(max_connections=READERS)
    async with httpx.AsyncClient(base_url=url, timeout=30, limits=limits) as client:
        return await asyncio.gather(*(client.get(path, headers=headers) for _ in range(READERS)))


def test_many_readers_of_one_page_are_one_request_to_the_server(
    front: Front, capsys: pytest.CaptureFixture[str]
) -> None:
    """A hundred readers go through a stream; the server is asked once for each page before the tail."""
    size = 600_000  # of which a page has one
    path, key = front.stream(*(bytes([letter]) * size for letter in b"abcd"))
    offset, pages, hits = "-1", 0, 0
    while not offset.endswith(f"_{3 * size:016d}"):
        answers = asyncio.run(all_at_once(front.nginx.url, f"{path}?offset={offset}&rk={key}", reader()))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
        hits += sum(map(is_hit, answers))
        offset, pages = answers[0].headers["stream-next-offset"], pages + 1
    reads = pages * READERS
    with capsys.disabled():
        counts = f"{reads - hits} requests to the server, {hits / reads:.1%} hits"
        sys.stdout.write(f"\n{READERS} readers of {pages} pages: {counts}\n")
    assert reads - hits <= pages + 1


def test_cached_page_is_served_while_the_server_is_down(tmp_path: Path) -> None:
    """So it was not asked."""
    with ExitStack() as stack:
        server = stack.enter_context(ExitStack())
        api = server.enter_context(server_client(tmp_path))
        nginx = stack.enter_context(running_nginx(tmp_path / "nginx", str(api.http.base_url).rstrip("/")))
        cached = stack.enter_context(httpx.Client(base_url=nginx.url, timeout=30))
        front = Front(nginx, api.http, cached)
        path, key = front.stream(b"x" * 10)
        front.close(path)
        assert cached.get(f"{path}?offset=-1&rk={key}", headers=reader()).status_code == 200
        server.close()
        answers = asyncio.run(all_at_once(nginx.url, f"{path}?offset=-1&rk={key}", {}))
    assert {answer.content for answer in answers} == {b"x" * 10}


def test_cached_private_page_needs_the_reader_key(front: Front) -> None:
    """Its key is as good as a token for what is cached; nothing else is, and a turned key is worth nothing new."""
    path, key = front.stream(b"one", b"two")
    url = f"{path}?offset={0:016d}_{0:016d}"
    front.close(path)
    assert front.cached.get(f"{url}&rk={key}").status_code == 401  # not cached yet: the server wants a token
    assert front.cached.get(f"{url}&rk={key}", headers=reader()).content == b"onetwo"
    found = front.cached.get(f"{url}&rk={key}")
    assert found.content == b"onetwo"
    assert is_hit(found)
    for other in (
        url,
        f"{url}&rk=",
        f"{url}&rk={key}x",
        f"{url}&rk={key[:-1]}",
        f"{url}&RK={key}",
        f"{url}&%72k={key}",
    ):
        assert front.cached.get(other).status_code == 401, other
        assert front.cached.get(other, headers=reader()).status_code == 200, other
        assert front.cached.get(other).status_code == 401, other
    turned = front.cached.post(f"/v1/reader-key{path.removeprefix('/v1/stream')}", headers=operator()).json()[
        "readerKey"
    ]
    assert front.cached.get(f"{url}&rk={turned}").status_code == 401
    found = front.cached.get(f"{url}&rk={turned}", headers=reader())
    assert found.content == b"onetwo"
    assert not is_hit(found)
    assert front.cached.head(path, headers=reader()).headers["stream-reader-key"] == turned
    # What is kept under the former key is not renewed: asked for again it is for nobody's cache.
    former = front.origin.get(f"{url}&rk={key}", headers=reader())
    assert former.headers["cache-control"] == "private, no-store"


@pytest.mark.parametrize("public", [False, True])
def test_recreated_stream_is_not_served_from_the_cache_of_the_deleted_one(front: Front, *, public: bool) -> None:
    """With its key another URL is asked for; without one nothing is kept."""
    path, key = front.stream(b"former", public=public)
    front.close(path)
    bare, keyed = f"{path}?offset=-1", f"{path}?offset=-1&rk={key}"
    found = [front.cached.get(url, headers=reader()) for url in (bare, keyed, bare, keyed)]
    assert {answer.content for answer in found} == {b"former"}
    assert [is_hit(answer) for answer in found] == [False, False, False, True]
    assert front.cached.delete(path, headers=writer()).status_code == 204
    again = front.make(path, b"latter", public=public)
    assert again != key
    assert front.cached.get(bare, headers=reader()).content == b"latter"
    assert front.cached.get(f"{path}?offset=-1&rk={again}", headers=reader()).content == b"latter"
    front.close(path)
    etag = front.cached.get(bare, headers=reader()).headers["etag"]
    assert front.cached.get(bare, headers={**reader(), "if-none-match": etag}).status_code == 304


def test_compressed_and_plain_pages_are_cached_apart(front: Front) -> None:
    """Each client gets what it can read, from the cache as well."""
    path, key = front.stream(b"the same again\n" * 10_000, public=True)
    front.close(path)
    url = f"{path}?offset=-1&rk={key}"
    hits = []
    for coding in ("gzip", "identity") * 3:
        answer = front.cached.get(url, headers={"accept-encoding": coding})
        hits.append(is_hit(answer))
        assert answer.headers.get("content-encoding") == (coding if coding == "gzip" else None)
        assert answer.content == b"the same again\n" * 10_000
    assert hits == [False] * 2 + [True] * 4


def test_odd_spellings_of_query_and_path_do_not_poison_the_cache(front: Front) -> None:
    """Whatever is asked for in an odd way, what others then get under the plain URL is theirs."""
    path, key = front.stream(b"1" * 700_000, b"2" * 700_000, b"3")
    second = front.offset(path, 700_000)
    plain = f"{path}?offset=-1&rk={key}"
    odd = [
        f"{path}?OFFSET=-1&offset={second}&rk={key}",
        f"{path}?rk={key}&%6fffset={second}",
        f"{path}?offset=-1&rk={key}&%6Fffset={second}",
        f"{path}?rk={key}&offset={second}",
        f"{path}?offset=-1&offset={second}&rk={key}",
        f"{path}?offset={second}&offset=-1&rk={key}",
        f"{path}?offset=-1&rk={key}&rk=x",
        f"{path}?offset=-1;offset={second}&rk={key}",
        f"{path}?offset={second}%26offset=-1&rk={key}",
        f"{path}?&offset={second}&rk={key}",
        f"{path}?offset={second}&rk={key}#?offset=-1",
        f"{path}/?offset=-1&rk={key}",
        f"{path.replace('/demo/', '/demo//')}?offset=-1&rk={key}",
        f"{path.replace('/demo/', '/demo/./')}?offset=-1&rk={key}",
        f"{path.replace('/demo/', '/demo%2F')}?offset=-1&rk={key}",
    ]
    hostile = {
        "x-forwarded-host": "evil.example",
        "x-original-url": "/v1/stream/demo/other",
        "x-http-method-override": "HEAD",
    }
    for url in odd:
        front.cached.get(url, headers={**reader(), **hostile})
    for _ in range(2):
        assert front.cached.get(plain, headers=reader()).content == b"1" * 700_000
        found = front.cached.get(f"{path}?offset={second}&rk={key}", headers=reader())
        assert found.content == b"2" * 700_000 + b"3"


def test_streams_with_similar_paths_are_cached_apart(front: Front) -> None:
    """`a%2Fb` is another stream than `a/b`."""
    number = next(_NUMBERS)
    paths = [f"/v1/stream/demo/{number}a%2Fb", f"/v1/stream/demo/{number}a/b", f"/v1/stream/demo/{number}a%252Fb"]
    for path in paths:
        key = front.make(path, path.encode())
        front.close(path)
        found = [front.cached.get(f"{path}?offset=-1&rk={key}", headers=reader()) for _ in range(2)]
        assert {answer.content for answer in found} == {path.encode()}
        assert [is_hit(answer) for answer in found] == [False, True]


def test_tail_now_errors_head_and_events_are_not_cached(front: Front) -> None:
    """The tail, `now`, 204, errors, HEAD, events: asked again, the server answers again, and differently by then."""
    path, key = front.stream(b"x")
    tail = front.offset(path, 1)
    asked = [
        ("GET", f"{path}?offset=-1&rk={key}", 200),
        ("GET", f"{path}?offset=now&rk={key}", 200),
        ("GET", f"{path}?offset={tail}&rk={key}", 200),
        ("GET", f"{path}?cursor=1&live=long-poll&offset={tail}&rk={key}", 204),
        ("GET", f"{path}?offset=nonsense&rk={key}", 400),
        ("GET", f"{path}?live=sse&offset=-1&rk={key}", 200),
        ("HEAD", f"{path}?rk={key}", 200),
        ("GET", f"{path}none?rk={key}", 404),
    ]
    for method, url, status in asked:
        for _ in range(2):
            answer = front.cached.request(method, url, headers=reader())
            assert answer.status_code == status, (method, url)
            assert not is_hit(answer), (method, url)


def test_long_poll_with_data_is_cached_by_its_cursor(front: Front) -> None:
    """Whoever comes with the same cursor a little later is answered at once, and goes on with another."""
    path, key = front.stream(b"x")
    url = f"{path}?cursor=1&live=long-poll&offset=-1&rk={key}"
    first, second = (front.cached.get(url, headers=reader()) for _ in range(2))
    assert (first.content, second.content) == (b"x", b"x")
    assert first.headers["stream-cursor"] == second.headers["stream-cursor"] != "1"
    assert [is_hit(first), is_hit(second)] == [False, True]


def test_cached_page_expires_with_its_stream(front: Front) -> None:
    """Also when it was cached just before the end."""
    ends_at = (datetime.now(UTC) + timedelta(seconds=LIFETIME_S)).replace(microsecond=0)  # what both clocks can tell
    path, key = front.stream(b"x", stream_expires_at=ends_at.isoformat().replace("+00:00", "Z"))
    front.close(path)
    url, hits = f"{path}?offset=-1&rk={key}", 0
    while (found := front.cached.get(url, headers=reader())).status_code == 200:
        assert datetime.now(UTC) < ends_at + timedelta(seconds=TOLERANCE_S)
        hits += is_hit(found)
    assert hits > 0
    assert datetime.now(UTC) >= ends_at


def test_cached_page_has_the_cors_headers_of_each_origin(front: Front) -> None:
    """Of several, from the cache as well."""
    origins = {"origins": ["https://a.example", "https://b.example"]}
    answer = front.cached.put("/v1/projects/demo/origins", content=json.dumps(origins), headers={**operator(), **JSON})
    assert answer.status_code == 200
    path, key = front.stream(b"x")
    front.close(path)
    for _ in range(2):
        for origin in ("https://a.example", "https://b.example", "https://evil.example", "null"):
            found = front.cached.get(f"{path}?offset=-1&rk={key}", headers={**reader(), "origin": origin})
            allowed = origin if origin in origins["origins"] else None
            assert found.headers.get("access-control-allow-origin") == allowed


def test_event_streams_and_websockets_pass_through_nginx(front: Front) -> None:
    """One by one, as they come."""
    path, key = front.stream(b"x")
    with front.cached.stream("GET", f"{path}?live=sse&offset=-1&rk={key}", headers=reader()) as events:
        assert next(line for line in events.iter_lines() if line.startswith("data:"))
    url = front.nginx.url.replace("http", "ws")
    with connect(f"{url}{path}?live=websocket&offset=-1&token={mint_token()}") as socket:
        assert json.loads(socket.recv(timeout=5))["payload"] == "x"


def test_nginx_log_has_no_token_and_no_reader_key(front: Front) -> None:
    """Whatever becomes of a request."""
    path, key = front.stream(b"x")
    token = mint_token()
    for url in (f"{path}?rk={key}&token={token}", f"{path}none?token={token}", f"{path}?offset=bad&rk={key}"):
        front.cached.get(url)
        front.cached.get(url, headers=bearer(token))
    front.cached.get("/elsewhere?token=" + token)
    log = front.nginx.log
    assert path in log
    assert token not in log
    assert key not in log
    assert SECRET.value not in log


def test_preconditions_are_compared_by_the_server(front: Front) -> None:
    """Those of writes and of reads; nginx compares the tags of what is in its cache only to say that nothing is new."""
    path, key = front.stream(b"a")
    tag = front.cached.head(path, headers=reader()).headers["etag"]
    unlike = {"if-match": '"unlike"'}
    for write in (
        front.cached.post(path, content=b"b", headers={**writer(), **TEXT, **unlike}),
        front.cached.put(path, headers={**writer(), **TEXT, "if-none-match": "*"}),
        front.cached.delete(path, headers={**writer(), **unlike}),
    ):
        assert write.status_code == 412
    chained = front.cached.post(path, content=b"b", headers={**writer(), **TEXT, "if-match": tag})
    assert chained.status_code == 204
    assert front.cached.get(path, headers={**reader(), **unlike}).status_code == 412
    front.close(path)
    url = f"{path}?offset=-1&rk={key}"
    assert front.cached.get(url, headers=reader()).content == b"ab"
    with httpx.Client(base_url=front.nginx.url, limits=httpx.Limits(max_connections=1)) as one:
        for precondition in (unlike, {"if-match": "*"}, {"if-unmodified-since": "Thu, 01 Jan 1970 00:00:00 GMT"}) * 3:
            found = one.get(url, headers={**reader(), **precondition})
            assert found.status_code == (412 if precondition == unlike else 200)
            assert not is_hit(found)
        fresh = one.get(url, headers=reader())
        assert (fresh.content, is_hit(fresh)) == (b"ab", True)
        known = one.get(url, headers={**reader(), "if-none-match": fresh.headers["etag"]})
        assert (known.status_code, is_hit(known)) == (304, True)
