"""The protocol's own routes: which credentials each of them needs, and what a client without them learns."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from fluvial.model.permissions import Permission, Scope
from fluvial.server.subscriptions import PERMISSIONS
from fluvial.wire.subscription_paths import Route
from tests.access.clients import JSON, ServerClient, bearer, mint_token, operator, server_client
from tests.support.access import FOREIGN_SECRET
from tests.support.servers import server_in_thread

ROOT = "/v1/stream/demo/__ds"
PULL = {"type": "pull-wake", "pattern": "events/*", "wake_stream": "wake/pool"}
_NUMBERS = count(1)

BODIES: dict[Route, dict[str, Any]] = {
    Route.SUBSCRIPTION: PULL,
    Route.STREAMS: {"streams": ["events/x"]},
    Route.CLAIM: {"worker": "w"},
    Route.CALLBACK: {"wake_id": "w_1", "generation": 1},
    Route.ACK: {"wake_id": "w_1", "generation": 1},
    Route.RELEASE: {"wake_id": "w_1", "generation": 1},
}

ROUTES = [(method, route) for route, methods in PERMISSIONS.items() for method in methods]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerClient]:
    """A server with the projects `demo` and `other`."""
    with server_client(tmp_path_factory.mktemp("subscriptions")) as opened:
        yield opened


def create(api: ServerClient, configuration: dict[str, Any] = PULL) -> str:
    """The id of a new subscription of `demo`."""
    name = f"sub-{next(_NUMBERS)}"
    headers = {**bearer(mint_token(Scope.WRITE)), **JSON}
    made = api.request("PUT", f"{ROOT}/subscriptions/{name}", headers, json.dumps(configuration).encode())
    assert made.status == 201, made.body
    return name


def send(api: ServerClient, method: str, route: Route, token: str | None) -> tuple[int, str | None]:
    """The status and the code of a route's answer, for a subscription that exists."""
    name = create(api)
    path = route.value.replace("{id}", name).replace("{path}", "events/x")
    headers = {**JSON, **({} if token is None else bearer(token))}
    body = json.dumps(BODIES.get(route, {})).encode()
    answer = api.request(method, f"/v1/stream/demo/{path}", headers, body)
    if answer.status in {401, 403}:
        assert answer.headers["www-authenticate"].startswith('Bearer realm="fluvial"')
    return answer.status, answer.code


@pytest.mark.parametrize(("method", "route"), ROUTES)
def test_each_route_needs_its_permission(api: ServerClient, method: str, route: Route) -> None:
    """A token of the project with the scope, or the wake's own token."""
    required = PERMISSIONS[route][method]
    anonymous, reader = send(api, method, route, None), send(api, method, route, mint_token(Scope.READ))
    writer = send(api, method, route, mint_token(Scope.WRITE))
    foreign = send(api, method, route, mint_token(Scope.MANAGE, FOREIGN_SECRET))
    narrow = send(api, method, route, mint_token(Scope.MANAGE, stream="events/x"))
    if route is Route.KEYS:
        assert {anonymous, reader, writer, foreign, narrow} == {(200, None)}
    elif required is Permission.NOTHING:
        assert {anonymous, reader, writer, foreign, narrow} == {(401, "TOKEN_INVALID")}
    else:
        assert anonymous == (401, "unauthenticated")
        assert foreign == (401, "invalid_token")
        assert narrow == (403, "forbidden")
        assert writer[0] < 300 or writer[1] == "NO_PENDING_WORK"
        assert reader == writer if required is Permission.READ else reader == (403, "forbidden")


def test_narrow_token_covers_the_routes_of_one_subscription(api: ServerClient) -> None:
    """So that a worker can claim what it works for, and nothing else."""
    mine, other = create(api), create(api)
    token = bearer(mint_token(Scope.WRITE, stream=f"__ds/subscriptions/{mine}/"))
    body = json.dumps({"worker": "w"}).encode()
    assert api.request("POST", f"{ROOT}/subscriptions/{mine}/claim", token, body).code == "NO_PENDING_WORK"
    assert api.request("POST", f"{ROOT}/subscriptions/{other}/claim", token, body).status == 403
    assert api.request("DELETE", f"{ROOT}/subscriptions/{mine}", token).status == 403
    streams = f"{ROOT}/subscriptions/{mine}/streams"
    assert api.request("POST", streams, token, b'{"streams": ["secret"]}').status == 403
    assert api.request("DELETE", f"{streams}/secret", token).status == 403
    whole = bearer(mint_token(Scope.WRITE, stream=f"__ds/subscriptions/{mine}"))
    assert api.request("POST", streams, whole, b'{"streams": ["events/x"]}').status == 204
    assert api.request("DELETE", f"{streams}/events/x", whole).status == 204


@pytest.mark.parametrize("action", ["callback", "ack", "release"])
def test_strangers_learn_of_no_subscription_whether_it_exists(api: ServerClient, action: str) -> None:
    """Nor of a project."""
    name, body = create(api), json.dumps(BODIES[Route.ACK]).encode()
    paths = [f"demo/__ds/subscriptions/{one}/{action}" for one in (name, "unknown")]
    paths.append(f"absent/__ds/subscriptions/{name}/{action}")
    for headers in (bearer("a.b.c"), {"authorization": "Basic eA=="}, {}):
        for sent in (body, b"no JSON"):
            answers = [api.request("POST", f"/v1/stream/{path}", headers, sent) for path in paths]
            assert {(answer.status, answer.body) for answer in answers} == {(401, answers[0].body)}


def claim(api: ServerClient, name: str, stream: str) -> dict[str, Any]:
    """A claim of a subscription, after an append to a stream."""
    headers = bearer(mint_token(Scope.WRITE))
    api.request("PUT", f"/v1/stream/demo/{stream}", {**headers, "content-type": "text/plain"}, b"work")
    answer = api.request("POST", f"{ROOT}/subscriptions/{name}/claim", headers, b'{"worker": "w"}')
    assert answer.status == 200, answer.body
    found: dict[str, Any] = json.loads(answer.body)
    return found


def test_wake_tokens_are_of_one_subscription_and_one_generation(api: ServerClient) -> None:
    """A token of another subscription, of a former one with the id, or of a project, acks nothing."""
    mine, other = create(api), create(api)
    claimed, others = claim(api, mine, f"events/{mine}"), claim(api, other, f"events/{other}")
    path = f"{ROOT}/subscriptions/{mine}/ack"

    def ack(token: str, **fields: object) -> tuple[int, str | None]:
        wake = {"wake_id": claimed["wake_id"], "generation": claimed["generation"], **fields}
        answer = api.request("POST", path, bearer(token), json.dumps(wake).encode())
        return answer.status, answer.code

    assert ack(others["token"]) == (401, "TOKEN_INVALID")
    assert ack(mint_token(Scope.MANAGE)) == (401, "TOKEN_INVALID")
    assert ack(claimed["token"], generation=7) == (409, "FENCED")
    assert ack(claimed["token"], wake_id=others["wake_id"]) == (409, "FENCED")
    assert ack(claimed["token"], acks=[{"stream": "events/unknown", "offset": "0_0"}]) == (409, "INVALID_OFFSET")
    assert ack(claimed["token"]) == (200, None)
    writer = bearer(mint_token(Scope.WRITE))
    assert api.request("DELETE", f"{ROOT}/subscriptions/{mine}", writer).status == 204
    assert ack(claimed["token"]) == (401, "TOKEN_INVALID")
    made = api.request("PUT", f"{ROOT}/subscriptions/{mine}", {**writer, **JSON}, json.dumps(PULL).encode())
    assert made.status == 201
    assert ack(claimed["token"]) == (401, "TOKEN_INVALID")
    # A wake's token is none of the project.
    assert api.request("GET", f"{ROOT}/subscriptions/{mine}", bearer(others["token"])).status == 401


@pytest.mark.parametrize("spelling", ["__ds", "%5F%5Fds", "_%5fds"])
@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE", "HEAD"])
def test_no_stream_is_below_the_reserved_prefix_of_a_project(api: ServerClient, spelling: str, method: str) -> None:
    """However it is spelt; spec 6: "paths whose first stream-root-relative segment is `__ds` are reserved"."""
    headers = {**bearer(mint_token(Scope.MANAGE)), "content-type": "text/plain"}
    answer = api.request(method, f"/v1/stream/demo/{spelling}/x", headers, b"x")
    assert answer.status == 404


def test_projects_do_not_see_each_others_subscriptions(api: ServerClient) -> None:
    """Although the ids are equal."""
    name = create(api)
    foreign = bearer(mint_token(Scope.MANAGE, FOREIGN_SECRET, "other"))
    path = f"/v1/stream/other/__ds/subscriptions/{name}"
    assert api.request("GET", path, foreign).code == "SUBSCRIPTION_NOT_FOUND"
    listed = json.loads(api.request("GET", "/v1/stream/other/__ds/subscriptions", foreign).body)
    assert listed == {"subscriptions": []}
    assert api.request("PUT", path, {**foreign, **JSON}, json.dumps(PULL).encode()).status == 201


def test_next_project_of_a_name_does_not_inherit_subscriptions(tmp_path: Path) -> None:
    """They would tell it of streams that are none of its own, or the former owner of its streams."""
    with server_client(tmp_path) as api:
        name = create(api)
        assert api.request("DELETE", "/v1/projects/demo", operator()).status == 204
        body = json.dumps({"name": "demo", "secret": FOREIGN_SECRET.value}).encode()
        assert api.request("POST", "/v1/projects", {**operator(), **JSON}, body).status == 201
        owner = bearer(mint_token(Scope.MANAGE, FOREIGN_SECRET))
        assert api.request("GET", f"{ROOT}/subscriptions/{name}", owner).code == "SUBSCRIPTION_NOT_FOUND"
        made = api.request("PUT", f"{ROOT}/subscriptions/{name}", {**owner, **JSON}, json.dumps(PULL).encode())
        assert made.status == 201


@contextmanager
def open_server(folder: Path) -> Iterator[httpx.Client]:
    """A server without projects."""
    with server_in_thread(folder) as running, httpx.Client(base_url=running.url) as client:
        yield client


def test_foreign_pages_create_no_subscriptions_on_an_open_server(tmp_path: Path) -> None:
    """As they may not append to its streams."""
    with open_server(tmp_path / "data") as client:
        page = {"origin": "https://evil.example"}
        assert client.put("/v1/stream/__ds/subscriptions/a", json=PULL, headers=page).status_code == 403
        assert client.put("/v1/stream/__ds/subscriptions/a", json=PULL).status_code == 201
        assert client.get("/v1/stream/x/__ds/y").json()["error"]["code"] == "not_found"  # x is no project
