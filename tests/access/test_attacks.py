"""Attacks on the local server: forged paths, smuggled requests, cross-origin pages, and probing by anonymous clients.

Attacks on tokens are in tests/unit/access.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from fluvial.model.limits import TOKEN_BYTES_MAX
from fluvial.model.permissions import Scope
from fluvial.model.project import Secret
from fluvial.server.streams import METHODS
from tests.access.clients import JSON, Answer, ServerClient, bearer, mint_token, operator, server_client
from tests.support.access import FOREIGN_SECRET
from tests.support.raw_http import connect
from tests.support.servers import ThreadServer, server_in_thread

TEXT = {"content-type": "text/plain"}
ORIGIN = "https://app.example"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerClient]:
    """A server: `demo` has one origin, a private and a public stream; `other` has two origins and two such streams."""
    with server_client(tmp_path_factory.mktemp("attacks")) as opened:
        for path in ("demo/private", "demo/public?public=true"):
            assert opened.request("PUT", f"/v1/stream/{path}", {**writer(), **TEXT}, b"x").status == 201
        body = json.dumps({"origins": [ORIGIN]}).encode()
        assert opened.request("PUT", "/v1/projects/demo/origins", {**operator(), **JSON}, body).status == 200
        other = bearer(mint_token(Scope.WRITE, sub="other", secret=FOREIGN_SECRET))
        assert opened.request("PUT", "/v1/stream/other/secret", {**other, **TEXT}, b"theirs").status == 201
        origins = json.dumps({"origins": [ORIGIN, "https://b.example"]}).encode()
        assert opened.request("PUT", "/v1/projects/other/origins", {**operator(), **JSON}, origins).status == 200
        made = opened.request("PUT", "/v1/stream/other/public?public=true", {**other, **TEXT}, b"for all")
        assert made.status == 201
        yield opened


def writer() -> dict[str, str]:
    """A writer of `demo`."""
    return bearer(mint_token(Scope.WRITE))


def reader() -> dict[str, str]:
    """A reader of `demo`."""
    return bearer(mint_token())


# -- tokens ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "status"),
    [
        ("Bearer " + "a" * (TOKEN_BYTES_MAX + 1), 401),
        ("Bearer " + "a" * 40_000, 431),
        ("Bearer", 401),
        ("Bearer ", 401),
        ("Bearer a b", 401),
        ("bearer  {token}  ", 200),
        ("BEARER {token}", 200),
        ("Token {token}", 401),
        ("{token}", 401),
        ("Bearer {token},Bearer {token}", 401),
        ("Bearer \x80\xff", 401),
    ],
    ids=range(11),
)
def test_authorization_field_must_be_one_bearer_token(api: ServerClient, field: str, status: int) -> None:
    """A field that is larger than a request's head may be is answered with 431."""
    value = field.replace("{token}", mint_token())
    answer = raw_get(api, "/v1/stream/demo/private", {"authorization": value})
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]


def test_request_with_a_megabyte_of_a_token_is_cut_off(api: ServerClient) -> None:
    """The connection ends, perhaps before the answer can be read, and the server goes on."""
    answer = raw_get(api, "/v1/stream/demo/private", {"authorization": "Bearer " + "a" * 1_048_576})
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")
    assert api.request("GET", "/v1/stream/demo/private", reader()).status == 200


def test_repeated_token_is_rejected(api: ServerClient) -> None:
    """In the field or in the query, because it is ambiguous."""
    fields = [("authorization", f"Bearer {mint_token()}")] * 2
    assert api.http.get("/v1/stream/demo/private", headers=fields).status_code == 400
    for query in (f"token={mint_token()}&token={mint_token()}", f"token=x&%74oken={mint_token()}"):
        assert api.request("GET", f"/v1/stream/demo/private?{query}").status == 400
    assert api.request("GET", f"/v1/stream/demo/private?%74oken={mint_token()}").status == 200


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
def test_token_in_the_query_cannot_write(api: ServerClient, method: str) -> None:
    """URLs end up in histories and logs, so a token in the query is for reads."""
    answer = api.request(method, f"/v1/stream/demo/private?token={mint_token(Scope.MANAGE)}", TEXT, b"x")
    assert (answer.status, answer.code) == (400, "malformed_query")


# -- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/v1/stream/demo//secret",
        "/v1/stream//other/secret",
        "/v1/stream/demo/../other/secret",
        "/v1/stream/demo/%2e%2e/other/secret",
        "/v1/stream/demo/..%2fother/secret",
        "/v1/stream/./other/secret",
        "/v1/stream/demo%2f..%2fother/secret",
        "/v1/stream/demo/..;/other/secret",
        "/v1/stream/demo;/../other/secret",
        "/v1/stream/demo%00/secret",
        "/v1/stream/demo\\..\\other/secret",
        "/v1/stream/other%2Fsecret",
        "/v1/stream/other;x/secret",
        "/v1/stream/OTHER/secret",
        "/v1/stream/%6Fther/secret",
        "/v1/stream/oth%C3%A9r/secret",
        "/v1/stream/%EF%BD%8Fther/secret",
        "/v1/stream/other%20/secret",
        "/v1/stream/other./secret",
        "/v1/stream/other/secret?x=/v1/stream/demo/public",
        "/v1/stream/demo/private/../../other/secret",
        "//v1/stream/other/secret",
        "/v1/stream/other/secret#demo",
    ],
)
def test_no_spelling_of_a_path_reaches_another_project(api: ServerClient, path: str) -> None:
    """With a token of `demo` and without a token; the answer never has bytes of `other`."""
    for headers in (reader(), {}):
        raw = raw_get(api, path, headers)
        assert re.match(rb"HTTP/1.1 (400|401|403|404) ", raw), raw[:200]
        assert b"theirs" not in raw


def raw_get(api: ServerClient, path: str, headers: dict[str, str]) -> bytes:
    """The whole answer to a GET whose path is sent as it is."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{fields}\r\n"
    return raw(api, request.encode("latin-1"))


def raw(api: ServerClient, request: bytes) -> bytes:
    """All bytes of a connection until it ends."""
    with connect(str(api.http.base_url).rstrip("/")) as connection:
        answer = b""
        with suppress(ConnectionError):
            connection.sendall(request)
            while part := connection.recv(65_536):
                answer += part
    return answer


@pytest.mark.parametrize("name", ["demo/a%0d%0aset-cookie:%20x=1", "demo/a%0aX-Evil:1", "demo/%00", "demo/a%7f"])
def test_control_characters_in_a_name_cannot_add_header_fields(api: ServerClient, name: str) -> None:
    """`Location` has the name, so a name with control characters is rejected."""
    answer = api.request("PUT", f"/v1/stream/{name}", {**writer(), **TEXT})
    assert answer.status == 400
    assert "set-cookie" not in answer.headers
    assert "x-evil" not in answer.headers


def test_fork_cannot_read_another_project(api: ServerClient) -> None:
    """Nor a stream that the token is not for, nor a URL of another server."""
    foreign = {**writer(), "stream-forked-from": "/v1/stream/other/secret"}
    assert api.request("PUT", "/v1/stream/demo/stolen", foreign).status == 403
    sideways = {**writer(), "stream-forked-from": "/v1/stream/%6Fther/secret"}
    assert api.request("PUT", "/v1/stream/demo/stolen", sideways).status == 403
    narrow = {**bearer(mint_token(Scope.WRITE, stream="mine/")), "stream-forked-from": "/v1/stream/demo/private"}
    assert api.request("PUT", "/v1/stream/demo/mine/fork", narrow).status == 403
    for url in ("http://169.254.169.254/v1/stream/x", "//evil.example/v1/stream/x", "https://evil.example/v1/stream/x"):
        assert api.request("PUT", "/v1/stream/demo/far", {**writer(), "stream-forked-from": url}).status == 400
    own = {**writer(), "stream-forked-from": "/v1/stream/demo/private"}
    assert api.request("PUT", "/v1/stream/demo/fork", own).status == 201


def test_estuary_cannot_follow_a_stream_of_another_project(api: ServerClient) -> None:
    """However the estuary's id or the source's path is spelt."""
    for estuary in ("../other/secret", "other/secret", "a/../../other", "%2e%2e/other"):
        body = json.dumps({"estuaryId": estuary}).encode()
        answer = api.request("POST", "/v1/estuary/subscribe/demo/private", {**writer(), **JSON}, body)
        assert answer.status in {200, 201, 400}
        if answer.status < 300:
            assert json.loads(answer.body)["path"].startswith("/v1/stream/demo/")
    body = b'{"estuaryId":"e"}'
    for path in ("other/secret", "demo%2F..%2Fother/secret", "%6Fther/secret", "demo/../other/secret"):
        answer = api.request("POST", f"/v1/estuary/subscribe/{path}", {**writer(), **JSON}, body)
        assert answer.status in {400, 401, 403, 404}, path
    odd = raw(api, b"GET /v1/est%75ary/demo/e HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert re.match(rb"HTTP/1.1 (400|401|404) ", odd)


# -- anonymous clients -----------------------------------------------------------------------------------------------


def shape(answer: Answer) -> tuple[int, bytes, frozenset[tuple[str, str]]]:
    """All of an answer by which two answers could be told apart."""
    return (
        answer.status,
        answer.body,
        frozenset((k, v) for k, v in answer.headers.items() if k not in {"date", "x-request-id"}),
    )


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "POST", "DELETE"])
def test_anonymous_clients_get_the_same_answer_for_every_private_stream(api: ServerClient, method: str) -> None:
    """For an existing stream, an absent one, and one of an absent project, without a token and with another's."""
    paths = ["other/secret", "other/none", "none/none", "none/secret", "demo-/x"]
    for headers in ({}, reader(), bearer("x.y.z")):
        answers = {shape(api.request(method, f"/v1/stream/{path}", {**headers, **TEXT}, b"x")) for path in paths}
        assert len(answers) == 1


TEMPLATES = (
    "/v1/stream/{}",
    "/v1/stream/{}/x",
    "/v1/stream/{}/x?offset=nonsense",
    "/v1/stream/{}/x?live=websocket&offset=-1",
    "/v1/stream/{}/x?live=sse",
    "/v1/stream/{}/x?public=maybe",
    "/v1/estuary/{}/x",
    "/v1/projects/{}",
)


def test_anonymous_clients_cannot_find_out_projects_or_their_origins(api: ServerClient) -> None:
    """Existing and absent projects have the same answers, also to malformed queries and to guessed origins."""
    for headers in ({}, {"origin": "https://guess.example"}, bearer("x.y.z")):
        for method in ("GET", "OPTIONS", "POST"):
            for template in TEMPLATES:
                paths = [template.format(name) for name in ("other", "demo", "none")]
                answers = {shape(api.request(method, path, headers)) for path in paths}
                assert len(answers) == 1, (method, template)


@pytest.mark.parametrize(
    "query",
    ["live=websocket&offset=-1", "live=websocket", "live=websocket&offset=nonsense", "live=sse&offset=-1", "offset=-1"],
)
def test_anonymous_websocket_handshakes_get_the_same_answer_for_every_stream(api: ServerClient, query: str) -> None:
    """With a valid query or a malformed one, for existing and absent streams and projects."""
    paths = [f"/v1/stream/{name}?{query}" for name in ("demo/private", "demo/none", "other/secret", "none/x")]
    answers = {shape(api.handshake("GET", path)) for path in paths}
    assert [answer[0] for answer in answers] == [401]


BODIES = [
    b"",
    b"null",
    b"[]",
    b"1",
    b'"x"',
    b"{",
    b"\xff\xfe",
    b'{"\\ud800":1}',
    b'{"name":1,"secret":2}',
    b"a=b",
    b"[" * 5_000,
]


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded", ""])
@pytest.mark.parametrize("path", ["/v1/projects", "/v1/projects/demo/secrets", "/v1/estuary/subscribe/demo/private"])
def test_malformed_control_bodies_are_answered_with_400_and_not_quoted(
    api: ServerClient, path: str, content_type: str
) -> None:
    """The message does not quote the body, which may have a secret."""
    for body in (*BODIES, b'{"secret":"this-secret-must-not-be-quoted-at-all"'):
        token = operator() if "secrets" in path or path == "/v1/projects" else writer()
        headers = {**token, **({"content-type": content_type} if content_type else {})}
        answer = api.request("POST", path, headers, body)
        assert (answer.status, answer.code) == (400, "malformed_request"), body
        assert b"this-secret" not in answer.body


def test_server_never_redirects(api: ServerClient) -> None:
    """Neither to another scheme, nor to a URL with a token."""
    for path in ("/v1/projects/", "/v1/streams/", "/health/", "/v1/estuary/demo/e/"):
        answer = api.request("GET", f"{path}?token=t", {"x-forwarded-proto": "https", **operator()})
        assert answer.status in {400, 401, 404}
        assert "location" not in answer.headers


def test_recreated_project_does_not_accept_tokens_of_its_former_incarnation(api: ServerClient) -> None:
    """A project with the same name has other secrets and another incarnation."""
    former, latter = Secret("former-" * 5, 0), Secret("latter-" * 5, 0)
    for secret in (former, latter):
        body = json.dumps({"name": "again", "secret": secret.value}).encode()
        assert api.request("POST", "/v1/projects", {**operator(), **JSON}, body).status == 201
        token = bearer(mint_token(Scope.WRITE, sub="again", secret=secret))
        assert api.request("PUT", "/v1/stream/again/x", {**token, **TEXT}).status == 201
        assert api.request("DELETE", "/v1/projects/again", operator()).code == "project_not_empty"
        if secret is former:
            assert api.request("DELETE", "/v1/stream/again/x", token).status == 204
            assert api.request("DELETE", "/v1/projects/again", operator()).status == 204
    gone = bearer(mint_token(Scope.WRITE, sub="again", secret=former))
    assert api.request("GET", "/v1/stream/again/x", gone).status == 401


def test_write_is_authorized_again_when_its_body_has_come(api: ServerClient) -> None:
    """The token's secret is removed while the body is being sent."""
    secret, manager = Secret("dribble-" * 5, 0), {**bearer(mint_token(Scope.MANAGE)), **JSON}
    added = json.dumps({"secret": secret.value}).encode()
    assert api.request("POST", "/v1/projects/demo/secrets", manager, added).status == 201
    token = mint_token(Scope.WRITE, secret=secret)
    head = f"POST /v1/stream/demo/private HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
    request = head + "content-type: text/plain\r\ncontent-length: 4\r\nconnection: close\r\n\r\nab"
    with connect(str(api.http.base_url).rstrip("/")) as connection:
        connection.sendall(request.encode())
        assert api.request("DELETE", f"/v1/projects/demo/secrets/{secret.id}", manager).status == 204
        connection.sendall(b"cd")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 401 ")
    assert b"abcd" not in api.request("GET", "/v1/stream/demo/private", reader()).body


def test_no_route_returns_a_secret(api: ServerClient) -> None:
    """Neither the route that adds the secret, nor the error for an invalid one."""
    secret = "a-secret-that-is-long-enough-to-be-one"
    manager = {**bearer(mint_token(Scope.MANAGE)), **JSON}
    added = api.request("POST", "/v1/projects/demo/secrets", manager, json.dumps({"secret": secret}).encode())
    again = api.request("POST", "/v1/projects/demo/secrets", manager, json.dumps({"secret": secret}).encode())
    wrong = api.request("POST", "/v1/projects/demo/secrets", manager, json.dumps({"secret": secret + " "}).encode())
    shown = api.request("GET", "/v1/projects/demo", manager)
    listed = api.request("GET", "/v1/projects", operator())
    assert [answer.status for answer in (added, again, wrong, shown, listed)] == [201, 409, 400, 200, 200]
    for answer in (added, again, wrong, shown, listed):
        assert secret.encode() not in answer.body
    known = json.loads(added.body)["id"]
    assert json.loads(shown.body)["secrets"][0]["id"] == known
    assert api.request("DELETE", f"/v1/projects/demo/secrets/{known}", manager).status == 204


def test_last_secret_cannot_be_removed(api: ServerClient) -> None:
    """A project without secrets would have no valid tokens."""
    [last] = json.loads(api.request("GET", "/v1/projects/other", operator()).body)["secrets"]
    answer = api.request("DELETE", f"/v1/projects/other/secrets/{last['id']}", operator())
    assert (answer.status, answer.code) == (409, "last_secret")


def test_removed_secret_is_rejected_at_once(api: ServerClient) -> None:
    """In the process that has removed it."""
    secret = Secret("removed-" * 5, 0)
    manager = {**bearer(mint_token(Scope.MANAGE)), **JSON}
    body = json.dumps({"secret": secret.value}).encode()
    assert api.request("POST", "/v1/projects/demo/secrets", manager, body).status == 201
    signed = bearer(mint_token(secret=secret))
    assert api.request("GET", "/v1/stream/demo/private", signed).status == 200
    assert api.request("DELETE", f"/v1/projects/demo/secrets/{secret.id}", manager).status == 204
    assert api.request("GET", "/v1/stream/demo/private", signed).status == 401


# -- browsers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "*",
        "http://app.example",
        "https://app.example.evil.example",
        "https://evilapp.example",
        "https://app.example:444",
        "https://app.example/",
        "https://APP.example",
        "https://app.example, https://evil.example",
        "https://app.example%00.evil.example",
        "https://xn--pp-eka.example",
        "file://",
    ],
)
def test_cors_allows_only_the_projects_origins(api: ServerClient, origin: str) -> None:
    """A project with two origins answers each with itself, and similar origins with none."""
    for method in ("GET", "OPTIONS"):
        for allowed in (origin, ORIGIN):
            preflight = {"origin": allowed, "access-control-request-method": "PUT"}
            answer = api.request(method, "/v1/stream/other/public", preflight)
            assert answer.headers.get("access-control-allow-origin") == (ORIGIN if allowed == ORIGIN else None)
            assert method == "OPTIONS" or answer.headers["vary"] == "Origin"


def test_single_origin_of_a_project_is_in_every_public_answer(api: ServerClient) -> None:
    """So a cache can use one answer for all clients; a browser compares it with the page's own origin."""
    for origin in (ORIGIN, "https://evil.example"):
        answer = api.request("GET", "/v1/stream/demo/public", {"origin": origin})
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "vary" not in answer.headers
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("path", ["/v1/stream/demo/x", "/v1/estuary/demo/e", "/v1/projects/demo/streams"])
def test_preflight_needs_no_token_and_no_stream(api: ServerClient, path: str) -> None:
    """It is answered for any path of the project, and allows the protocol's fields and methods."""
    preflight = {
        "origin": ORIGIN,
        "access-control-request-method": "PUT",
        "access-control-request-headers": "authorization",
    }
    answer = api.request("OPTIONS", path, preflight)
    assert answer.status == 204
    allowed = answer.headers["access-control-allow-headers"].lower()
    assert {"authorization", "content-type", "producer-id", "stream-seq", "if-none-match"} <= set(allowed.split(", "))
    if "/stream/" in path:
        assert answer.headers["access-control-allow-methods"] == METHODS


def test_cors_exposes_every_header_field_of_every_answer(api: ServerClient) -> None:
    """Except the CORS-safelisted ones and those that pages do not need; also of errors and event streams."""
    page = {"origin": ORIGIN}
    tail = f"{0:016d}_{1:016d}"
    answers = [
        api.request("PUT", "/v1/stream/demo/seen", {**page, **writer(), **TEXT, "stream-ttl": "1000"}, b"x"),
        api.request("HEAD", "/v1/stream/demo/seen", {**page, **reader()}),
        api.request("GET", "/v1/stream/demo/seen?live=sse&offset=-1", {**page, **reader()}),
        api.request("GET", f"/v1/stream/demo/seen?live=long-poll&offset={tail}", {**page, **reader()}),
        api.request("POST", "/v1/stream/demo/seen", {**page, **writer(), **TEXT, **producer(1)}, b"x"),
        api.request("POST", "/v1/stream/demo/seen", {**page, **writer(), **TEXT, **producer(0)}, b"x"),
        api.request("GET", "/v1/stream/demo/seen", page),
        api.request("GET", "/v1/projects/demo", {**page, **operator()}),
    ]
    simple = {"cache-control", "content-length", "content-type", "expires", "date", "vary", "transfer-encoding"}
    unseen = {"connection", "x-content-type-options", "cross-origin-resource-policy", "x-accel-buffering"}
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        exposed = {name.strip() for name in answer.headers["access-control-expose-headers"].lower().split(",")}
        named = {name for name in answer.headers if not name.startswith("access-control-")}
        assert named - simple - unseen <= exposed, answer


def producer(epoch: int) -> dict[str, str]:
    """A producer's first append in an epoch."""
    return {"producer-id": "p", "producer-epoch": str(epoch), "producer-seq": "0"}


@pytest.mark.medium
@pytest.mark.parametrize(
    ("origins", "origin", "may"),
    [
        ("localhost", "http://localhost:5173", True),
        ("localhost", "https://127.0.0.1", True),
        ("localhost", "http://[::1]:3000", True),
        ("localhost", "https://evil.example", False),
        ("localhost", "http://localhost.evil.example", False),
        ("localhost", "http://evil-localhost", False),
        ("localhost", "null", False),
        ("", "http://localhost:5173", False),
        ("https://app.example", "https://app.example", True),
        ("*", "https://evil.example", True),
    ],
)
def test_open_server_rejects_writes_and_websockets_of_other_origins(
    tmp_path: Path, origins: str, origin: str, *, may: bool
) -> None:
    """Browsers send some writes, and all handshakes, without a preflight, so CORS alone does not prevent them."""
    with (
        server_in_thread(tmp_path / "data", "--store", "memory", "--cors-origins", origins) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        api, page = ServerClient(client), {"origin": origin, **TEXT}
        assert api.request("PUT", "/v1/stream/a", TEXT).status == 201
        assert api.request("POST", "/v1/stream/a", page, b"x").status == (204 if may else 403)
        assert api.request("PUT", "/v1/estuary/a/b", {**page, **JSON}, b"{}").status == (201 if may else 403)
        allowed_origin = api.request("GET", "/v1/stream/a", page).headers.get("access-control-allow-origin")
        assert (allowed_origin is not None) is may
        shaken = api.handshake("GET", "/v1/stream/a?live=websocket&offset=-1", {"origin": origin})
        assert shaken.status == (200 if may else 403)
        own = {"origin": server.url, "host": server.url.removeprefix("http://"), **TEXT}
        assert api.request("POST", "/v1/stream/a", own, b"x").status == 204


def test_stream_of_html_is_sandboxed(api: ServerClient) -> None:
    """Its scripts have no origin, and it sends no Referer, because its URL may have a token."""
    page = {**writer(), "content-type": "text/html"}
    assert api.request("PUT", "/v1/stream/demo/page", page, b"<script>").status == 201
    answer = api.request("GET", f"/v1/stream/demo/page?token={mint_token()}")
    assert answer.headers["content-security-policy"] == "sandbox"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_every_answer_has_cache_control_and_nosniff(api: ServerClient) -> None:
    """Also answers of control routes, errors and preflights."""
    for method in ("GET", "POST", "OPTIONS", "HEAD"):
        for path in ("/health", "/metrics", "/openapi.json", "/none", "/v1/projects", "/v1/streams", "/v1/stream/demo"):
            answer = api.request(method, path)
            assert answer.headers["cache-control"] == "no-store", (method, path)
            assert answer.headers["x-content-type-options"] == "nosniff", (method, path)


# -- connections -----------------------------------------------------------------------------------------------------


SMUGGLED = b"GET /v1/stream/other/secret HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"content-length: 0\r\ntransfer-encoding: chunked\r\n",
        b"content-length: 4\r\ncontent-length: 0\r\n",
        b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        b"transfer-encoding: xchunked\r\n",
        b"transfer-encoding : chunked\r\n",
        b"content-length: +4\r\n",
        b"content-length: 0x4\r\n",
        b" content-length: 4\r\n",
        b"x: y\ncontent-length: 4\r\n",
    ],
    ids=range(9),
)
def test_request_with_an_ambiguous_length_ends_the_connection(api: ServerClient, head: bytes) -> None:
    """A length that can be read in two ways is answered with 400, and a request after it is not answered."""
    token = f"authorization: Bearer {mint_token(Scope.WRITE)}\r\n".encode()
    request = (
        b"POST /v1/stream/demo/private HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\n" + token + head + b"\r\n"
    )
    answer = raw(api, request + b"0\r\n\r\n" + SMUGGLED)
    assert re.match(rb"HTTP/1.1 400 ", answer), answer[:200]
    assert answer.count(b"HTTP/1.1 ") == 1


# -- through the CDN alone -------------------------------------------------------------------------------------------


@pytest.fixture
def behind_a_cdn(tmp_path: Path) -> Iterator[ThreadServer]:
    """A server behind a CDN."""
    with server_in_thread(tmp_path / "data", FLUVIAL_CDN_SECRET="between-us, next") as server:  # noqa: S106  a test's
        yield server


def test_location_behind_a_cdn_has_no_host(behind_a_cdn: ThreadServer) -> None:
    """The server does not know the CDN's host; a client resolves the path against the URL of its request."""
    headers = {"x-fluvial-origin": "next", **TEXT}
    assert httpx.put(f"{behind_a_cdn.url}/v1/stream/a%20b", headers=headers).headers["location"] == "/v1/stream/a%20b"


def test_request_that_bypasses_the_cdn_is_rejected(behind_a_cdn: ThreadServer) -> None:
    """Without the CDN's secret, with a wrong one, and with two; only health checks need none."""
    with httpx.Client(base_url=behind_a_cdn.url) as client:
        through = {"x-fluvial-origin": "between-us"}
        assert client.put("/v1/stream/a", headers={**through, **TEXT}).status_code == 201
        assert client.get("/v1/stream/a", headers=through).status_code == 200
        for fields in ([], [("x-fluvial-origin", "x")], [("x-fluvial-origin", "between-us")] * 2):
            for path in ("/v1/stream/a", "/metrics", "/v1/streams", "/v1/stream/a?live=websocket"):
                answer = client.get(path, headers=fields)
                assert (answer.status_code, answer.json()["error"]["code"]) == (403, "not_through_the_cdn")
        assert client.get("/health").status_code == 200
