"""What somebody tries who means harm, through the door of the local server. Tokens: tests/unit/access."""

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
from tests.access.doors import JSON, Answer, ServerDoor, bearer, minted, operator, server_door
from tests.support.access import FOREIGN_SECRET
from tests.support.raw_http import connect
from tests.support.servers import ThreadServer, server_in_thread

TEXT = {"content-type": "text/plain"}
ORIGIN = "https://app.example"


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerDoor]:
    """A server whose project `demo` has a private and a public stream, and one origin."""
    with server_door(tmp_path_factory.mktemp("attacks")) as opened:
        for path in ("demo/private", "demo/public?public=true"):
            assert opened.ask("PUT", f"/v1/stream/{path}", {**writer(), **TEXT}, b"x").status == 201
        body = json.dumps({"origins": [ORIGIN]}).encode()
        assert opened.ask("PUT", "/v1/projects/demo/origins", {**operator(), **JSON}, body).status == 200
        other = bearer(minted(Scope.WRITE, sub="other", secret=FOREIGN_SECRET))
        assert opened.ask("PUT", "/v1/stream/other/secret", {**other, **TEXT}, b"theirs").status == 201
        origins = json.dumps({"origins": [ORIGIN, "https://b.example"]}).encode()
        assert opened.ask("PUT", "/v1/projects/other/origins", {**operator(), **JSON}, origins).status == 200
        made = opened.ask("PUT", "/v1/stream/other/public?public=true", {**other, **TEXT}, b"for all")
        assert made.status == 201
        yield opened


def writer() -> dict[str, str]:
    """A writer of `demo`."""
    return bearer(minted(Scope.WRITE))


def reader() -> dict[str, str]:
    """A reader of `demo`."""
    return bearer(minted())


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
def test_the_authorization_field_is_a_bearers_or_nobodys(door: ServerDoor, field: str, status: int) -> None:
    """What is larger than all fields together may be does not even come through."""
    value = field.replace("{token}", minted())
    answer = raw_get(door, "/v1/stream/demo/private", {"authorization": value})
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]


def test_a_megabyte_of_a_token_is_cut_off(door: ServerDoor) -> None:
    """The connection ends, perhaps before the answer could be read; the server goes on."""
    answer = raw_get(door, "/v1/stream/demo/private", {"authorization": "Bearer " + "a" * 1_048_576})
    assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")
    assert door.ask("GET", "/v1/stream/demo/private", reader()).status == 200


def test_a_token_comes_once(door: ServerDoor) -> None:
    """Nobody could tell which of two was meant."""
    fields = [("authorization", f"Bearer {minted()}")] * 2
    assert door.client.get("/v1/stream/demo/private", headers=fields).status_code == 400
    for query in (f"token={minted()}&token={minted()}", f"token=x&%74oken={minted()}"):
        assert door.ask("GET", f"/v1/stream/demo/private?{query}").status == 400
    assert door.ask("GET", f"/v1/stream/demo/private?%74oken={minted()}").status == 200


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
def test_a_link_writes_nothing(door: ServerDoor, method: str) -> None:
    """A token in the query, which ends in histories and logs, is for reads."""
    answer = door.ask(method, f"/v1/stream/demo/private?token={minted(Scope.MANAGE)}", TEXT, b"x")
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
def test_no_spelling_of_a_path_leads_into_another_project(door: ServerDoor, path: str) -> None:
    """With a token of `demo` and with none; and nothing of it is ever told."""
    for headers in (reader(), {}):
        raw = raw_get(door, path, headers)
        assert re.match(rb"HTTP/1.1 (400|401|403|404) ", raw), raw[:200]
        assert b"theirs" not in raw


def raw_get(door: ServerDoor, path: str, headers: dict[str, str]) -> bytes:
    """The whole answer to a path that no client library touches."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{fields}\r\n"
    return raw(door, request.encode("latin-1"))


def raw(door: ServerDoor, request: bytes) -> bytes:
    """What a connection answers until it ends."""
    with connect(str(door.client.base_url).rstrip("/")) as connection:
        answer = b""
        with suppress(ConnectionError):
            connection.sendall(request)
            while part := connection.recv(65_536):
                answer += part
    return answer


@pytest.mark.parametrize("name", ["demo/a%0d%0aset-cookie:%20x=1", "demo/a%0aX-Evil:1", "demo/%00", "demo/a%7f"])
def test_no_name_splits_an_answer(door: ServerDoor, name: str) -> None:
    """A `Location` has it as it was sent, encoded, if it may be one at all."""
    answer = door.ask("PUT", f"/v1/stream/{name}", {**writer(), **TEXT})
    assert answer.status == 400
    assert "set-cookie" not in answer.headers
    assert "x-evil" not in answer.headers


def test_a_fork_takes_nothing_out_of_another_project(door: ServerDoor) -> None:
    """Nor out of a stream that the token is not for; not even a public one of another project."""
    foreign = {**writer(), "stream-forked-from": "/v1/stream/other/secret"}
    assert door.ask("PUT", "/v1/stream/demo/stolen", foreign).status == 403
    sideways = {**writer(), "stream-forked-from": "/v1/stream/%6Fther/secret"}
    assert door.ask("PUT", "/v1/stream/demo/stolen", sideways).status == 403
    narrow = {**bearer(minted(Scope.WRITE, stream="mine/")), "stream-forked-from": "/v1/stream/demo/private"}
    assert door.ask("PUT", "/v1/stream/demo/mine/fork", narrow).status == 403
    for url in ("http://169.254.169.254/v1/stream/x", "//evil.example/v1/stream/x", "https://evil.example/v1/stream/x"):
        assert door.ask("PUT", "/v1/stream/demo/far", {**writer(), "stream-forked-from": url}).status == 400
    own = {**writer(), "stream-forked-from": "/v1/stream/demo/private"}
    assert door.ask("PUT", "/v1/stream/demo/fork", own).status == 201


def test_an_estuary_is_filled_from_its_own_project_alone(door: ServerDoor) -> None:
    """However its id or the source's path is spelt."""
    for estuary in ("../other/secret", "other/secret", "a/../../other", "%2e%2e/other"):
        body = json.dumps({"estuaryId": estuary}).encode()
        answer = door.ask("POST", "/v1/estuary/subscribe/demo/private", {**writer(), **JSON}, body)
        assert answer.status in {200, 201, 400}
        if answer.status < 300:
            assert json.loads(answer.body)["path"].startswith("/v1/stream/demo/")
    body = b'{"estuaryId":"e"}'
    for path in ("other/secret", "demo%2F..%2Fother/secret", "%6Fther/secret", "demo/../other/secret"):
        answer = door.ask("POST", f"/v1/estuary/subscribe/{path}", {**writer(), **JSON}, body)
        assert answer.status in {400, 401, 403, 404}, path
    odd = raw(door, b"GET /v1/est%75ary/demo/e HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert re.match(rb"HTTP/1.1 (400|401|404) ", odd)


# -- strangers -------------------------------------------------------------------------------------------------------


def shape(answer: Answer) -> tuple[int, bytes, frozenset[tuple[str, str]]]:
    """All of an answer that could tell something."""
    return answer.status, answer.body, frozenset((k, v) for k, v in answer.headers.items() if k != "date")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "POST", "DELETE"])
def test_strangers_learn_nothing_of_what_is_there(door: ServerDoor, method: str) -> None:
    """A stream, a stream that is not there, one of another project and one of no project are refused alike."""
    paths = ["other/secret", "other/none", "none/none", "none/secret", "demo-/x"]
    for headers in ({}, reader(), bearer("x.y.z")):
        answers = {shape(door.ask(method, f"/v1/stream/{path}", {**headers, **TEXT}, b"x")) for path in paths}
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


def test_strangers_cannot_ask_for_a_projects_name_or_its_origins(door: ServerDoor) -> None:
    """A path without a stream, a guess at an origin, a control route: all as if nothing was there."""
    for headers in ({}, {"origin": "https://guess.example"}, bearer("x.y.z")):
        for method in ("GET", "OPTIONS", "POST"):
            for template in ("/v1/stream/{}", "/v1/stream/{}/x", "/v1/estuary/{}/x", "/v1/projects/{}"):
                paths = [template.format(name) for name in ("other", "demo", "none")]
                answers = {shape(door.ask(method, path, headers)) for path in paths}
                assert len(answers) == 1, (method, template)


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
def test_no_body_of_a_control_route_makes_it_fail(door: ServerDoor, path: str, content_type: str) -> None:
    """It is not of its form, and that is all that is said."""
    for body in (*BODIES, b'{"secret":"told-to-nobody-whatever-becomes-of-it"'):
        token = operator() if "secrets" in path or path == "/v1/projects" else writer()
        headers = {**token, **({"content-type": content_type} if content_type else {})}
        answer = door.ask("POST", path, headers, body)
        assert (answer.status, answer.code) == (400, "malformed_request"), body
        assert b"told-to-nobody" not in answer.body


def test_nothing_is_redirected(door: ServerDoor) -> None:
    """To another scheme, or with a token in the new URL."""
    for path in ("/v1/projects/", "/v1/streams/", "/health/", "/v1/estuary/demo/e/"):
        answer = door.ask("GET", f"{path}?token=t", {"x-forwarded-proto": "https", **operator()})
        assert answer.status in {400, 401, 404}
        assert "location" not in answer.headers


def test_a_projects_successor_knows_nothing_of_it(door: ServerDoor) -> None:
    """Neither its tokens nor its versions: the name is another project's now."""
    former, latter = Secret("former-" * 5, 0), Secret("latter-" * 5, 0)
    for secret in (former, latter):
        body = json.dumps({"name": "again", "secret": secret.value}).encode()
        assert door.ask("POST", "/v1/projects", {**operator(), **JSON}, body).status == 201
        token = bearer(minted(Scope.WRITE, sub="again", secret=secret))
        assert door.ask("PUT", "/v1/stream/again/x", {**token, **TEXT}).status == 201
        assert door.ask("DELETE", "/v1/projects/again", operator()).code == "project_not_empty"
        if secret is former:
            assert door.ask("DELETE", "/v1/stream/again/x", token).status == 204
            assert door.ask("DELETE", "/v1/projects/again", operator()).status == 204
    gone = bearer(minted(Scope.WRITE, sub="again", secret=former))
    assert door.ask("GET", "/v1/stream/again/x", gone).status == 401


def test_what_let_a_request_in_must_hold_when_its_body_has_come(door: ServerDoor) -> None:
    """A secret that is removed, or a token that ends, while a body dribbles in."""
    secret, manager = Secret("dribble-" * 5, 0), {**bearer(minted(Scope.MANAGE)), **JSON}
    added = json.dumps({"secret": secret.value}).encode()
    assert door.ask("POST", "/v1/projects/demo/secrets", manager, added).status == 201
    token = minted(Scope.WRITE, secret=secret)
    head = f"POST /v1/stream/demo/private HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
    request = head + "content-type: text/plain\r\ncontent-length: 4\r\nconnection: close\r\n\r\nab"
    with connect(str(door.client.base_url).rstrip("/")) as connection:
        connection.sendall(request.encode())
        assert door.ask("DELETE", f"/v1/projects/demo/secrets/{secret.id}", manager).status == 204
        connection.sendall(b"cd")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 401 ")
    assert b"abcd" not in door.ask("GET", "/v1/stream/demo/private", reader()).body


def test_no_route_tells_a_secret(door: ServerDoor) -> None:
    """Not the one that takes it, either, nor what is said of one that cannot be."""
    secret = "a-secret-that-is-long-enough-to-be-one"
    manager = {**bearer(minted(Scope.MANAGE)), **JSON}
    added = door.ask("POST", "/v1/projects/demo/secrets", manager, json.dumps({"secret": secret}).encode())
    again = door.ask("POST", "/v1/projects/demo/secrets", manager, json.dumps({"secret": secret}).encode())
    wrong = door.ask("POST", "/v1/projects/demo/secrets", manager, json.dumps({"secret": secret + " "}).encode())
    shown = door.ask("GET", "/v1/projects/demo", manager)
    listed = door.ask("GET", "/v1/projects", operator())
    assert [answer.status for answer in (added, again, wrong, shown, listed)] == [201, 409, 400, 200, 200]
    for answer in (added, again, wrong, shown, listed):
        assert secret.encode() not in answer.body
    known = json.loads(added.body)["id"]
    assert json.loads(shown.body)["secrets"][0]["id"] == known
    assert door.ask("DELETE", f"/v1/projects/demo/secrets/{known}", manager).status == 204


def test_the_last_secret_stays(door: ServerDoor) -> None:
    """Whoever removes secrets one by one is stopped at the last."""
    [last] = json.loads(door.ask("GET", "/v1/projects/other", operator()).body)["secrets"]
    answer = door.ask("DELETE", f"/v1/projects/other/secrets/{last['id']}", operator())
    assert (answer.status, answer.code) == (409, "last_secret")


def test_a_removed_secret_is_worth_nothing(door: ServerDoor) -> None:
    """At once, in the process that removed it."""
    secret = Secret("removed-" * 5, 0)
    manager = {**bearer(minted(Scope.MANAGE)), **JSON}
    body = json.dumps({"secret": secret.value}).encode()
    assert door.ask("POST", "/v1/projects/demo/secrets", manager, body).status == 201
    signed = bearer(minted(secret=secret))
    assert door.ask("GET", "/v1/stream/demo/private", signed).status == 200
    assert door.ask("DELETE", f"/v1/projects/demo/secrets/{secret.id}", manager).status == 204
    assert door.ask("GET", "/v1/stream/demo/private", signed).status == 401


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
def test_no_other_origin_is_allowed(door: ServerDoor, origin: str) -> None:
    """Of a project with two origins, each is told alone; look-alikes are told nothing."""
    for method in ("GET", "OPTIONS"):
        for allowed in (origin, ORIGIN):
            asked = {"origin": allowed, "access-control-request-method": "PUT"}
            answer = door.ask(method, "/v1/stream/other/public", asked)
            assert answer.headers.get("access-control-allow-origin") == (ORIGIN if allowed == ORIGIN else None)
            assert method == "OPTIONS" or answer.headers["vary"] == "Origin"


def test_a_projects_only_origin_is_told_to_all_who_may_read(door: ServerDoor) -> None:
    """So that one cached answer does for everybody; a browser compares it with the page's own."""
    for origin in (ORIGIN, "https://evil.example"):
        answer = door.ask("GET", "/v1/stream/demo/public", {"origin": origin})
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "vary" not in answer.headers
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("path", ["/v1/stream/demo/x", "/v1/estuary/demo/e", "/v1/projects/demo/streams"])
def test_a_preflight_looks_at_no_stream_and_needs_no_token(door: ServerDoor, path: str) -> None:
    """It is answered for any path of the project; and what a browser may then see is complete."""
    asked = {
        "origin": ORIGIN,
        "access-control-request-method": "PUT",
        "access-control-request-headers": "authorization",
    }
    answer = door.ask("OPTIONS", path, asked)
    assert answer.status == 204
    allowed = answer.headers["access-control-allow-headers"].lower()
    assert {"authorization", "content-type", "producer-id", "stream-seq", "if-none-match"} <= set(allowed.split(", "))
    if "/stream/" in path:
        assert answer.headers["access-control-allow-methods"] == METHODS


def test_a_browser_sees_every_field_of_every_answer(door: ServerDoor) -> None:
    """Exposed, but for what it sees or uses anyway; errors, events and 401s among them."""
    asked = {"origin": ORIGIN}
    tail = f"{0:016d}_{1:016d}"
    answers = [
        door.ask("PUT", "/v1/stream/demo/seen", {**asked, **writer(), **TEXT, "stream-ttl": "1000"}, b"x"),
        door.ask("HEAD", "/v1/stream/demo/seen", {**asked, **reader()}),
        door.ask("GET", "/v1/stream/demo/seen?live=sse&offset=-1", {**asked, **reader()}),
        door.ask("GET", f"/v1/stream/demo/seen?live=long-poll&offset={tail}", {**asked, **reader()}),
        door.ask("POST", "/v1/stream/demo/seen", {**asked, **writer(), **TEXT, **producer(1)}, b"x"),
        door.ask("POST", "/v1/stream/demo/seen", {**asked, **writer(), **TEXT, **producer(0)}, b"x"),
        door.ask("GET", "/v1/stream/demo/seen", asked),
        door.ask("GET", "/v1/projects/demo", {**asked, **operator()}),
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
def test_no_page_from_elsewhere_writes_to_an_open_server(
    tmp_path: Path, origins: str, origin: str, *, may: bool
) -> None:
    """Or listens: a browser sends what needs no preflight whatever CORS says, and a handshake anyway."""
    with (
        server_in_thread(tmp_path / "data", "--store", "memory", "--cors-origins", origins) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        door, page = ServerDoor(client), {"origin": origin, **TEXT}
        assert door.ask("PUT", "/v1/stream/a", TEXT).status == 201
        assert door.ask("POST", "/v1/stream/a", page, b"x").status == (204 if may else 403)
        assert door.ask("PUT", "/v1/estuary/a/b", {**page, **JSON}, b"{}").status == (201 if may else 403)
        told = door.ask("GET", "/v1/stream/a", page).headers.get("access-control-allow-origin")
        assert (told is not None) is may
        shaken = door.shake_hands("GET", "/v1/stream/a?live=websocket&offset=-1", {"origin": origin})
        assert shaken.status == (200 if may else 403)
        own = {"origin": server.url, "host": server.url.removeprefix("http://"), **TEXT}
        assert door.ask("POST", "/v1/stream/a", own, b"x").status == 204


def test_a_stream_that_is_a_page_reaches_nothing(door: ServerDoor) -> None:
    """Its scripts have no origin, and its URL, which may have a token in it, is told to nobody."""
    page = {**writer(), "content-type": "text/html"}
    assert door.ask("PUT", "/v1/stream/demo/page", page, b"<script>").status == 201
    answer = door.ask("GET", f"/v1/stream/demo/page?token={minted()}")
    assert answer.headers["content-security-policy"] == "sandbox"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_every_answer_says_what_may_be_done_with_it(door: ServerDoor) -> None:
    """No cache keeps what nobody has thought of, and no browser guesses its type."""
    for method in ("GET", "POST", "OPTIONS", "HEAD"):
        for path in ("/health", "/metrics", "/openapi.json", "/none", "/v1/projects", "/v1/streams", "/v1/stream/demo"):
            answer = door.ask(method, path)
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
def test_nothing_is_smuggled_behind_a_request(door: ServerDoor, head: bytes) -> None:
    """A length that could be read in two ways is refused, and the connection ends: what follows is never answered."""
    token = f"authorization: Bearer {minted(Scope.WRITE)}\r\n".encode()
    request = (
        b"POST /v1/stream/demo/private HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\n" + token + head + b"\r\n"
    )
    answer = raw(door, request + b"0\r\n\r\n" + SMUGGLED)
    assert re.match(rb"HTTP/1.1 400 ", answer), answer[:200]
    assert answer.count(b"HTTP/1.1 ") == 1


# -- through the CDN alone -------------------------------------------------------------------------------------------


@pytest.fixture
def behind_a_cdn(tmp_path: Path) -> Iterator[ThreadServer]:
    """A server that is reached through a CDN."""
    with server_in_thread(tmp_path / "data", FLUVIAL_CDN_SECRET="between-us, next") as server:  # noqa: S106  a test's
        yield server


def test_a_location_behind_a_cdn_names_no_host(behind_a_cdn: ThreadServer) -> None:
    """The server does not know the CDN's; a client resolves it against the URL that it asked for."""
    headers = {"x-fluvial-origin": "next", **TEXT}
    assert httpx.put(f"{behind_a_cdn.url}/v1/stream/a%20b", headers=headers).headers["location"] == "/v1/stream/a%20b"


def test_what_comes_past_the_cdn_is_refused(behind_a_cdn: ThreadServer) -> None:
    """Without its proof, with a wrong one, with two; health alone is for whoever looks after the process."""
    with httpx.Client(base_url=behind_a_cdn.url) as client:
        through = {"x-fluvial-origin": "between-us"}
        assert client.put("/v1/stream/a", headers={**through, **TEXT}).status_code == 201
        assert client.get("/v1/stream/a", headers=through).status_code == 200
        for fields in ([], [("x-fluvial-origin", "x")], [("x-fluvial-origin", "between-us")] * 2):
            for path in ("/v1/stream/a", "/metrics", "/v1/streams", "/v1/stream/a?live=websocket"):
                answer = client.get(path, headers=fields)
                assert (answer.status_code, answer.json()["error"]["code"]) == (403, "not_through_the_cdn")
        assert client.get("/health").status_code == 200
