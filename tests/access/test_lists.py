"""Lists and descriptions of streams: what they tell, and of which streams they tell it to whom."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fluvial.model.permissions import Scope
from tests.access.clients import ServerClient, bearer, mint_token, operator, server_client
from tests.support.access import FOREIGN_SECRET
from tests.support.servers import server_in_thread

TEXT = {"content-type": "text/plain"}
NAMES = ["a", "chat/1", "chat/1/replies", "chat/2", "chats"]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerClient]:
    """A server whose projects `demo` and `other` have some streams each."""
    with server_client(tmp_path_factory.mktemp("lists")) as opened:
        others = bearer(mint_token(Scope.WRITE, FOREIGN_SECRET, "other"))
        for name in NAMES:
            assert opened.request("PUT", f"/v1/stream/demo/{name}", {**bearer(mint_token(Scope.WRITE)), **TEXT}).status
        assert opened.request("PUT", "/v1/stream/other/1", {**others, **TEXT}).status == 201
        yield opened


def listed(api: ServerClient, path: str, headers: dict[str, str]) -> list[str]:
    """The names of all pages of a list."""
    names, after = list[str](), ""
    while True:
        answer = api.request("GET", f"{path}{'&' if '?' in path else '?'}after={after}", headers)
        assert answer.status == 200, answer.body
        page = json.loads(answer.body)
        names += page["streams"]
        if page["next"] is None:
            return names
        after = page["next"]


@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize("limit", [1, 2, 100])
@pytest.mark.parametrize(
    ("stream", "covered"),
    [
        (None, NAMES),
        ("chat/", ["chat/1", "chat/1/replies", "chat/2"]),
        ("chat/1", ["chat/1"]),
        ("chat/1/", ["chat/1/replies"]),
        ("chat", []),
        ("nothing/", []),
    ],
)
def test_token_lists_the_streams_that_it_may_read(
    api: ServerClient, scope: Scope, limit: int, stream: str | None, covered: list[str]
) -> None:
    """On both routes, whatever its scope, page by page."""
    token = bearer(mint_token(scope) if stream is None else mint_token(scope, stream=stream))
    assert listed(api, f"/v1/projects/demo/streams?limit={limit}", token) == covered
    assert listed(api, f"/v1/streams?limit={limit}", token) == [f"demo/{name}" for name in covered]


@pytest.mark.parametrize("stream", [None, "chat/", "chat/1", "zzz"])
@pytest.mark.parametrize("prefix", ["", "c", "chat/", "chat/1", "chat/1/r", "chats", "demo/", "other/", "zzz"])
@pytest.mark.parametrize("after", ["", "a", "chat/1", "chat/1/x", "zzzz"])
def test_prefix_and_after_narrow_what_the_token_lists(
    api: ServerClient, stream: str | None, prefix: str, after: str
) -> None:
    """And never widen it."""
    token = bearer(mint_token() if stream is None else mint_token(stream=stream))
    found = api.request("GET", f"/v1/projects/demo/streams?prefix={prefix}&after={after}", token)
    covered = [
        name for name in NAMES if stream is None or name == stream or (stream.endswith("/") and name.startswith(stream))
    ]
    expected = [name for name in covered if name.startswith(prefix) and name > after]
    assert json.loads(found.body)["streams"] == expected
    found = api.request("GET", f"/v1/streams?prefix=demo/{prefix}&after=demo/{after}", token)
    assert json.loads(found.body)["streams"] == [f"demo/{name}" for name in expected]


def test_no_list_shows_another_projects_streams(api: ServerClient) -> None:
    """A token of `other` lists its own, and an operator all."""
    other = bearer(mint_token(Scope.MANAGE, FOREIGN_SECRET, "other"))
    assert listed(api, "/v1/streams", other) == ["other/1"]
    assert listed(api, "/v1/streams?prefix=demo/", other) == []
    assert api.request("GET", "/v1/projects/demo/streams", other).status == 401
    assert listed(api, "/v1/streams?limit=2", operator()) == [*(f"demo/{name}" for name in NAMES), "other/1"]
    assert listed(api, "/v1/projects/demo/streams", operator()) == NAMES


def test_list_needs_a_valid_token_of_an_existing_project(api: ServerClient) -> None:
    """A token of a project that does not exist gets the answer of a token with a wrong signature."""
    wrong = api.request("GET", "/v1/streams", bearer(mint_token(secret=FOREIGN_SECRET)))
    absent = api.request("GET", "/v1/streams", bearer(mint_token(sub="absent")))
    assert (wrong.status, wrong.code, wrong.body) == (absent.status, absent.code, absent.body)
    assert (wrong.status, wrong.code) == (401, "invalid_token")
    for text in ("x", "a.b.c", "-" * 20_000):
        assert api.request("GET", "/v1/streams", bearer(text)).code == "invalid_token"


def test_info_of_a_public_stream_needs_no_token_and_shows_no_writers(api: ServerClient) -> None:
    """Its producers and followers are for managers; any other stream is hidden as it is for reads."""
    writer, path = bearer(mint_token(Scope.WRITE)), "/v1/stream/demo/public"
    assert api.request("PUT", f"{path}?public=true", {**writer, **TEXT}).status == 201
    produced = {**writer, **TEXT, "producer-id": "p", "producer-epoch": "3", "producer-seq": "0"}
    assert api.request("POST", path, produced, b"x").status == 200
    for headers in ({}, bearer(mint_token()), writer, bearer(mint_token(stream="chat/1"))):
        answer = api.request("GET", "/v1/info/demo/public", headers)
        assert answer.status == 200
        assert {"producers", "producerCount", "followers"}.isdisjoint(json.loads(answer.body))
    shown = json.loads(api.request("GET", "/v1/info/demo/public", bearer(mint_token(Scope.MANAGE))).body)
    assert (shown["producers"], shown["producerCount"]) == ([{"id": "p", "epoch": 3, "seq": 0}], 1)
    hidden = {(answer.status, answer.body) for answer in (
        api.request("GET", f"/v1/info/{name}") for name in ("demo/a", "demo/absent", "absent/a", "a")
    )}  # fmt: skip
    assert len(hidden) == 1
    assert api.request("GET", "/v1/info/demo/absent", bearer(mint_token())).code == "not_found"
    assert api.request("GET", "/v1/info/a", bearer(mint_token())).status == 401
    assert api.request("GET", "/v1/info/", operator()).status == 404
    assert api.request("DELETE", path, writer).status == 204


@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_details_tell_the_state_of_each_stream(tmp_path: Path, store: str) -> None:
    """Of plain, closed, expiring, forked, public and fan-in streams; on an open server to everybody."""
    with (
        server_in_thread(tmp_path / "data", "--store", store) as running,
        httpx.Client(base_url=running.url) as client,
    ):
        root = "/v1/stream/p/"
        client.put(root + "plain", headers=TEXT)
        client.put(root + "closed?public=true", headers={"content-type": "application/json"}, content=b'["one",2]')
        tail = client.post(root + "closed", headers={"stream-closed": "true"}).headers["stream-next-offset"]
        client.put(root + "old", headers={**TEXT, "stream-expires-at": "9999-12-31T23:59:59-12:00"})
        client.put(root + "sliding", headers={**TEXT, "stream-ttl": "3600"}, content=b"x")
        client.put(root + "fork", headers={"stream-forked-from": root + "closed"})
        client.put(root + "gone", headers={**TEXT, "stream-ttl": "0"})
        client.put(root + "deleted", headers=TEXT)
        client.put(root + "child", headers={"stream-forked-from": root + "deleted"})
        client.delete(root + "deleted")
        client.post("/v1/estuary/subscribe/p/plain", json={"estuaryId": "inbox", "mode": "envelope"})
        client.post(root + "plain", headers={**TEXT, "producer-id": "w", "producer-epoch": "0", "producer-seq": "0"})
        client.post(
            root + "plain",
            headers={**TEXT, "producer-id": "w", "producer-epoch": "0", "producer-seq": "0"},
            content=b"hello",
        )
        page = client.get("/v1/streams", params={"details": "true"}).json()
        assert page["next"] is None
        found: dict[str, dict[str, Any]] = {one["name"]: one for one in page["streams"]}
        assert list(found) == [f"p/{one}" for one in ("child", "closed", "fork", "inbox", "old", "plain", "sliding")]
        within = client.get("/v1/projects/p/streams", params={"details": "true", "limit": 2}).json()
        assert [one["name"] for one in within["streams"]] == ["child", "closed"]
        assert within["next"] == "closed"
        assert within["streams"] == [found["p/child"] | {"name": "child"}, found["p/closed"] | {"name": "closed"}]

        plain = found["p/plain"]
        assert plain == {
            "name": "p/plain",
            "contentType": "text/plain",
            "bytes": 5,
            "offset": client.head(root + "plain").headers["stream-next-offset"],
            "closed": False,
            "createdAt": plain["createdAt"],
            "expiresAt": None,
            "ttlSeconds": None,
            "lastAppendAt": plain["lastAppendAt"],
            "forkedFrom": None,
            "forks": 0,
            "estuary": None,
            "public": False,
            "liveReads": 0,
        }
        assert plain["createdAt"] <= plain["lastAppendAt"]
        closed = found["p/closed"]
        assert (closed["contentType"], closed["offset"], closed["closed"]) == ("application/json", tail, True)
        assert (closed["forks"], closed["public"]) == (1, True)
        assert found["p/fork"]["forkedFrom"] == {"stream": "p/closed", "offset": tail}
        assert (found["p/fork"]["lastAppendAt"], found["p/fork"]["bytes"]) == (None, closed["bytes"])
        assert found["p/old"]["expiresAt"] == "9999-12-31T23:59:59-12:00"
        assert (found["p/old"]["ttlSeconds"], found["p/old"]["lastAppendAt"]) == (None, None)
        sliding = found["p/sliding"]
        assert sliding["ttlSeconds"] == 3_600
        assert sliding["createdAt"] <= sliding["lastAppendAt"] < sliding["expiresAt"]
        assert (found["p/inbox"]["estuary"], found["p/inbox"]["lastAppendAt"] is None) == ("envelope", False)

        info = client.get("/v1/info/p/plain").json()
        assert info == plain | {
            "producers": [{"id": "w", "epoch": 0, "seq": 0}],
            "producerCount": 1,
            "followers": [{"estuary": "p/inbox", "mode": "envelope"}],
        }
        assert client.get("/v1/info/p/gone").status_code == 404
        assert client.get("/v1/info/p/deleted").status_code == 410
        assert client.get("/v1/info/p%2Fplain").status_code == 404  # one segment, another name
        client.put("/v1/stream/single", headers=TEXT)
        assert client.get("/v1/info/single").json()["name"] == "single"


def test_live_reads_of_a_stream_are_counted_while_they_are_open(tmp_path: Path) -> None:
    """And no longer."""
    with server_in_thread(tmp_path / "data") as running, httpx.Client(base_url=running.url) as client:

        def counts() -> list[int]:
            return [client.get(f"/v1/info/p/{name}").json()["liveReads"] for name in ("1", "2")]

        for name in ("1", "2"):
            client.put(f"/v1/stream/p/{name}", headers=TEXT, content=b"x")
        sse = {"live": "sse", "offset": "-1"}
        with (
            client.stream("GET", "/v1/stream/p/1", params=sse) as one,
            client.stream("GET", "/v1/stream/p/1", params=sse) as other,
        ):
            events = [one.iter_raw(), other.iter_raw()]
            for reader in events:
                next(reader)
            assert counts() == [2, 0]
            client.delete("/v1/stream/p/1")
            for reader in events:
                assert list(reader) is not None
        client.put("/v1/stream/p/1", headers=TEXT)
        assert counts() == [0, 0]
