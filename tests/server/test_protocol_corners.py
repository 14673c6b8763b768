"""Rules of the protocol that the public conformance suite does not test, over a real connection."""

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
    """A path without a stream."""
    return f"/v1/stream/corner-{next(numbers)}"


def test_etag_changes_with_the_incarnation(http: httpx.Client, name: str) -> None:
    """A cache does not confuse a stream with a deleted one of the same name."""
    http.put(name, content=b"x", headers=TEXT)
    old = http.get(name).headers["etag"]
    http.delete(name)
    http.put(name, content=b"y", headers=TEXT)
    answer = http.get(name, headers={"If-None-Match": old})
    assert (answer.status_code, answer.content) == (200, b"y")


@pytest.mark.parametrize("spelling", ["{tag}", "W/{tag}", '"other", {tag}', "*"])
def test_page_with_matching_if_none_match_is_304(http: httpx.Client, name: str, spelling: str) -> None:
    """The comparison is weak, because compressing proxies weaken tags (RFC 9110, section 8.8.3.2)."""
    http.put(name, content=b"x", headers=TEXT)
    tag = http.get(name).headers["etag"]
    answer = http.get(name, headers={"If-None-Match": spelling.format(tag=tag)})
    assert (answer.status_code, answer.content) == (304, b"")
    http.post(name, headers={"Stream-Closed": "true"})
    assert http.get(name, headers={"If-None-Match": tag}).headers["stream-closed"] == "true"


def test_only_final_page_with_reader_key_is_cacheable(http: httpx.Client, name: str) -> None:
    """It is cacheable until its stream expires; any other page must be revalidated."""
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


def test_long_stream_is_read_in_pages(http: httpx.Client, name: str) -> None:
    """Each page has complete batches, and the last one has Stream-Up-To-Date."""
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


def test_json_messages_are_stored_byte_for_byte(http: httpx.Client, name: str) -> None:
    """Numbers, escapes and spaces stay as they were sent."""
    http.put(name, content=b"[]", headers=JSON)
    http.post(name, content=b'[1.0e+2, {"a" : "\\u00e9"}]', headers=JSON)
    http.post(name, content=b"12345678901234567890123", headers=JSON)
    assert http.get(name).content == b'[1.0e+2,{"a" : "\\u00e9"},12345678901234567890123]'


def test_fork_sub_offset_divides_a_json_batch(http: httpx.Client, name: str) -> None:
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


def test_repeated_fork_is_confirmed_only_with_the_same_fields(http: httpx.Client, name: str) -> None:
    """An inherited lifetime differs from an explicit one of the same length."""
    http.put(name, content=b"x", headers={**TEXT, "Stream-TTL": "60"})
    source = {"Stream-Forked-From": name}
    assert http.put(name + "a", headers=source).status_code == 201
    assert http.put(name + "a", headers=source).status_code == 200
    assert http.put(name + "a", headers={**source, "Stream-TTL": "60"}).status_code == 409
    assert http.put(name + "b", headers={**source, "Stream-TTL": "60"}).status_code == 201
    assert http.put(name + "b", headers=source).status_code == 409
    assert http.put(name + "b", headers=TEXT).status_code == 409
    assert http.head(name + "a").headers["stream-ttl"] == "60"


def test_repeated_fork_is_confirmed_after_its_source_was_deleted(http: httpx.Client, name: str) -> None:
    """The existing stream is compared before the source is loaded."""
    http.put(name, content=b"x", headers=TEXT)
    source = {"Stream-Forked-From": name}
    http.put(name + "f", headers=source)
    http.delete(name)
    assert http.put(name + "f", headers=source).status_code == 200
    assert http.put(name + "g", headers=source).status_code == 409
    assert http.put(name, headers=TEXT).status_code == 409
    assert http.get(name).status_code == 410


def test_chain_of_forks_is_limited_to_64(http: httpx.Client, name: str) -> None:
    """The 65th fork is refused; deleting the last one deletes its soft-deleted ancestors."""
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


def test_spellings_of_one_path_are_one_stream(http: httpx.Client, name: str) -> None:
    """An encoded slash is not a slash."""
    http.put(name + "/caf%C3%A9", content=b"x", headers=TEXT)
    assert http.head(name + "/%63af%c3%a9").status_code == 200
    http.put(name + "/a%2Fb", headers=TEXT)
    assert http.head(name + "/a/b").status_code == 404


def test_preflight_allows_the_fields_of_the_protocol(http: httpx.Client, name: str) -> None:
    """A browser asks before a page of another origin writes."""
    answer = http.options(name, headers={"Origin": "http://localhost:5173"})
    assert answer.status_code == 204
    assert "Producer-Id" in answer.headers["access-control-allow-headers"]
    assert answer.headers["access-control-allow-origin"] == "http://localhost:5173"


def test_location_is_the_clients_url(http: httpx.Client, name: str) -> None:
    """Behind a proxy that terminates TLS its scheme is https."""
    assert http.put(name, headers=TEXT).headers["location"] == f"{http.base_url}{name}".replace("//v1", "/v1")
    answer = http.put(name + "b", headers={**TEXT, "X-Forwarded-Proto": "https", "Host": "streams.example"})
    assert answer.headers["location"] == f"https://streams.example{name}b"


def test_empty_json_stream_reads_as_an_empty_array(http: httpx.Client, name: str) -> None:
    """An empty page has the form of the content type."""
    http.put(name, headers=JSON)
    answer = http.get(name)
    assert (answer.content, answer.headers["stream-next-offset"]) == (b"[]", offset_in(http, name, 0))


def test_health_and_metrics_are_served(http: httpx.Client) -> None:
    """Operators' tools read them."""
    assert http.get("/health").json()["status"] == "ok"
    assert "fluvial_live_reads" in http.get("/metrics").text


def test_fork_with_another_content_type_is_refused(http: httpx.Client, name: str) -> None:
    """A fork inherits its source's content type."""
    http.put(name, content=b"x", headers=TEXT)
    answer = http.put(name + "f", headers={**JSON, "Stream-Forked-From": name})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "content_type_mismatch")


def test_fork_offset_inside_a_batch_is_refused(http: httpx.Client, name: str) -> None:
    """The server never issued such an offset."""
    http.put(name, content=b"hello", headers=TEXT)
    headers = {"Stream-Forked-From": name, "Stream-Fork-Offset": offset_in(http, name, 2)}
    answer = http.put(name + "f", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unknown_fork_offset")


def test_conflicting_create_names_the_difference(http: httpx.Client, name: str) -> None:
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


def test_fork_conflicts_with_fork_of_another_source_or_offset(http: httpx.Client, name: str) -> None:
    """The existing fork is kept, and the PUT is a 409."""
    for source in ("1", "2"):
        http.put(name + source, content=b"x", headers=TEXT)
    http.put(name, headers={"Stream-Forked-From": name + "1"})
    for headers in ({"Stream-Forked-From": name + "2"}, {"Stream-Forked-From": name + "1", "Stream-Fork-Offset": "-1"}):
        assert http.put(name, headers=headers).status_code == 409


def test_repeated_close_of_a_producer_is_a_duplicate(http: httpx.Client, name: str) -> None:
    """The same stamp is a retry and succeeds; any other is refused by the closed stream (spec 5.2.1)."""
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
def test_rejected_producer_learns_epoch_or_sequence(
    http: httpx.Client, name: str, stamp: tuple[str, str], status: int, header: tuple[str, str] | None
) -> None:
    """It is fenced, begins an epoch past 0, sends a duplicate, or leaves a gap (spec 5.2.1)."""
    http.put(name, headers=TEXT)
    first = {**TEXT, "Producer-Id": "p", "Producer-Epoch": "2", "Producer-Seq": "0"}
    http.post(name, content=b"x", headers=first)
    answer = http.post(name, content=b"y", headers={**first, "Producer-Epoch": stamp[0], "Producer-Seq": stamp[1]})
    assert answer.status_code == status
    if header is not None:
        assert answer.headers[header[0]] == header[1]
    assert http.get(name).content == b"x"


def test_stream_seq_must_increase(http: httpx.Client, name: str) -> None:
    """Sequences are compared as bytes, so `10` is before `2`."""
    http.put(name, headers=TEXT)
    answers = [http.post(name, content=b"x", headers={**TEXT, "Stream-Seq": seq}) for seq in ("2", "10", "2")]
    assert [answer.status_code for answer in answers] == [204, 409, 409]
    # Clients (PHP's, and adapters of others) recognise this conflict by these words.
    assert "sequence conflict" in answers[1].json()["error"]["message"]


def test_long_poll_of_closed_or_missing_stream_does_not_wait(http: httpx.Client, name: str) -> None:
    """The answer says that the stream is closed, or that there is none."""
    http.put(name, content=b"x", headers={**TEXT, "Stream-Closed": "true"})
    query = {"offset": "now", "live": "long-poll"}
    answer = http.get(name, params=query)
    assert (answer.status_code, answer.headers["stream-closed"]) == (204, "true")
    assert http.get(name, params={**query, "offset": "-1"}).content == b"x"
    assert http.get(name + "-no", params=query).status_code == 404


def test_every_answer_has_a_date(http: httpx.Client, name: str) -> None:
    """A cache computes a page's age from it (RFC 9110, section 6.6.1)."""
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


def test_stream_list_is_paged(http: httpx.Client) -> None:
    """It has the names below a prefix in order; an invalid limit is a 400."""
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
