"""The authorization matrix: every route with every kind of credentials, on the local server and the edge function."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Route

from fluvial.access.authorizer import Authorizer, no_operator
from fluvial.access.project_cache import ProjectCache
from fluvial.access.throttle import Throttle
from fluvial.clock import Clock
from fluvial.fanout.deliveries import Deliveries
from fluvial.fanout.estuaries import Estuaries
from fluvial.metrics.metrics import Metrics
from fluvial.metrics.sampler import Sampler
from fluvial.metrics.sources import Sources
from fluvial.model.permissions import OPERATOR, Scope
from fluvial.server.control.app import CONTROL_PERMISSIONS, build_control_app
from fluvial.server.live_reads import LiveLimits, LiveReads
from fluvial.server.monitoring import Monitoring
from fluvial.server.readiness import Readiness
from fluvial.server.streams import STREAM_PERMISSIONS
from fluvial.storage.memory import MemoryStore
from fluvial.wire.request import LiveMode
from tests.access.clients import (
    JSON,
    EdgeClient,
    HttpClient,
    ServerClient,
    bearer,
    edge_client,
    mint_token,
    operator,
    server_client,
)
from tests.functions.conftest import ImportHandler
from tests.support.access import FOREIGN_SECRET, OLD_SECRET, OPERATOR_SECRET
from tests.support.api_document import ApiDocument
from tests.support.servers import server_in_thread

STREAM = "/v1/stream/{project}/{stream}"
TEXT = {"content-type": "text/plain"}
_NUMBERS = count(1)

OK, BAD, UNAUTHENTICATED, FORBIDDEN = "ok", 400, 401, 403

Answers = dict[str, str | int]

#: The answer to each kind of credentials, for routes that read, write and so on.
READ: Answers = {
    "none": UNAUTHENTICATED,
    "expired": UNAUTHENTICATED,
    "not yet valid": UNAUTHENTICATED,
    "wrong secret": UNAUTHENTICATED,
    "old secret": OK,
    "other project": UNAUTHENTICATED,
    "read": OK,
    "write": OK,
    "manage": OK,
    "other stream": FORBIDDEN,
    "this stream": OK,
    "prefix": OK,
    "public stream": OK,
    "other stream, public": OK,
    "expired, public": UNAUTHENTICATED,
    "operator": UNAUTHENTICATED,
    "in the query": OK,
    "twice": BAD,
    "basic": UNAUTHENTICATED,
    "none, public project": OK,
    "other stream, public project": OK,
    "expired, public project": UNAUTHENTICATED,
}
WRITE: Answers = READ | {
    "none, public project": UNAUTHENTICATED,
    "other stream, public project": FORBIDDEN,
    "read": FORBIDDEN,
    "public stream": UNAUTHENTICATED,
    "other stream, public": FORBIDDEN,
    "in the query": BAD,
}
UNAUTHENTICATED_ALWAYS: Answers = dict.fromkeys(READ, UNAUTHENTICATED)
MANAGE: Answers = WRITE | {"write": FORBIDDEN, "operator": OK, "this stream": FORBIDDEN, "prefix": FORBIDDEN}
ADMINISTER: Answers = UNAUTHENTICATED_ALWAYS | {"operator": OK, "in the query": BAD, "twice": BAD}
NOTHING: Answers = dict.fromkeys(READ, OK)

#: Any token of a project lists what it may read there, perhaps nothing; in the query no token lists anything.
LIST: Answers = UNAUTHENTICATED_ALWAYS | {
    **dict.fromkeys(("old secret", "read", "write", "manage", "operator"), OK),
    **dict.fromkeys(("other stream", "this stream", "prefix"), OK),
    **dict.fromkeys(("other stream, public", "other stream, public project"), OK),
    **dict.fromkeys(("in the query", "twice"), BAD),
}

#: An estuary is never public, and its name is one segment, so no prefix covers it.
OF_ESTUARIES: Answers = {
    "public stream": UNAUTHENTICATED,
    "other stream, public": FORBIDDEN,
    "none, public project": UNAUTHENTICATED,
    "other stream, public project": FORBIDDEN,
    "prefix": FORBIDDEN,
}


@dataclass(frozen=True)
class Row:
    """A route: the request, and the answer to each kind of credentials."""

    answers: Answers
    body: dict[str, object] | bytes | None = None
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)


ROWS = {
    ("GET", STREAM): Row(READ),
    ("GET", STREAM + " long-poll"): Row(READ, query="live=long-poll&offset=now"),
    ("GET", STREAM + " sse"): Row(READ, query="live=sse&offset=-1"),
    ("GET", STREAM + " websocket"): Row(READ, query="live=websocket&offset=-1"),
    ("HEAD", STREAM): Row(READ),
    ("PUT", STREAM): Row(WRITE, headers=TEXT),
    ("POST", STREAM): Row(WRITE, b"x", headers=TEXT),
    ("DELETE", STREAM): Row(WRITE),
    ("GET", "/health"): Row(NOTHING),
    ("GET", "/ready"): Row(NOTHING),
    ("GET", "/metrics"): Row(NOTHING),
    ("GET", "/openapi.json"): Row(NOTHING),
    ("GET", "/v1/streams"): Row(LIST | {"other project": OK}),
    ("GET", "/v1/info/{stream:path}"): Row(READ),
    ("POST", "/v1/estuary/subscribe/{project}/{stream:path}"): Row(
        # A token for the source does not cover the estuary.
        WRITE | {"this stream": FORBIDDEN, "prefix": FORBIDDEN},
        {"estuaryId": "{estuary}"},
    ),
    ("DELETE", "/v1/estuary/subscribe/{project}/{stream:path}"): Row(
        WRITE | {"this stream": FORBIDDEN, "prefix": FORBIDDEN}, {"estuaryId": "{estuary}"}
    ),
    ("PUT", "/v1/estuary/{project}/{estuary}"): Row(WRITE | OF_ESTUARIES, {}),
    ("GET", "/v1/estuary/{project}/{estuary}"): Row(READ | OF_ESTUARIES),
    ("POST", "/v1/estuary/{project}/{estuary}/touch"): Row(READ | OF_ESTUARIES | {"in the query": BAD}),
    ("DELETE", "/v1/estuary/{project}/{estuary}"): Row(WRITE | OF_ESTUARIES),
    ("POST", "/v1/projects"): Row(ADMINISTER, {"name": "p{number}", "secret": "n" * 32}),
    ("GET", "/v1/projects"): Row(ADMINISTER),
    ("GET", "/v1/projects/{project}"): Row(MANAGE),
    ("DELETE", "/v1/projects/{project}"): Row(ADMINISTER),
    ("POST", "/v1/projects/{project}/secrets"): Row(MANAGE, {"secret": "{number:032d}"}),
    ("DELETE", "/v1/projects/{project}/secrets/{secret_id}"): Row(MANAGE),
    ("PUT", "/v1/projects/{project}/origins"): Row(MANAGE, {"origins": ["https://app.example"]}),
    ("PUT", "/v1/projects/{project}/privacy"): Row(MANAGE, {"public": False}),
    ("PUT", "/v1/projects/{project}/limits"): Row(ADMINISTER, {}),
    ("GET", "/v1/projects/{project}/streams"): Row(LIST),
    ("POST", "/v1/reader-key/{project}/{stream:path}"): Row(MANAGE | {"this stream": OK, "prefix": OK}),
}


#: Errors of authorized requests: the secret does not exist, and the edge function has no WebSockets.
EXCUSED = {(404, "/v1/projects/{project}/secrets/{secret_id}"), (426, STREAM + " websocket")}


def claims_of(kind: str, name: str) -> dict[str, object]:
    """The claims and the secret of the token of a kind of credentials for a stream of `demo`."""
    now_s = Clock().now_ms() / 1_000
    special: dict[str, dict[str, object]] = {
        "expired": {"exp": now_s - 1},
        "expired, public": {"exp": now_s - 1},
        "not yet valid": {"nbf": now_s + 120},
        "wrong secret": {"secret": FOREIGN_SECRET},
        "old secret": {"secret": OLD_SECRET},
        "other project": {"secret": FOREIGN_SECRET, "sub": "other"},
        "other stream": {"stream": "elsewhere"},
        "other stream, public": {"stream": "elsewhere"},
        "other stream, public project": {"stream": "elsewhere"},
        "expired, public project": {"exp": now_s - 1},
        "this stream": {"stream": name},
        "prefix": {"stream": "m/"},
        "operator": {"secret": OPERATOR_SECRET, "sub": OPERATOR},
        "read": {"scope": Scope.READ},
        "write": {"scope": Scope.WRITE},
    }
    return {"scope": Scope.MANAGE, **special.get(kind, {})}


def credentials_of(kind: str, name: str) -> tuple[dict[str, str], str | None]:
    """The header fields and the query's token of a kind of credentials."""
    if kind in {"none", "public stream", "none, public project"}:
        return {}, None
    if kind == "basic":
        return {"authorization": "Basic ZGVtbzpkZW1v"}, None
    token = mint_token(**claims_of(kind, name))  # type: ignore[arg-type]
    return {} if kind == "in the query" else bearer(token), token if kind in {"in the query", "twice"} else None


def send(api: HttpClient, route: tuple[str, str], row: Row, kind: str) -> tuple[int, dict[str, str]]:
    """Send a request to a route, for a new stream and a new estuary; status and header fields of the answer."""
    method, template = route
    number = next(_NUMBERS)
    names = {"project": "demo", "stream": f"m/{number}", "estuary": f"e{number}", "secret_id": "0" * 16}
    writer = bearer(mint_token(Scope.WRITE))
    public = "?public=true" if kind.endswith(("public", "public stream")) else ""
    if (method, template) != ("PUT", STREAM):
        made = api.request("PUT", f"/v1/stream/demo/{names['stream']}{public}", {**writer, **TEXT})
        assert made.status == 201, made.body
    if "estuary" in template and not (method == "PUT" or (method == "POST" and "subscribe" in template)):
        assert api.request("PUT", f"/v1/estuary/demo/{names['estuary']}", {**writer, **JSON}, b"{}").status == 201
    if route == ("DELETE", "/v1/projects/{project}"):
        names["project"] = f"empty{number}"
        make = json.dumps({"name": names["project"], "secret": "e" * 32}).encode()
        assert api.request("POST", "/v1/projects", {**operator(), **JSON}, make).status == 201
    path = template.split(" ")[0].replace("/info/{stream:path}", "/info/{project}/{stream:path}")
    path = path.replace("{stream:path}", "{stream}").format(**names)
    narrowed = names["estuary"] if "{estuary}" in template else names["stream"]
    headers, token = credentials_of(kind, narrowed)
    query = "&".join(filter(None, (row.query, "" if token is None else f"token={token}")))
    body = row.body
    if isinstance(body, dict):
        text = json.dumps(body)
        body = text.replace("{estuary}", names["estuary"]).replace("{number}", str(number)).encode()
        body = body.replace(b"{number:032d}", b"%032d" % number)
        headers = {**headers, **JSON}
    send_request = api.handshake if template.endswith(" websocket") else api.request
    if kind.endswith("public project"):
        set_privacy(api, public=True)
    answer = send_request(method, f"{path}?{query}" if query else path, {**headers, **row.headers}, body or b"")
    if kind.endswith("public project"):
        set_privacy(api, public=False)
    if template.endswith("/secrets") and answer.status == 201:
        api.request("DELETE", f"/v1/projects/demo/secrets/{json.loads(answer.body)['id']}", operator())
    return answer.status, answer.headers


def set_privacy(api: HttpClient, *, public: bool) -> None:
    """Make `demo` public or private."""
    body = json.dumps({"public": public}).encode()
    assert api.request("PUT", "/v1/projects/demo/privacy", {**operator(), **JSON}, body).status == 200


def assert_row(api: HttpClient, route: tuple[str, str]) -> None:
    """Assert that a route answers each kind of credentials as stated, with the right WWW-Authenticate."""
    row = ROWS[route]
    for kind, expected in row.answers.items():
        status, headers = send(api, route, row, kind)
        if expected == OK:
            assert status < 300 or (status, route[1]) in EXCUSED, (route, kind, status)
            continue
        assert status == expected, (route, kind)
        challenge = headers.get("www-authenticate") or headers.get("x-amzn-remapped-www-authenticate", "")
        assert challenge.startswith('Bearer realm="fluvial"') is (expected in {401, 403}), (route, kind)
        assert ("insufficient_scope" in challenge) is (expected == 403), (route, kind)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerClient]:
    """One server for all rows. Its answers are those that its OpenAPI document has."""
    with server_client(tmp_path_factory.mktemp("matrix")) as api:
        described = ApiDocument(api.http.get("/openapi.json").json())
        api.http.event_hooks = {"response": [described.check]}
        yield api


@pytest.mark.parametrize("route", ROWS, ids=" ".join)
def test_local_server_authorizes_every_route_as_the_matrix_says(server: ServerClient, route: tuple[str, str]) -> None:
    """Each route with every kind of credentials."""
    assert_row(server, route)


@pytest.mark.slow
def test_edge_function_authorizes_every_route_as_the_matrix_says(
    import_handler: ImportHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every route with every kind of credentials."""
    monkeypatch.setenv("FLUVIAL_ACCESS", "projects")
    api: EdgeClient = edge_client(import_handler)
    for route in ROWS:
        assert_row(api, route)


def application() -> FastAPI:
    """The control routes."""
    store, clock = MemoryStore(), Clock()
    throttle = Throttle(store.projects, clock)
    authorizer = Authorizer(ProjectCache(store.projects, clock, closed=False), throttle, clock, no_operator, "*")
    live = LiveReads(store, clock, LiveLimits(1, 1, 1), throttle)
    estuaries = Estuaries(store, clock, Deliveries(store, clock))
    monitoring = Monitoring(Metrics(), Sources("memory", Sampler(store)), Readiness(store))
    return build_control_app(live, store, estuaries, authorizer, clock, monitoring=monitoring).app


def test_every_route_is_in_the_authorization_matrix() -> None:
    """A new route must be added to the matrix; until it has a permission it needs an operator."""
    app = application()
    routes = {
        (method, route.path)
        for route in app.router.routes
        if isinstance(route, Route | APIRoute)
        for method in (route.methods or set())
        if not (method == "HEAD" and not isinstance(route, APIRoute))
    }
    assert routes == {(method, path) for method, path in ROWS if not path.startswith(STREAM)}
    assert routes == set(CONTROL_PERMISSIONS)
    reads = {f"{STREAM} {live.value}" for live in LiveMode if live is not LiveMode.NONE}
    streams = {(method, path) for method, path in ROWS if path.startswith(STREAM)}
    assert streams == {(method, STREAM) for method in STREAM_PERMISSIONS} | {("GET", path) for path in reads}


def test_open_server_needs_no_token_but_an_operator_to_create_projects(tmp_path: Path) -> None:
    """It closes with the first project, and does not open again when the project is deleted."""
    secret = tmp_path / "secret"
    secret.write_text(OPERATOR_SECRET.value)
    with (
        server_in_thread(tmp_path / "data", "--operator-secret-file", str(secret)) as running,
        httpx.Client(base_url=running.url) as client,
    ):
        body = {"name": "first", "secret": "1" * 32}
        assert client.put("/v1/stream/demo/1", headers=TEXT).status_code == 201
        assert client.get("/v1/streams").json()["streams"] == ["demo/1"]
        assert client.post("/v1/projects", json=body).status_code == 401
        assert client.get("/v1/projects/demo", headers=bearer(mint_token())).status_code == 401
        assert client.post("/v1/projects", json={**body, "cutOff": True}, headers=operator()).status_code == 201
        assert client.get("/v1/stream/demo/1").status_code == 401
        assert client.get("/v1/streams").status_code == 401
        assert client.delete("/v1/projects/first", headers=operator()).status_code == 204
        assert client.get("/v1/stream/demo/1").status_code == 401  # it is never open again
