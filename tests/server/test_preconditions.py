"""Conditional requests as HTTP clients send them (RFC 9110, 13)."""

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

UNTRUE = [
    {"If-Match": '"not-its-tag"'},
    {"If-Match": "W/{tag}"},
    {"If-Match": ""},
    {"If-None-Match": "*"},
    {"If-None-Match": "{tag}"},
    {"If-None-Match": 'W/"other", W/{tag}'},
    {"If-Match": "{tag}", "If-None-Match": "{tag}"},
]


@pytest.mark.parametrize("fields", UNTRUE, ids=str)
def test_a_write_whose_precondition_is_untrue_changes_nothing(
    http: httpx.Client, name: str, fields: dict[str, str]
) -> None:
    """POST, close, PUT and DELETE are refused, and tell the tag that the stream has."""
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
def test_a_write_whose_precondition_is_true_is_carried_out(
    http: httpx.Client, name: str, fields: dict[str, str]
) -> None:
    """Dates are no conditions here, because no answer has one of a last change."""

    def condition() -> dict[str, str]:
        tag = http.head(name).headers["etag"]
        return {field: value.format(tag=tag) for field, value in fields.items()}

    assert http.put(name, headers={**TEXT, **condition()}).status_code == 200
    assert http.post(name, content=b"d", headers={**TEXT, **condition()}).status_code == 204
    assert http.get(name).content == b"abcd"
    assert http.delete(name, headers=condition()).status_code == 204


@pytest.mark.parametrize("field", ["If-Match", "If-None-Match"])
@pytest.mark.parametrize("value", ["abc", '"open', '*, "a"', '"a" "b"', 'w/"a"'])
def test_a_malformed_precondition_is_refused(http: httpx.Client, name: str, field: str, value: str) -> None:
    """By every method, before anything is done."""
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


def test_a_write_may_name_only_so_many_states(http: httpx.Client, name: str) -> None:
    """Tags of others' making do not count, nor do those of a read."""
    many = ", ".join(f'"1:0:{tail}"' for tail in range(17))
    foreign = ", ".join(f'"{tail}"' for tail in range(100))
    assert code(http.delete(name, headers={"If-Match": many})) == (400, "malformed_header")
    assert code(http.delete(name, headers={"If-Match": foreign})) == FAILED
    assert http.get(name, headers={"If-None-Match": many}).status_code == 200


def test_a_field_that_is_sent_twice_is_one_list(http: httpx.Client, name: str) -> None:
    """A tag in the second line counts; a star and a tag in two lines are no list."""
    tag = http.head(name).headers["etag"]
    twice = httpx.Headers([("If-Match", '"a"'), ("If-Match", tag), *TEXT.items()])
    assert http.post(name, content=b"x", headers=twice).status_code == 204
    assert code(http.post(name, content=b"x", headers=twice)) == FAILED
    mixed = httpx.Headers([("If-Match", "*"), ("If-Match", tag), *TEXT.items()])
    assert code(http.post(name, content=b"x", headers=mixed)) == (400, "malformed_header")


def test_create_only_if_nothing_is_there(http: httpx.Client) -> None:
    """`If-None-Match: *` makes one of several creators, and tells the others, whatever they ask for."""
    path = f"/v1/stream/guarded-{next(numbers)}"
    once = {**JSON, "If-None-Match": "*"}
    assert http.put(path, headers=once).status_code == 201
    assert code(http.put(path, headers=once)) == FAILED
    assert code(http.put(path, headers={**once, "Content-Type": "text/plain"})) == FAILED
    assert http.put(path, headers=JSON).status_code == 200
    assert code(http.put(path + "x", headers={**JSON, "If-Match": "*"})) == FAILED
    assert http.head(path + "x").status_code == 404


def test_a_fork_is_created_only_if_nothing_is_there(http: httpx.Client, name: str) -> None:
    """As any stream is."""
    fork = {"Stream-Forked-From": name, "If-None-Match": "*"}
    assert http.put(name + "f", headers=fork).status_code == 201
    assert code(http.put(name + "f", headers=fork)) == FAILED
    assert code(http.put(name + "g", headers={"Stream-Forked-From": name, "If-Match": "*"})) == FAILED
    assert http.head(name + "g").status_code == 404


def test_what_would_be_refused_anyway_is_refused_for_that(http: httpx.Client, name: str) -> None:
    """Preconditions are ignored where the answer without them is neither a success nor a 412."""
    condition = {"If-Match": '"not-its-tag"'}
    assert http.delete(name + "-missing", headers=condition).status_code == 404
    assert http.post(name + "-missing", content=b"x", headers={**TEXT, **condition}).status_code == 404
    assert http.get(name + "-missing", headers=condition).status_code == 404
    assert code(http.post(name, content=b"x", headers={**JSON, **condition}))[0] == 400
    image = {"Content-Type": "image/png", **condition}
    assert code(http.post(name, content=b"x", headers=image)) == (409, "content_type_mismatch")
    http.post(name, headers={"Stream-Closed": "true"})
    assert code(http.post(name, content=b"x", headers={**TEXT, **condition})) == (409, "stream_closed")


def test_a_writer_chains_its_writes_by_their_tags(http: httpx.Client) -> None:
    """Each success tells the tag that the next one matches; a writer in between is noticed."""
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


def test_json_that_may_have_been_changed_has_no_tag(http: httpx.Client) -> None:
    """A validator with a 201 would say that what was sent is what is there."""
    path = f"/v1/stream/guarded-{next(numbers)}"
    assert "etag" not in http.put(path, content=b"[ 1 ]", headers=JSON).headers
    assert "etag" in http.put(path + "x", headers=JSON).headers


def test_of_many_writers_with_one_tag_one_wins(server: RunningServer, name: str) -> None:
    """Over connections of their own."""
    with httpx.Client(base_url=server.url) as http, ThreadPoolExecutor(8) as threads:
        condition = {**TEXT, "If-Match": http.head(name).headers["etag"]}

        def write(number: int) -> int:
            return httpx.post(server.url + name, content=b"%d" % (number % 10), headers=condition).status_code

        statuses = sorted(threads.map(write, range(24)))
        assert statuses == [204, *[412] * 23]
        assert len(http.get(name).content) == 4


def test_head_says_that_nothing_has_changed(http: httpx.Client, name: str) -> None:
    """With the fields that a client may want to note."""
    tag = http.head(name).headers["etag"]
    same = http.head(name, headers={"If-None-Match": f"W/{tag}"})
    assert (same.status_code, same.headers["etag"]) == (304, tag)
    assert same.headers["stream-next-offset"] == http.head(name).headers["stream-next-offset"]
    assert http.head(name, headers={"If-None-Match": '"other"'}).status_code == 200
    assert http.head(name, headers={"If-Match": '"other"'}).status_code == 412
    assert http.head(name, headers={"If-Match": tag}).status_code == 200


def test_a_read_of_another_state_is_refused(http: httpx.Client, name: str) -> None:
    """If-Match on GET: of the page's own tag, and of the stream's where an answer has none."""
    tag = http.head(name).headers["etag"]
    assert http.get(name, headers={"If-Match": tag}).content == b"abc"
    assert http.get(name, headers={"If-Match": "*"}).status_code == 200
    for query in ({}, {"offset": "now"}, {"offset": "now", "live": "sse"}, {"offset": "-1", "live": "long-poll"}):
        assert code(http.get(name, params=query, headers={"If-Match": '"other"'})) == FAILED
        assert code(http.get(name, params=query, headers={"If-Match": f"W/{tag}"})) == FAILED
    for query in ({"offset": "now"}, {"offset": "-1", "live": "long-poll"}):
        assert http.get(name, params=query, headers={"If-Match": tag}).status_code == 200


def test_ranges_are_ignored(http: httpx.Client, name: str) -> None:
    """The whole page is sent: offsets are how a stream is read in parts."""
    answer = http.get(name, headers={"Range": "bytes=1-", "If-Range": '"other"'})
    assert (answer.status_code, answer.content) == (200, b"abc")


def test_a_page_may_send_conditions(http: httpx.Client, name: str) -> None:
    """A browser asks before it sends them, and lets the page see the tag."""
    asked = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    answer = http.options(name, headers={**asked, "Access-Control-Request-Headers": "if-match, if-none-match"})
    allowed = {field.strip().lower() for field in answer.headers["access-control-allow-headers"].split(",")}
    assert {"if-match", "if-none-match"} <= allowed
    exposed = http.head(name, headers={"Origin": asked["Origin"]}).headers["access-control-expose-headers"]
    assert "etag" in exposed.lower()
