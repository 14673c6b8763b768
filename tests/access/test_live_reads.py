"""Live reads begin with a token and end with it: event streams, long-polls, sockets here and on API Gateway."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from fluvial.clock import Clock
from fluvial.model.permissions import Scope
from fluvial.server.websocket import POLICY_VIOLATION
from tests.access.doors import JSON, ServerDoor, bearer, minted, operator, server_door
from tests.support.access import FOREIGN_SECRET
from tests.support.servers import running_server

pytestmark = pytest.mark.medium

TEXT = {"content-type": "text/plain"}
PATH = "/v1/stream/demo/live"
REST_S = 1.0


@pytest.fixture
def door(tmp_path: Path) -> Iterator[ServerDoor]:
    """A server that lets live reads wait for long, with an empty stream."""
    with server_door(tmp_path, "--long-poll-timeout", "20", "--sse-max-age", "20") as opened:
        assert opened.ask("PUT", PATH, {**bearer(minted(Scope.WRITE)), **TEXT}).status == 201
        yield opened


def ending() -> str:
    """A token that is soon no good any more."""
    return minted(exp=Clock().now_ms() / 1_000 + REST_S)


def socket_url(door: ServerDoor, token: str | None, path: str = PATH) -> str:
    """Where a WebSocket reads the stream."""
    query = "" if token is None else f"&token={token}"
    return f"{str(door.client.base_url).replace('http', 'ws').rstrip('/')}{path}?live=websocket&offset=-1{query}"


@pytest.mark.parametrize(
    ("token", "status"),
    [
        (lambda: None, 401),
        (lambda: minted(exp=1), 401),
        (lambda: minted(secret=FOREIGN_SECRET), 401),
        (lambda: minted(stream="elsewhere"), 403),
    ],
    ids=["none", "expired", "wrong", "elsewhere"],
)
def test_a_socket_needs_a_token_to_begin(door: ServerDoor, token: object, status: int) -> None:
    """It is refused in plain HTTP; a stream of an other project and one that is not there are refused alike."""
    made = token()  # type: ignore[operator]
    for path in (PATH, "/v1/stream/demo/none", "/v1/stream/other/none", "/v1/stream/none/none"):
        wanted = status if path.startswith("/v1/stream/demo/") else 401
        with pytest.raises(InvalidStatus) as refused:
            connect(socket_url(door, made, path))
        assert refused.value.response.status_code == wanted


@pytest.mark.parametrize("how", ["in the query", "in the field"])
def test_a_socket_takes_its_token_either_way(door: ServerDoor, how: str) -> None:
    """Browsers cannot send the field."""
    fields = bearer(minted()) if how == "in the field" else {}
    url = socket_url(door, minted() if how == "in the query" else None)
    with connect(url, additional_headers=fields) as socket:
        assert json.loads(socket.recv(timeout=5))["type"] == "control"


def test_a_socket_ends_with_its_token(door: ServerDoor) -> None:
    """And says so by its close code: to come back with the same token is of no use."""
    with connect(socket_url(door, ending())) as socket:
        assert json.loads(socket.recv(timeout=5))["type"] == "control"
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == POLICY_VIOLATION


def test_an_event_stream_ends_with_its_token(door: ServerDoor) -> None:
    """And cannot be begun again by it."""
    token = ending()
    with door.client.stream("GET", f"{PATH}?live=sse&offset=-1&token={token}", timeout=10) as events:
        assert events.status_code == 200
        assert "".join(events.iter_text()).count("event: control") >= 1
    assert door.ask("GET", f"{PATH}?live=sse&offset=-1&token={token}").status == 401


def test_a_long_poll_waits_no_longer_than_its_token_is_good(door: ServerDoor) -> None:
    """Its answer is that nothing has come; the next one is refused."""
    token = bearer(ending())
    answer = door.client.get(f"{PATH}?live=long-poll&offset=-1", headers=token, timeout=10)
    assert answer.status_code == 204
    assert door.ask("GET", f"{PATH}?live=long-poll&offset=-1", token).status == 401


def test_events_of_a_private_stream_are_kept_by_nobody(door: ServerDoor) -> None:
    """Those of a public one are not stored, either, but need not be said to be private."""
    private = door.ask("GET", f"{PATH}?live=sse&offset=-1", bearer(ending()))
    assert private.headers["cache-control"] == "private, no-cache, no-store, no-transform"
    closed = {**bearer(minted(Scope.WRITE)), **TEXT, "stream-closed": "true"}
    assert door.ask("PUT", "/v1/stream/demo/open?public=true", closed, b"x").status == 201
    public = door.ask("GET", "/v1/stream/demo/open?live=sse&offset=-1")
    assert public.headers["cache-control"] == "no-cache, no-transform"


def test_a_project_has_so_many_live_reads_and_a_burst_of_requests(door: ServerDoor) -> None:
    """Past that the answer is 429, and when to come back."""
    limits = json.dumps({"liveReads": 1}).encode()
    assert door.ask("PUT", "/v1/projects/demo/limits", {**operator(), **JSON}, limits).status == 200
    with connect(socket_url(door, minted())) as socket:
        socket.recv(timeout=5)
        for live in ("sse", "long-poll"):
            answer = door.ask("GET", f"{PATH}?live={live}&offset=-1", bearer(minted()))
            assert (answer.status, answer.code) == (429, "too_many_live_reads")
            assert int(answer.headers["retry-after"]) >= 1
        with pytest.raises(InvalidStatus) as refused:
            connect(socket_url(door, minted()))
        assert refused.value.response.status_code == 429
    limits = json.dumps({"requestsPerSecond": 3}).encode()
    assert door.ask("PUT", "/v1/projects/demo/limits", {**operator(), **JSON}, limits).status == 200
    answers = [door.ask("GET", PATH, bearer(minted())) for _ in range(20)]
    assert answers[0].status == 200
    limited = [answer for answer in answers if answer.status == 429]
    assert limited
    assert {(one.code, one.headers["retry-after"]) for one in limited} == {("rate_limited", "1")}
    # Strangers are not counted: a 429 would tell them that the project is there.
    assert {door.ask("GET", path).status for path in (PATH, "/v1/stream/demo/none") for _ in range(5)} == {401}


def test_strangers_lock_nobody_out_of_a_public_project(door: ServerDoor) -> None:
    """They have a rate of their own."""
    limits = json.dumps({"requestsPerSecond": 2}).encode()
    public = json.dumps({"public": True}).encode()
    assert door.ask("PUT", "/v1/projects/demo/limits", {**operator(), **JSON}, limits).status == 200
    assert door.ask("PUT", "/v1/projects/demo/privacy", {**operator(), **JSON}, public).status == 200
    assert 429 in {door.ask("GET", "/v1/stream/demo/none").status for _ in range(10)}
    assert door.ask("GET", PATH, bearer(minted())).status == 200


def test_a_project_may_send_so_much(door: ServerDoor) -> None:
    """In one request, and in a day; what is refused is not appended."""
    limits = json.dumps({"bodyBytes": 10, "bytesPerDay": 25}).encode()
    assert door.ask("PUT", "/v1/projects/demo/limits", {**operator(), **JSON}, limits).status == 200
    writer = {**bearer(minted(Scope.WRITE)), **TEXT}
    assert door.ask("POST", PATH, writer, b"x" * 11).code == "body_too_large"
    assert [door.ask("POST", PATH, writer, b"x" * 10).status for _ in range(2)] == [204, 204]
    answer = door.ask("POST", PATH, writer, b"x" * 10)
    assert (answer.status, answer.code) == (429, "quota_exceeded")
    assert 0 < int(answer.headers["retry-after"]) <= 86_400
    assert door.ask("GET", PATH, bearer(minted())).body == b"x" * 20
    assert door.ask("POST", PATH, {**writer, "stream-closed": "true"}).status == 204


def test_what_is_refused_or_was_there_before_uses_up_no_quota(door: ServerDoor) -> None:
    """A client in a loop of retries does not lock its project out for the day."""
    limits = json.dumps({"bytesPerDay": 40}).encode()
    assert door.ask("PUT", "/v1/projects/demo/limits", {**operator(), **JSON}, limits).status == 200
    writer = {**bearer(minted(Scope.WRITE)), **TEXT}
    producer = {**writer, "producer-id": "p", "producer-epoch": "0", "producer-seq": "0"}
    assert [door.ask("POST", "/v1/stream/demo/none", writer, b"x" * 10).status for _ in range(10)] == [404] * 10
    assert [door.ask("POST", PATH, producer, b"x" * 10).status for _ in range(10)] == [200] + [204] * 9
    assert [door.ask("PUT", PATH, writer, b"x" * 10).status for _ in range(10)] == [200] * 10
    assert door.ask("PUT", "/v1/stream/demo/new", writer, b"x" * 10).status == 201
    assert door.ask("POST", PATH, writer, b"x" * 20).status == 204
    assert door.ask("POST", PATH, writer, b"x").code == "quota_exceeded"


def test_no_token_query_or_body_is_ever_logged(tmp_path: Path) -> None:
    """At the most talkative level, whatever becomes of a request: refused, failed, or carried out."""
    secret = tmp_path / "secret"
    secret.write_text("p" * 32)
    with (
        running_server(tmp_path / "data", "--operator-secret-file", str(secret), "--log-level", "debug") as server,
        httpx.Client(base_url=server.url) as client,
    ):
        door = ServerDoor(client)
        body = {"name": "demo", "secret": "the-projects-secret-of-32-letters"}
        assert client.post("/v1/projects", json=body, headers=operator()).status_code == 201
        tokens = [minted(Scope.WRITE), "no.such.token", "\\x00{}%s"]
        for token in tokens:
            for method in ("GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"):
                for path in ("/v1/stream/demo/x", "/v1/estuary/demo/x", "/v1/projects", "/none", "/v1/stream/demo/.."):
                    door.ask(method, f"{path}?token={token}&secretive=query", TEXT, b"the-very-body")
                    door.ask(method, path, {**bearer(token), **JSON}, b'{"a":"the-very-body"')
        client.get("/v1/stream/demo/x", headers={"authorization": "Bearer " + "h" * 40_000})
        log = server.log
    for told in (*tokens, "secretive", "the-very-body", "hhhh", "the-projects-secret", "p" * 32):
        assert told not in log, log


def test_private_pages_have_padding(door: ServerDoor) -> None:
    """So that the length of what is compressed tells less; a public page is the same for everybody."""
    lengths = dict[str, set[str]]()
    for path, query in (("/v1/stream/demo/padded", ""), ("/v1/stream/demo/shown", "?public=true")):
        door.ask("PUT", path + query, {**bearer(minted(Scope.WRITE)), **TEXT}, b"the same again\n" * 1_000)
        answers = [door.ask("GET", path, {**bearer(minted()), "accept-encoding": "gzip"}) for _ in range(20)]
        assert {answer.headers["content-encoding"] for answer in answers} == {"gzip"}
        lengths[path] = {answer.headers["content-length"] for answer in answers}
    assert len(lengths["/v1/stream/demo/padded"]) > 1
    assert len(lengths["/v1/stream/demo/shown"]) == 1
