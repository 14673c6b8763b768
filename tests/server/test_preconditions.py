"""Conditional requests over HTTP (RFC 9110, 13)."""

from concurrent.futures import ThreadPoolExecutor
from itertools import count

import httpx
import pytest

from tests.support.servers import RunningServer

TEXT = {"Content-Type": "text/plain"}
JSON = {"Content-Type": "application/json"}
DATE = "Wed, 21 Oct 2015 07:28:00 GMT"
numbers = count()


@pytest.fixture
def name(http: httpx.Client) -> str:
    """A text stream with a few bytes."""
    path = f"/v1/stream/guarded-{next(numbers)}"
    http.put(path, content=b"abc", headers=TEXT)
    return path


def code(answer: httpx.Response) -> tuple[int, str]:
    """An error's status and code."""
    return answer.status_code, answer.json()["error"]["code"]


FAILED = (412, "precondition_failed")

FALSE = [
    {"If-Match": '"not-its-tag"'},
    {"If-Match": "W/{tag}"},
    {"If-Match": ""},
    {"If-None-Match": "*"},
    {"If-None-Match": "{tag}"},
    {"If-None-Match": 'W/"other", W/{tag}'},
    {"If-Match": "{tag}", "If-None-Match": "{tag}"},
]


@pytest.mark.parametrize("fields", FALSE, ids=str)
def test_write_with_a_false_precondition_changes_nothing(http: httpx.Client, name: str, fields: dict[str, str]) -> None:
    """POST, close, PUT and DELETE are answered with 412 and the stream's present tag."""
    tag = http.head(name).headers["etag"]
    condition = {field: value.format(tag=tag) for field, value in fields.items()}
    for answer in (
        http.post(name, content=b"x", headers={**TEXT, **condition}),
        http.post(name, headers={"Stream-Closed": "true", **condition}),
        http.put(name, headers={**TEXT, **condition}),
        http.delete(name, headers=condition),
    ):
        assert code(answer) == FAILED
        assert answer.headers["etag"] == tag
    now = http.get(name)
    assert (now.content, now.headers["etag"]) == (b"abc", tag)
    assert "stream-closed" not in now.headers


@pytest.mark.parametrize(
    "fields",
    [
        {"If-Match": "{tag}"},
        {"If-Match": '"a,b" , {tag},'},
        {"If-Match": "*"},
        {"If-None-Match": '"other", W/"others"'},
        {"If-None-Match": ""},
        {"If-Unmodified-Since": DATE, "If-Modified-Since": DATE},
    ],
    ids=str,
)
def test_write_with_a_true_precondition_is_applied(http: httpx.Client, name: str, fields: dict[str, str]) -> None:
    """Dates are ignored, because no answer has a Last-Modified date."""

    def condition() -> dict[str, str]:
        tag = http.head(name).headers["etag"]
        return {field: value.format(tag=tag) for field, value in fields.items()}

    assert http.put(name, headers={**TEXT, **condition()}).status_code == 200
    assert http.post(name, content=b"d", headers={**TEXT, **condition()}).status_code == 204
    assert http.get(name).content == b"abcd"
    assert http.delete(name, headers=condition()).status_code == 204


@pytest.mark.parametrize("field", ["If-Match", "If-None-Match"])
@pytest.mark.parametrize("value", ["abc", '"open', '*, "a"', '"a" "b"', 'w/"a"'])
def test_malformed_precondition_is_rejected(http: httpx.Client, name: str, field: str, value: str) -> None:
    """By every method."""
    condition = {field: value}
    answers = [
        http.post(name, content=b"x", headers={**TEXT, **condition}),
        http.put(name, headers={**TEXT, **condition}),
        http.delete(name, headers=condition),
        http.get(name, headers=condition),
    ]
    assert {code(answer) for answer in answers} == {(400, "malformed_header")}
    assert http.head(name, headers=condition).status_code == 400
    assert http.get(name).content == b"abc"


def test_number_of_states_in_a_precondition_is_limited(http: httpx.Client, name: str) -> None:
    """Tags that this server does not issue are not counted, and reads have no such limit."""
    many = ", ".join(f'"1:0:{tail}"' for tail in range(17))
    foreign = ", ".join(f'"{tail}"' for tail in range(100))
    assert code(http.delete(name, headers={"If-Match": many})) == (400, "malformed_header")
    assert code(http.delete(name, headers={"If-Match": foreign})) == FAILED
    assert http.get(name, headers={"If-None-Match": many}).status_code == 200


def test_repeated_precondition_field_is_one_list(http: httpx.Client, name: str) -> None:
    """A tag in the second line matches; `*` and a tag in two lines are malformed."""
    tag = http.head(name).headers["etag"]
    twice = httpx.Headers([("If-Match", '"a"'), ("If-Match", tag), *TEXT.items()])
    assert http.post(name, content=b"x", headers=twice).status_code == 204
    assert code(http.post(name, content=b"x", headers=twice)) == FAILED
    mixed = httpx.Headers([("If-Match", "*"), ("If-Match", tag), *TEXT.items()])
    assert code(http.post(name, content=b"x", headers=mixed)) == (400, "malformed_header")


def test_put_with_if_none_match_star_creates_once(http: httpx.Client) -> None:
    """Further PUTs are answered with 412, whatever configuration they ask for."""
    path = f"/v1/stream/guarded-{next(numbers)}"
    once = {**JSON, "If-None-Match": "*"}
    assert http.put(path, headers=once).status_code == 201
    assert code(http.put(path, headers=once)) == FAILED
    assert code(http.put(path, headers={**once, "Content-Type": "text/plain"})) == FAILED
    assert http.put(path, headers=JSON).status_code == 200
    assert code(http.put(path + "x", headers={**JSON, "If-Match": "*"})) == FAILED
    assert http.head(path + "x").status_code == 404


def test_fork_with_if_none_match_star_is_created_once(http: httpx.Client, name: str) -> None:
    """Like any stream."""
    fork = {"Stream-Forked-From": name, "If-None-Match": "*"}
    assert http.put(name + "f", headers=fork).status_code == 201
    assert code(http.put(name + "f", headers=fork)) == FAILED
    assert code(http.put(name + "g", headers={"Stream-Forked-From": name, "If-Match": "*"})) == FAILED
    assert http.head(name + "g").status_code == 404


def test_other_errors_come_before_a_false_precondition(http: httpx.Client, name: str) -> None:
    """A precondition is ignored if the request fails without it."""
    condition = {"If-Match": '"not-its-tag"'}
    assert http.delete(name + "-missing", headers=condition).status_code == 404
    assert http.post(name + "-missing", content=b"x", headers={**TEXT, **condition}).status_code == 404
    assert http.get(name + "-missing", headers=condition).status_code == 404
    assert code(http.post(name, content=b"x", headers={**JSON, **condition}))[0] == 400
    image = {"Content-Type": "image/png", **condition}
    assert code(http.post(name, content=b"x", headers=image)) == (409, "content_type_mismatch")
    http.post(name, headers={"Stream-Closed": "true"})
    assert code(http.post(name, content=b"x", headers={**TEXT, **condition})) == (409, "stream_closed")


def test_writer_chains_conditional_writes_by_their_tags(http: httpx.Client) -> None:
    """Each success has the tag for the next write, and an append by another writer is noticed."""
    path = f"/v1/stream/guarded-{next(numbers)}"
    tag = http.put(path, content=b"a", headers=TEXT).headers["etag"]
    for letter in (b"b", b"c"):
        answer = http.post(path, content=letter, headers={**TEXT, "If-Match": tag})
        tag = answer.headers["etag"]
        assert http.head(path).headers["etag"] == http.get(path).headers["etag"] == tag
    http.post(path, content=b"!", headers=TEXT)
    assert code(http.post(path, content=b"d", headers={**TEXT, "If-Match": tag})) == FAILED
    tag = http.head(path).headers["etag"]
    closed = http.post(path, headers={"Stream-Closed": "true", "If-Match": tag})
    assert closed.headers["etag"] == http.head(path).headers["etag"] != tag


def test_created_json_stream_with_a_body_has_no_tag(http: httpx.Client) -> None:
    """A tag in the answer to a PUT would say that the stored bytes are those that were sent."""
    path = f"/v1/stream/guarded-{next(numbers)}"
    assert "etag" not in http.put(path, content=b"[ 1 ]", headers=JSON).headers
    assert "etag" in http.put(path + "x", headers=JSON).headers


def test_one_of_many_writers_with_the_same_tag_succeeds(server: RunningServer, name: str) -> None:
    """Each writer has a connection of its own."""
    with httpx.Client(base_url=server.url) as http, ThreadPoolExecutor(8) as threads:
        condition = {**TEXT, "If-Match": http.head(name).headers["etag"]}

        def write(number: int) -> int:
            return httpx.post(server.url + name, content=b"%d" % (number % 10), headers=condition).status_code

        statuses = sorted(threads.map(write, range(24)))
        assert statuses == [204, *[412] * 23]
        assert len(http.get(name).content) == 4


def test_head_with_a_matching_tag_is_304(http: httpx.Client, name: str) -> None:
    """With the stream's metadata."""
    tag = http.head(name).headers["etag"]
    same = http.head(name, headers={"If-None-Match": f"W/{tag}"})
    assert (same.status_code, same.headers["etag"]) == (304, tag)
    assert same.headers["stream-next-offset"] == http.head(name).headers["stream-next-offset"]
    assert http.head(name, headers={"If-None-Match": '"other"'}).status_code == 200
    assert http.head(name, headers={"If-Match": '"other"'}).status_code == 412
    assert http.head(name, headers={"If-Match": tag}).status_code == 200


def test_read_with_another_tag_in_if_match_is_412(http: httpx.Client, name: str) -> None:
    """If-Match is compared with the page's tag, or with the stream's tag if the answer has no page."""
    tag = http.head(name).headers["etag"]
    assert http.get(name, headers={"If-Match": tag}).content == b"abc"
    assert http.get(name, headers={"If-Match": "*"}).status_code == 200
    for query in ({}, {"offset": "now"}, {"offset": "now", "live": "sse"}, {"offset": "-1", "live": "long-poll"}):
        assert code(http.get(name, params=query, headers={"If-Match": '"other"'})) == FAILED
        assert code(http.get(name, params=query, headers={"If-Match": f"W/{tag}"})) == FAILED
    for query in ({"offset": "now"}, {"offset": "-1", "live": "long-poll"}):
        assert http.get(name, params=query, headers={"If-Match": tag}).status_code == 200


def test_range_field_is_ignored(http: httpx.Client, name: str) -> None:
    """The whole page is sent; a stream is read in parts by offsets."""
    answer = http.get(name, headers={"Range": "bytes=1-", "If-Range": '"other"'})
    assert (answer.status_code, answer.content) == (200, b"abc")


def test_preflight_allows_preconditions(http: httpx.Client, name: str) -> None:
    """And a page may read the tag of an answer."""
    preflight = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    answer = http.options(name, headers={**preflight, "Access-Control-Request-Headers": "if-match, if-none-match"})
    allowed = {field.strip().lower() for field in answer.headers["access-control-allow-headers"].split(",")}
    assert {"if-match", "if-none-match"} <= allowed
    exposed = http.head(name, headers={"Origin": preflight["Origin"]}).headers["access-control-expose-headers"]
    assert "etag" in exposed.lower()
