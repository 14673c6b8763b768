"""What the public suite leaves open, through a real connection."""

from email.utils import parsedate_to_datetime
from itertools import count

import httpx
import pytest

from tests.support.offsets import offset_in

TEXT = {"Content-Type": "text/plain"}
JSON = {"Content-Type": "application/json"}
numbers = count()


@pytest.fixture
def name() -> str:
    """A path that nothing is at."""
    return f"/v1/stream/corner-{next(numbers)}"


def test_a_life_has_its_own_etag(http: httpx.Client, name: str) -> None:
    """A stream that was deleted and made anew is not taken for the old one by any cache."""
    http.put(name, content=b"x", headers=TEXT)
    old = http.get(name).headers["etag"]
    http.delete(name)
    http.put(name, content=b"y", headers=TEXT)
    answer = http.get(name, headers={"If-None-Match": old})
    assert (answer.status_code, answer.content) == (200, b"y")


@pytest.mark.parametrize("spelling", ["{tag}", "W/{tag}", '"other", {tag}', "*"])
def test_a_known_page_is_not_sent_again(http: httpx.Client, name: str, spelling: str) -> None:
    """RFC 9110's weak comparison; a compressing proxy weakens tags."""
    http.put(name, content=b"x", headers=TEXT)
    tag = http.get(name).headers["etag"]
    answer = http.get(name, headers={"If-None-Match": spelling.format(tag=tag)})
    assert (answer.status_code, answer.content) == (304, b"")
    http.post(name, headers={"Stream-Closed": "true"})
    assert http.get(name, headers={"If-None-Match": tag}).headers["stream-closed"] == "true"


def test_only_what_has_the_reader_key_may_be_cached_unasked(http: httpx.Client, name: str) -> None:
    """And only what is final, no longer than its stream lives; any other page a cache must ask for."""
    key = http.put(name, content=b"x", headers=TEXT).headers["stream-reader-key"]
    assert http.head(name).headers["stream-reader-key"] == key
    assert http.get(name, params={"rk": key}).headers["cache-control"] == "no-cache"
    http.post(name, headers={"Stream-Closed": "true"})
    assert http.get(name).headers["cache-control"] == "no-cache"
    final = http.get(name, params={"rk": key}).headers
    assert final["cache-control"] == "public, max-age=60, stale-while-revalidate=300"
    ends = {**TEXT, "Stream-TTL": "10", "Stream-Closed": "true"}
    key = http.put(name + "ttl", content=b"x", headers=ends).headers["stream-reader-key"]
    ending = http.get(name + "ttl", params={"rk": key}).headers
    assert ending["cache-control"] == "public"
    rest = parsedate_to_datetime(ending["expires"]) - parsedate_to_datetime(ending["date"])
    assert 0 <= rest.total_seconds() <= 10


def test_a_long_stream_comes_in_pages(http: httpx.Client, name: str) -> None:
    """Each page is whole batches, and the last one says so."""
    batch = b"x" * 400_000
    http.put(name, headers=TEXT)
    for _ in range(7):
        http.post(name, content=batch, headers=TEXT)
    offset, sizes = "-1", []
    while True:
        page = http.get(name, params={"offset": offset})
        sizes.append(len(page.content))
        offset = page.headers["stream-next-offset"]
        if page.headers.get("stream-up-to-date"):
            break
    assert sizes == [800_000, 800_000, 800_000, 400_000]


def test_json_is_kept_byte_for_byte(http: httpx.Client, name: str) -> None:
    """Numbers, escapes and spaces are the writer's."""
    http.put(name, content=b"[]", headers=JSON)
    http.post(name, content=b'[1.0e+2, {"a" : "\\u00e9"}]', headers=JSON)
    http.post(name, content=b"12345678901234567890123", headers=JSON)
    assert http.get(name).content == b'[1.0e+2,{"a" : "\\u00e9"},12345678901234567890123]'


def test_a_fork_may_divide_a_json_batch(http: httpx.Client, name: str) -> None:
    """A sub-offset counts messages past the anchor, within one batch (spec 4.2)."""
    http.put(name, content=b"[1,2,3]", headers=JSON)
    http.post(name, content=b"[4,5]", headers=JSON)
    fork = {"Stream-Forked-From": name, "Stream-Fork-Offset": "-1", "Stream-Fork-Sub-Offset": "2"}
    assert http.put(name + "f", headers=fork).status_code == 201
    http.post(name + "f", content=b"9", headers=JSON)
    assert http.get(name + "f").json() == [1, 2, 9]
    assert http.put(name + "f", headers=fork).status_code == 200
    assert http.put(name + "f", headers={**fork, "Stream-Fork-Sub-Offset": "1"}).status_code == 409
    assert http.put(name + "g", headers={**fork, "Stream-Fork-Sub-Offset": "4"}).status_code == 400


def test_a_fork_is_confirmed_by_what_was_asked_for(http: httpx.Client, name: str) -> None:
    """An inherited lifetime and a lifetime of the same length are two configurations."""
    http.put(name, content=b"x", headers={**TEXT, "Stream-TTL": "60"})
    source = {"Stream-Forked-From": name}
    assert http.put(name + "a", headers=source).status_code == 201
    assert http.put(name + "a", headers=source).status_code == 200
    assert http.put(name + "a", headers={**source, "Stream-TTL": "60"}).status_code == 409
    assert http.put(name + "b", headers={**source, "Stream-TTL": "60"}).status_code == 201
    assert http.put(name + "b", headers=source).status_code == 409
    assert http.put(name + "b", headers=TEXT).status_code == 409
    assert http.head(name + "a").headers["stream-ttl"] == "60"


def test_a_fork_is_confirmed_after_its_source_has_gone(http: httpx.Client, name: str) -> None:
    """What exists is looked at before its source is."""
    http.put(name, content=b"x", headers=TEXT)
    source = {"Stream-Forked-From": name}
    http.put(name + "f", headers=source)
    http.delete(name)
    assert http.put(name + "f", headers=source).status_code == 200
    assert http.put(name + "g", headers=source).status_code == 409
    assert http.put(name, headers=TEXT).status_code == 409
    assert http.get(name).status_code == 410


def test_forks_of_forks_have_a_bound(http: httpx.Client, name: str) -> None:
    """A chain is refused at its 65th link, and ends as a whole when its last one goes."""
    http.put(name + "-0", headers=TEXT)
    statuses = [
        http.put(f"{name}-{depth}", headers={"Stream-Forked-From": f"{name}-{depth - 1}"}).status_code
        for depth in range(1, 66)
    ]
    assert statuses == [201] * 64 + [409]
    for depth in range(64):
        assert http.delete(f"{name}-{depth}").status_code == 204
    assert http.head(f"{name}-0").status_code == 410
    http.delete(f"{name}-64")
    assert http.head(f"{name}-0").status_code == 404


def test_an_unusual_path_is_one_stream(http: httpx.Client, name: str) -> None:
    """However it is spelt; an encoded slash is not a slash."""
    http.put(name + "/caf%C3%A9", content=b"x", headers=TEXT)
    assert http.head(name + "/%63af%c3%a9").status_code == 200
    http.put(name + "/a%2Fb", headers=TEXT)
    assert http.head(name + "/a/b").status_code == 404


def test_a_browser_may_ask_before_it_writes(http: httpx.Client, name: str) -> None:
    """A preflight allows what the protocol's headers need."""
    answer = http.options(name, headers={"Origin": "http://localhost:5173"})
    assert answer.status_code == 204
    assert "Producer-Id" in answer.headers["access-control-allow-headers"]
    assert answer.headers["access-control-allow-origin"] == "http://localhost:5173"


def test_the_location_is_the_url_that_the_client_used(http: httpx.Client, name: str) -> None:
    """Also behind a proxy that ends TLS."""
    assert http.put(name, headers=TEXT).headers["location"] == f"{http.base_url}{name}".replace("//v1", "/v1")
    answer = http.put(name + "b", headers={**TEXT, "X-Forwarded-Proto": "https", "Host": "streams.example"})
    assert answer.headers["location"] == f"https://streams.example{name}b"


def test_an_empty_stream_reads_as_nothing(http: httpx.Client, name: str) -> None:
    """At the tail there is an empty page, as the content type has it."""
    http.put(name, headers=JSON)
    answer = http.get(name)
    assert (answer.content, answer.headers["stream-next-offset"]) == (b"[]", offset_in(http, name, 0))


def test_metrics_and_health_are_told(http: httpx.Client) -> None:
    """For the operator's tools."""
    assert http.get("/health").json()["status"] == "ok"
    assert "fluvial_live_reads" in http.get("/metrics").text


def test_a_fork_of_another_type_is_refused(http: httpx.Client, name: str) -> None:
    """A fork has its source's content type."""
    http.put(name, content=b"x", headers=TEXT)
    answer = http.put(name + "f", headers={**JSON, "Stream-Forked-From": name})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "content_type_mismatch")


def test_a_fork_at_no_boundary_is_refused(http: httpx.Client, name: str) -> None:
    """An offset inside a batch was never issued."""
    http.put(name, content=b"hello", headers=TEXT)
    headers = {"Stream-Forked-From": name, "Stream-Fork-Offset": offset_in(http, name, 2)}
    answer = http.put(name + "f", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unknown_fork_offset")


def test_a_create_that_differs_says_in_what(http: httpx.Client, name: str) -> None:
    """The message names the first difference."""
    http.put(name, headers={**TEXT, "Stream-Expires-At": "2099-01-01T00:00:00Z"})
    same_moment = {**TEXT, "Stream-Expires-At": "2099-01-01T01:00:00+01:00"}
    assert http.put(name, headers=same_moment).status_code == 200
    for headers, difference in [
        (JSON, "content type"),
        (TEXT, "lifetime"),
        ({**same_moment, "Stream-Closed": "true"}, "closure status"),
        ({**same_moment, "Stream-Forked-From": name}, "origin"),
    ]:
        answer = http.put(name, headers=headers)
        assert answer.status_code == 409
        assert difference in answer.json()["error"]["message"]
    assert http.head(name).headers["stream-expires-at"] == "2099-01-01T00:00:00Z"


def test_forks_of_different_sources_differ(http: httpx.Client, name: str) -> None:
    """And so do forks at different offsets."""
    for source in ("1", "2"):
        http.put(name + source, content=b"x", headers=TEXT)
    http.put(name, headers={"Stream-Forked-From": name + "1"})
    for headers in ({"Stream-Forked-From": name + "2"}, {"Stream-Forked-From": name + "1", "Stream-Fork-Offset": "-1"}):
        assert http.put(name, headers=headers).status_code == 409


def test_a_closing_producer_is_told_its_success_again(http: httpx.Client, name: str) -> None:
    """The same stamp is a retry; any other finds the stream closed (spec 5.2.1)."""
    http.put(name, headers=TEXT)
    stamp = {"Producer-Id": "p", "Producer-Epoch": "1", "Producer-Seq": "0"}
    closing = {**TEXT, **stamp, "Stream-Closed": "true"}
    assert http.post(name, content=b"end", headers=closing).status_code == 200
    again = http.post(name, content=b"end", headers=closing)
    assert (again.status_code, again.headers["stream-closed"], again.headers["producer-seq"]) == (204, "true", "0")
    assert http.post(name, content=b"end", headers={**closing, "Producer-Seq": "1"}).status_code == 409
    assert http.post(name, headers={"Stream-Closed": "true"}).status_code == 204
    assert http.get(name).content == b"end"


@pytest.mark.parametrize(
    ("stamp", "status", "header"),
    [
        (("1", "0"), 403, ("producer-epoch", "2")),
        (("3", "1"), 400, None),
        (("2", "0"), 204, ("producer-seq", "0")),
        (("2", "2"), 409, ("producer-expected-seq", "1")),
    ],
)
def test_a_producer_is_told_where_it_stands(
    http: httpx.Client, name: str, stamp: tuple[str, str], status: int, header: tuple[str, str] | None
) -> None:
    """Fenced, begun wrong, a duplicate or a gap (spec 5.2.1)."""
    http.put(name, headers=TEXT)
    first = {**TEXT, "Producer-Id": "p", "Producer-Epoch": "2", "Producer-Seq": "0"}
    http.post(name, content=b"x", headers=first)
    answer = http.post(name, content=b"y", headers={**first, "Producer-Epoch": stamp[0], "Producer-Seq": stamp[1]})
    assert answer.status_code == status
    if header is not None:
        assert answer.headers[header[0]] == header[1]
    assert http.get(name).content == b"x"


def test_stream_seq_only_goes_up(http: httpx.Client, name: str) -> None:
    """Byte by byte, whatever it looks like."""
    http.put(name, headers=TEXT)
    answers = [http.post(name, content=b"x", headers={**TEXT, "Stream-Seq": seq}) for seq in ("2", "10", "2")]
    assert [answer.status_code for answer in answers] == [204, 409, 409]
    # By these words clients (PHP's, and the adapters of others) tell it from the other conflicts.
    assert "sequence conflict" in answers[1].json()["error"]["message"]


def test_long_polls_at_the_end(http: httpx.Client, name: str) -> None:
    """A closed stream does not let its readers wait; a missing one is not waited for."""
    http.put(name, content=b"x", headers={**TEXT, "Stream-Closed": "true"})
    query = {"offset": "now", "live": "long-poll"}
    answer = http.get(name, params=query)
    assert (answer.status_code, answer.headers["stream-closed"]) == (204, "true")
    assert http.get(name, params={**query, "offset": "-1"}).content == b"x"
    assert http.get(name + "-no", params=query).status_code == 404


def test_every_answer_has_its_date(http: httpx.Client, name: str) -> None:
    """A cache tells a page's age by it (RFC 9110, section 6.6.1)."""
    asked = [
        ("PUT", name),
        ("GET", name),
        ("HEAD", name),
        ("POST", name),
        ("GET", "/v1/stream/nothing"),
        ("DELETE", name),
    ]
    for method, path in asked:
        assert parsedate_to_datetime(http.request(method, path).headers["date"]).year > 2000


def test_streams_are_listed_a_page_at_a_time(http: httpx.Client) -> None:
    """Below a prefix, in order; a page that cannot be is a clear 400."""
    for number in range(5):
        http.put(f"/v1/stream/listed/{number}", headers=TEXT)
    http.delete("/v1/stream/listed/3")
    first = http.get("/v1/streams", params={"prefix": "listed/", "limit": 3})
    assert first.json() == {"streams": ["listed/0", "listed/1", "listed/2"], "next": "listed/2"}
    assert first.headers["cache-control"] == "no-store"
    rest = http.get("/v1/streams", params={"prefix": "listed/", "limit": 3, "after": "listed/2"})
    assert rest.json() == {"streams": ["listed/4"], "next": None}
    for limit in ("0", "1001", "x", "1e3"):
        refused = http.get("/v1/streams", params={"limit": limit})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "malformed_query")
