"""Live reads need a token and end when it expires: event streams, long-polls and WebSockets; and projects' limits."""

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
from tests.access.clients import JSON, ServerClient, bearer, mint_token, operator, server_client
from tests.support.access import FOREIGN_SECRET
from tests.support.servers import running_server

pytestmark = pytest.mark.medium

TEXT = {"content-type": "text/plain"}
PATH = "/v1/stream/demo/live"
REST_S = 1.0


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ServerClient]:
    """A server with an empty stream, whose live reads may wait for 20 seconds."""
    with server_client(tmp_path, "--long-poll-timeout", "20", "--sse-max-age", "20") as opened:
        assert opened.request("PUT", PATH, {**bearer(mint_token(Scope.WRITE)), **TEXT}).status == 201
        yield opened


def expiring_token() -> str:
    """A token that expires in a second."""
    return mint_token(exp=Clock().now_ms() / 1_000 + REST_S)


def socket_url(api: ServerClient, token: str | None, path: str = PATH) -> str:
    """The URL of a WebSocket that reads the stream."""
    query = "" if token is None else f"&token={token}"
    return f"{str(api.http.base_url).replace('http', 'ws').rstrip('/')}{path}?live=websocket&offset=-1{query}"


@pytest.mark.parametrize(
    ("token", "status"),
    [
        (lambda: None, 401),
        (lambda: mint_token(exp=1), 401),
        (lambda: mint_token(secret=FOREIGN_SECRET), 401),
        (lambda: mint_token(stream="elsewhere"), 403),
    ],
    ids=["none", "expired", "wrong", "elsewhere"],
)
def test_websocket_handshake_needs_a_valid_token(api: ServerClient, token: object, status: int) -> None:
    """The answer is plain HTTP, and the same for another project and for an absent one."""
    made = token()  # type: ignore[operator]
    for path in (PATH, "/v1/stream/demo/none", "/v1/stream/other/none", "/v1/stream/none/none"):
        expected = status if path.startswith("/v1/stream/demo/") else 401
        with pytest.raises(InvalidStatus) as refused:
            connect(socket_url(api, made, path))
        assert refused.value.response.status_code == expected


@pytest.mark.parametrize("how", ["in the query", "in the field"])
def test_websocket_token_may_be_in_the_query_or_the_field(api: ServerClient, how: str) -> None:
    """Browsers cannot send the field with a handshake."""
    fields = bearer(mint_token()) if how == "in the field" else {}
    url = socket_url(api, mint_token() if how == "in the query" else None)
    with connect(url, additional_headers=fields) as socket:
        assert json.loads(socket.recv(timeout=5))["type"] == "control"


def test_websocket_is_closed_when_its_token_expires(api: ServerClient) -> None:
    """With a close code that tells the client not to reconnect with the same token."""
    with connect(socket_url(api, expiring_token())) as socket:
        assert json.loads(socket.recv(timeout=5))["type"] == "control"
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == POLICY_VIOLATION


def test_event_stream_ends_when_its_token_expires(api: ServerClient) -> None:
    """A new one with the same token is rejected."""
    token = expiring_token()
    with api.http.stream("GET", f"{PATH}?live=sse&offset=-1&token={token}", timeout=10) as events:
        assert events.status_code == 200
        assert "".join(events.iter_text()).count("event: control") >= 1
    assert api.request("GET", f"{PATH}?live=sse&offset=-1&token={token}").status == 401


def test_long_poll_ends_when_its_token_expires(api: ServerClient) -> None:
    """It answers that there is nothing new; the next one is rejected."""
    token = bearer(expiring_token())
    answer = api.http.get(f"{PATH}?live=long-poll&offset=-1", headers=token, timeout=10)
    assert answer.status_code == 204
    assert api.request("GET", f"{PATH}?live=long-poll&offset=-1", token).status == 401


def test_events_of_a_private_stream_may_not_be_stored(api: ServerClient) -> None:
    """Those of a public stream need not be private."""
    private = api.request("GET", f"{PATH}?live=sse&offset=-1", bearer(expiring_token()))
    assert private.headers["cache-control"] == "private, no-cache, no-store, no-transform"
    closed = {**bearer(mint_token(Scope.WRITE)), **TEXT, "stream-closed": "true"}
    assert api.request("PUT", "/v1/stream/demo/open?public=true", closed, b"x").status == 201
    public = api.request("GET", "/v1/stream/demo/open?live=sse&offset=-1")
    assert public.headers["cache-control"] == "no-cache, no-transform"


def test_project_limits_live_reads_and_requests_per_second(api: ServerClient) -> None:
    """Over a limit the answer is 429, with Retry-After."""
    limits = json.dumps({"liveReads": 1}).encode()
    assert api.request("PUT", "/v1/projects/demo/limits", {**operator(), **JSON}, limits).status == 200
    with connect(socket_url(api, mint_token())) as socket:
        socket.recv(timeout=5)
        for live in ("sse", "long-poll"):
            answer = api.request("GET", f"{PATH}?live={live}&offset=-1", bearer(mint_token()))
            assert (answer.status, answer.code) == (429, "too_many_live_reads")
            assert int(answer.headers["retry-after"]) >= 1
        with pytest.raises(InvalidStatus) as refused:
            connect(socket_url(api, mint_token()))
        assert refused.value.response.status_code == 429
    limits = json.dumps({"requestsPerSecond": 3}).encode()
    assert api.request("PUT", "/v1/projects/demo/limits", {**operator(), **JSON}, limits).status == 200
    answers = [api.request("GET", PATH, bearer(mint_token())) for _ in range(20)]
    assert answers[0].status == 200
    limited = [answer for answer in answers if answer.status == 429]
    assert limited
    assert {(one.code, one.headers["retry-after"]) for one in limited} == {("rate_limited", "1")}
    # Anonymous requests to private streams are not counted: a 429 would tell that the project exists.
    assert {api.request("GET", path).status for path in (PATH, "/v1/stream/demo/none") for _ in range(5)} == {401}


def test_anonymous_clients_do_not_use_up_the_rate_of_tokens(api: ServerClient) -> None:
    """Anonymous clients of a public project have a rate of their own."""
    limits = json.dumps({"requestsPerSecond": 2}).encode()
    public = json.dumps({"public": True}).encode()
    assert api.request("PUT", "/v1/projects/demo/limits", {**operator(), **JSON}, limits).status == 200
    assert api.request("PUT", "/v1/projects/demo/privacy", {**operator(), **JSON}, public).status == 200
    assert 429 in {api.request("GET", "/v1/stream/demo/none").status for _ in range(10)}
    assert api.request("GET", PATH, bearer(mint_token())).status == 200


def test_project_limits_body_bytes_and_bytes_per_day(api: ServerClient) -> None:
    """A rejected append changes nothing, and a close has no bytes."""
    limits = json.dumps({"bodyBytes": 10, "bytesPerDay": 25}).encode()
    assert api.request("PUT", "/v1/projects/demo/limits", {**operator(), **JSON}, limits).status == 200
    writer = {**bearer(mint_token(Scope.WRITE)), **TEXT}
    assert api.request("POST", PATH, writer, b"x" * 11).code == "body_too_large"
    assert [api.request("POST", PATH, writer, b"x" * 10).status for _ in range(2)] == [204, 204]
    answer = api.request("POST", PATH, writer, b"x" * 10)
    assert (answer.status, answer.code) == (429, "quota_exceeded")
    assert 0 < int(answer.headers["retry-after"]) <= 86_400
    assert api.request("GET", PATH, bearer(mint_token())).body == b"x" * 20
    assert api.request("POST", PATH, {**writer, "stream-closed": "true"}).status == 204


def test_rejected_and_duplicate_appends_use_up_no_quota(api: ServerClient) -> None:
    """A client that retries in a loop does not lock its project out for the day."""
    limits = json.dumps({"bytesPerDay": 40}).encode()
    assert api.request("PUT", "/v1/projects/demo/limits", {**operator(), **JSON}, limits).status == 200
    writer = {**bearer(mint_token(Scope.WRITE)), **TEXT}
    producer = {**writer, "producer-id": "p", "producer-epoch": "0", "producer-seq": "0"}
    assert [api.request("POST", "/v1/stream/demo/none", writer, b"x" * 10).status for _ in range(10)] == [404] * 10
    assert [api.request("POST", PATH, producer, b"x" * 10).status for _ in range(10)] == [200] + [204] * 9
    assert [api.request("PUT", PATH, writer, b"x" * 10).status for _ in range(10)] == [200] * 10
    assert api.request("PUT", "/v1/stream/demo/new", writer, b"x" * 10).status == 201
    assert api.request("POST", PATH, writer, b"x" * 20).status == 204
    assert api.request("POST", PATH, writer, b"x").code == "quota_exceeded"


def test_server_logs_no_token_query_or_body(tmp_path: Path) -> None:
    """At log level debug, whether a request is rejected, fails or succeeds."""
    secret = tmp_path / "secret"
    secret.write_text("p" * 32)
    with (
        running_server(tmp_path / "data", "--operator-secret-file", str(secret), "--log-level", "debug") as server,
        httpx.Client(base_url=server.url) as client,
    ):
        api = ServerClient(client)
        body = {"name": "demo", "secret": "the-projects-secret-of-32-letters"}
        assert client.post("/v1/projects", json=body, headers=operator()).status_code == 201
        tokens = [mint_token(Scope.WRITE), "no.such.token", "\\x00{}%s"]
        for token in tokens:
            for method in ("GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"):
                for path in ("/v1/stream/demo/x", "/v1/estuary/demo/x", "/v1/projects", "/none", "/v1/stream/demo/.."):
                    api.request(method, f"{path}?token={token}&secretive=query", TEXT, b"the-very-body")
                    api.request(method, path, {**bearer(token), **JSON}, b'{"a":"the-very-body"')
        client.get("/v1/stream/demo/x", headers={"authorization": "Bearer " + "h" * 40_000})
        log = server.log
    for text in (*tokens, "secretive", "the-very-body", "hhhh", "the-projects-secret", "p" * 32):
        assert text not in log, log


def test_compressed_private_pages_have_padding(api: ServerClient) -> None:
    """So the compressed length reveals less; public pages have no padding."""
    lengths = dict[str, set[str]]()
    for path, query in (("/v1/stream/demo/padded", ""), ("/v1/stream/demo/shown", "?public=true")):
        api.request("PUT", path + query, {**bearer(mint_token(Scope.WRITE)), **TEXT}, b"the same again\n" * 1_000)
        answers = [api.request("GET", path, {**bearer(mint_token()), "accept-encoding": "gzip"}) for _ in range(20)]
        assert {answer.headers["content-encoding"] for answer in answers} == {"gzip"}
        lengths[path] = {answer.headers["content-length"] for answer in answers}
    assert len(lengths["/v1/stream/demo/padded"]) > 1
    assert len(lengths["/v1/stream/demo/shown"]) == 1
