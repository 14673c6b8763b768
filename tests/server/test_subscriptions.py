"""Subscriptions over HTTP: bodies, errors and answers of the protocol's own routes."""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from fluvial.model.limits import DESCRIPTION_BYTES_MAX, STREAM_NAME_BYTES_MAX, WEBHOOK_URL_BYTES_MAX
from tests.support.api_document import ApiDocument
from tests.support.servers import server_in_thread

ROOT = "/v1/stream/__ds/subscriptions"
PULL = {"type": "pull-wake", "pattern": "events/*", "wake_stream": "wake/pool"}
_NUMBERS = count(1)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of an open server; each answer is one that its OpenAPI document has."""
    with (
        server_in_thread(tmp_path_factory.mktemp("subscriptions")) as running,
        httpx.Client(base_url=running.url) as opened,
    ):
        described = ApiDocument(opened.get("/openapi.json").json())
        opened.event_hooks = {"response": [described.check]}
        yield opened


def create(client: httpx.Client, **fields: object) -> str:
    """The path of a new pull-wake subscription."""
    path = f"{ROOT}/sub-{next(_NUMBERS)}"
    made = client.put(path, json={**PULL, **fields})
    assert made.status_code == 201, made.text
    return path


def append(client: httpx.Client, stream: str, body: bytes = b"x") -> None:
    """Append to a text stream, which is created if need be."""
    client.put(f"/v1/stream/{stream}", headers={"content-type": "text/plain"})
    sent = client.post(f"/v1/stream/{stream}", content=body, headers={"content-type": "text/plain"})
    assert sent.status_code == 204


def test_subscription_is_described_in_full(client: httpx.Client) -> None:
    """As spec 6.3 has it, with three fields of our own."""
    append(client, "described/old")
    path = create(client, pattern="described/*", streams=["described/new"], description="a text", lease_ttl_ms=1_000)
    shown = client.get(path).json()
    tail = client.head("/v1/stream/described/old").headers["stream-next-offset"]
    assert shown.pop("created_at").endswith("Z")
    name = path.rpartition("/")[2]
    assert shown == {
        "id": name,
        "subscription_id": name,
        "type": "pull-wake",
        "pattern": "described/*",
        "streams": [
            {"path": "described/new", "link_type": "explicit", "acked_offset": "-1"},
            {"path": "described/old", "link_type": "glob", "acked_offset": tail},
        ],
        "webhook": None,
        "wake_stream": "wake/pool",
        "lease_ttl_ms": 1_000,
        "status": "active",
        "description": "a text",
        "generation": 0,
        "failures": 0,
        "next_attempt_at": None,
    }


@pytest.mark.parametrize(
    "change",
    [
        {"pattern": "other/*"},
        {"streams": ["a"]},
        {"wake_stream": "other"},
        {"lease_ttl_ms": 2_000},
        {"description": "other"},
    ],
)
def test_only_the_same_configuration_confirms(client: httpx.Client, change: dict[str, Any]) -> None:
    """Spelling, order and repeats of streams do not count."""
    path = create(client, streams=["b", "a"])
    same = client.put(path, json={**PULL, "streams": ["/a/", "b", "a"], "lease_ttl_ms": 30_000, "unknown": 1})
    assert same.status_code == 200
    other = client.put(path, json={**PULL, "streams": ["b", "a"], **change})
    assert (other.status_code, other.json()["error"]["code"]) == (409, "SUBSCRIPTION_ALREADY_EXISTS")


WEBHOOK = {"type": "webhook", "pattern": "hooks/*", "webhook": {"url": "https://worker.example/hook"}}


def test_webhook_tells_how_it_is_signed(client: httpx.Client) -> None:
    """The key set has the key; HEAD has the same fields and no body."""
    path = f"{ROOT}/sub-{next(_NUMBERS)}"
    assert client.put(path, json=WEBHOOK).status_code == 201
    told = client.get(path).json()["webhook"]
    assert told["url"] == "https://worker.example/hook"
    assert told["signing"]["alg"] == "ed25519"
    assert told["signing"]["jwks_url"] == str(client.base_url).rstrip("/") + "/v1/stream/__ds/jwks.json"
    keys = client.get(told["signing"]["jwks_url"])
    assert keys.headers["cache-control"] == "public, max-age=300"
    assert told["signing"]["kid"] in {key["kid"] for key in keys.json()["keys"]}
    client.event_hooks, hooks = {}, client.event_hooks  # the document has HEAD in its text alone
    head = client.head(path)
    client.event_hooks = hooks
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) == len(client.get(path).content)


@pytest.mark.parametrize(
    "url",
    [
        "http://worker.example/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/",
        "https://2130706433/",
        "https://user:password@worker.example/",
        "http://127.0.0.1/",
        "ftp://worker.example/",
        "nonsense",
    ],
)
def test_unsafe_webhook_is_refused(client: httpx.Client, url: str) -> None:
    """Also localhost, unless the operator allows it."""
    path = f"{ROOT}/sub-{next(_NUMBERS)}"
    answer = client.put(path, json={**WEBHOOK, "webhook": {"url": url}})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "WEBHOOK_URL_REJECTED")
    assert client.get(path).status_code == 404


def test_public_url_begins_the_urls_in_bodies(tmp_path: Path) -> None:
    """Behind a proxy that the server does not know; also of a subscription that is older than the setting."""
    with server_in_thread(tmp_path / "data") as running, httpx.Client(base_url=running.url) as client:
        assert client.put(f"{ROOT}/old", json=WEBHOOK).status_code == 201
    with (
        server_in_thread(tmp_path / "data", "--public-url", "https://streams.example/base/") as running,
        httpx.Client(base_url=running.url) as client,
    ):
        assert client.put(f"{ROOT}/a", json=WEBHOOK).status_code == 201
        signings = [client.get(f"{ROOT}/{name}").json()["webhook"]["signing"] for name in ("a", "old")]
    for signing in signings:
        assert signing["jwks_url"] == "https://streams.example/base/v1/stream/__ds/jwks.json"


INVALID: list[dict[str, Any] | list[int]] = [
    {},
    [1],
    {"type": "push", "pattern": "a"},
    {"type": "pull-wake", "wake_stream": "w"},
    {"type": "pull-wake", "pattern": "", "streams": [], "wake_stream": "w"},
    {"type": "pull-wake", "pattern": "a"},
    {"type": "pull-wake", "pattern": "a", "wake_stream": ""},
    {"type": "pull-wake", "streams": ["w"], "wake_stream": "w"},
    {"type": "webhook", "pattern": "a"},
    {"type": "webhook", "pattern": "a", "webhook": {}},
    {"type": "webhook", "pattern": "a", "webhook": {"url": ""}},
    {"type": "webhook", "pattern": "a", "webhook": {"url": "https://" + "x" * WEBHOOK_URL_BYTES_MAX}},
    {**PULL, "lease_ttl_ms": 999},
    {**PULL, "lease_ttl_ms": 600_001},
    {**PULL, "lease_ttl_ms": 1000.5},
    {**PULL, "lease_ttl_ms": "1000"},
    {**PULL, "streams": "a"},
    {**PULL, "streams": [1]},
    {**PULL, "streams": [""]},
    {**PULL, "streams": ["__ds/x"]},
    {**PULL, "pattern": "a//b"},
    {**PULL, "pattern": "a" * (STREAM_NAME_BYTES_MAX + 1)},
    {**PULL, "description": "x" * (DESCRIPTION_BYTES_MAX + 1)},
]


@pytest.mark.parametrize("body", INVALID, ids=str)
def test_invalid_configuration_is_refused(client: httpx.Client, body: object) -> None:
    """With 400, the protocol's code, and nothing created."""
    path = f"{ROOT}/sub-{next(_NUMBERS)}"
    answer = client.put(path, json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "INVALID_REQUEST")
    assert client.get(path).json()["error"]["code"] == "SUBSCRIPTION_NOT_FOUND"


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"null", b'{"worker": 1}', b'{"worker": ""}'])
@pytest.mark.parametrize("action", ["claim", "streams"])
def test_malformed_body_is_refused(client: httpx.Client, action: str, body: bytes) -> None:
    """Never a traceback."""
    answer = client.post(f"{create(client)}/{action}", content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/v1/stream/__ds", (404, "reserved_path")),
        ("GET", "/v1/stream/__ds/unknown", (404, "reserved_path")),
        ("GET", "/v1/stream/__ds/jwks.json/more", (404, "reserved_path")),
        ("POST", f"{ROOT}/a/unknown", (404, "reserved_path")),
        ("POST", f"{ROOT}/a/claim/more", (404, "reserved_path")),
        ("GET", f"{ROOT}/{'x' * 257}", (400, "INVALID_REQUEST")),
        ("GET", f"{ROOT}//x", (404, "reserved_path")),
        ("GET", f"{ROOT}/%zz", (400, "INVALID_REQUEST")),
        ("GET", f"{ROOT}/unknown", (404, "SUBSCRIPTION_NOT_FOUND")),
        ("POST", f"{ROOT}/unknown/claim", (404, "SUBSCRIPTION_NOT_FOUND")),
        ("POST", f"{ROOT}/unknown/streams", (404, "SUBSCRIPTION_NOT_FOUND")),
        ("DELETE", f"{ROOT}/unknown/streams/a", (404, "SUBSCRIPTION_NOT_FOUND")),
        ("POST", f"{ROOT}/unknown/ack", (404, "SUBSCRIPTION_NOT_FOUND")),
        ("POST", f"{ROOT}/a", (405, "method_not_allowed")),
        ("PUT", "/v1/stream/__ds/jwks.json", (405, "method_not_allowed")),
    ],
)
def test_wrong_paths_and_methods(client: httpx.Client, method: str, path: str, expected: tuple[int, str]) -> None:
    """Each has a clear error."""
    client.event_hooks, hooks = {}, client.event_hooks  # paths without a route are not in the document
    body = {"worker": "w", "streams": ["a"], "wake_id": "w", "generation": 1}
    answer = client.request(method, path, content=json.dumps(body) if method in {"POST", "PUT"} else None)
    client.event_hooks = hooks
    assert (answer.status_code, answer.json()["error"]["code"]) == expected


def test_explicit_link_beside_a_match(client: httpx.Client) -> None:
    """Spec 6.1: "Removing the explicit link does not remove the glob link if the pattern still matches"."""
    append(client, "both/a")
    path = create(client, pattern="both/*")

    def links() -> list[tuple[str, str]]:
        return [(one["path"], one["link_type"]) for one in client.get(path).json()["streams"]]

    assert links() == [("both/a", "glob")]
    for _ in range(2):
        assert client.post(f"{path}/streams", json={"streams": ["both/a", "else/b"]}).status_code == 204
    assert links() == [("both/a", "explicit"), ("else/b", "explicit")]
    for _ in range(2):
        assert client.delete(f"{path}/streams/both%2Fa").status_code == 204
        assert client.delete(f"{path}/streams/else/b").status_code == 204
    assert links() == [("both/a", "glob")]


def test_own_wake_stream_is_never_followed(client: httpx.Client) -> None:
    """Otherwise each wake event would be work for the next wake."""
    append(client, "loop/wake")
    path = create(client, pattern="loop/**", wake_stream="loop/wake")
    append(client, "loop/wake")
    append(client, "loop/a")
    claimed = client.post(f"{path}/claim", json={"worker": "w"}).json()
    assert [one["path"] for one in claimed["streams"]] == ["loop/a"]
    refused = client.post(f"{path}/streams", json={"streams": ["loop/wake"]})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "INVALID_REQUEST")


def test_pull_wake_from_append_to_ack(client: httpx.Client) -> None:
    """An append, a wake event, a claim, a heartbeat, an ack, and the work that came meanwhile."""
    client.put("/v1/stream/pull/wakes", json=[])
    path = create(client, pattern="pull/in/*", wake_stream="pull/wakes")
    append(client, "pull/in/1")
    offset, events = "-1", list[dict[str, Any]]()
    while not events:
        page = client.get("/v1/stream/pull/wakes", params={"offset": offset, "live": "long-poll"})
        events, offset = page.json() if page.status_code == 200 else [], page.headers["stream-next-offset"]
    name = path.rpartition("/")[2]
    assert {**events[0], "ts": 0} == {
        "type": "wake",
        "subscription_id": name,
        "stream": "pull/in/1",
        "generation": 1,
        "ts": 0,
    }
    claimed = client.post(f"{path}/claim", json={"worker": "w"}).json()
    wake = {"wake_id": claimed["wake_id"], "generation": claimed["generation"]}
    token = {"authorization": f"Bearer {claimed['token']}"}
    alive = client.post(f"{path}/ack", json=wake, headers=token)
    assert alive.json() == {"ok": True, "next_wake": False}
    append(client, "pull/in/2")
    [stream] = claimed["streams"]
    acks = [{"stream": stream["path"], "offset": stream["tail_offset"]}]
    for offset in ("now", "x", stream["tail_offset"][:-1] + "9"):
        bad = client.post(f"{path}/ack", json={**wake, "acks": [{**acks[0], "offset": offset}]}, headers=token)
        assert (bad.status_code, bad.json()["error"]["code"]) == (409, "INVALID_OFFSET")
    done = client.post(f"{path}/ack", json={**wake, "acks": acks, "done": True}, headers=token)
    assert done.json() == {"ok": True, "next_wake": True}
    stale = client.post(f"{path}/release", json=wake, headers=token)
    assert (stale.status_code, stale.json()["error"]["code"]) == (409, "FENCED")
    again = client.post(f"{path}/claim", json={"worker": "w"}).json()
    assert [one["path"] for one in again["streams"]] == ["pull/in/2"]
    assert again["generation"] > claimed["generation"]
    callback = client.post(f"{path}/callback", json=wake, headers=token)
    assert (callback.status_code, callback.json()["error"]["code"]) == (400, "INVALID_REQUEST")


def test_delete_ends_all_that_is_under_way(client: httpx.Client) -> None:
    """Spec 6.3: "In-flight callback, ack, or release requests for a deleted subscription MUST fail"."""
    path = create(client, pattern="gone/*")
    append(client, "gone/a")
    claimed = client.post(f"{path}/claim", json={"worker": "w"}).json()
    wake = {"wake_id": claimed["wake_id"], "generation": claimed["generation"], "done": True}
    for _ in range(2):
        assert client.delete(path).status_code == 204
    token = {"authorization": f"Bearer {claimed['token']}"}
    assert client.post(f"{path}/ack", json=wake, headers=token).status_code == 404
    assert client.put(path, json={**PULL, "pattern": "gone/*"}).status_code == 201
    assert client.post(f"{path}/ack", json=wake, headers=token).json()["error"]["code"] == "TOKEN_INVALID"


def test_subscriptions_survive_a_restart(tmp_path: Path) -> None:
    """With their cursors, and a lease that is held."""
    with server_in_thread(tmp_path / "data") as running, httpx.Client(base_url=running.url) as client:
        path = create(client)
        append(client, "events/a")
        claimed = client.post(f"{path}/claim", json={"worker": "w"}).json()
        before = client.get(path).json()
    with server_in_thread(tmp_path / "data") as running, httpx.Client(base_url=running.url) as client:
        assert client.get(path).json() == before
        assert client.post(f"{path}/claim", json={"worker": "v"}).json()["error"]["current_holder"] == "w"
        acks = [{"stream": "events/a", "offset": claimed["streams"][0]["tail_offset"]}]
        wake = {"wake_id": claimed["wake_id"], "generation": claimed["generation"], "acks": acks, "done": True}
        done = client.post(f"{path}/ack", json=wake, headers={"authorization": f"Bearer {claimed['token']}"})
        assert done.json() == {"ok": True, "next_wake": False}


def test_ids_are_plain_in_bodies_and_encoded_in_urls(client: httpx.Client) -> None:
    """Also a slash in an id, and an id that looks like one that is encoded."""
    for spelling, text in (("caf%C3%A9%20a%2fb", "café a/b"), ("caf%2541", "caf%41")):
        shown = client.put(f"{ROOT}/{spelling}", json=WEBHOOK).json()
        assert (shown["id"], shown["subscription_id"]) == (text, text)
        assert client.get(f"{ROOT}/{quote(text, safe='')}").json()["id"] == text
    listed = client.get(ROOT, params={"after": "caf%41"}).json()["subscriptions"]
    assert [one["id"] for one in listed][:1] == ["café a/b"]
    after = client.get(ROOT, params={"after": "café a/b"}).json()["subscriptions"]
    assert not {"café a/b", "caf%41"} & {one["id"] for one in after}
