"""The OpenAPI document against a server: what a stream's life answers, request by request."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from fluvial.model.permissions import Scope
from tests.access.clients import ServerClient, bearer, mint_token, server_client
from tests.support.api_document import ApiDocument

STREAM = "/v1/stream/{stream}"
TEXT = {"content-type": "text/plain"}

#: Statuses that the requests here do not reach: a read-only server, rates and quotas, faults.
UNREACHED = {405, 429, 500, 503}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerClient]:
    """A server with projects, which takes small bodies."""
    with server_client(tmp_path_factory.mktemp("documented"), "--max-body", "1000") as opened:
        yield opened


class Streams:
    """Requests on the streams of `demo`; each answer is compared with the document."""

    def __init__(self, http: httpx.Client) -> None:
        """`http` has the document's check as a hook."""
        self._http, self._token = http, bearer(mint_token(Scope.WRITE))

    def request(self, method: str, name: str, status: int, **parts: Any) -> httpx.Response:  # noqa: ANN401  httpx' own
        """Send a request, and expect a status."""
        headers = {**self._token, **parts.pop("headers", {})}
        answer = self._http.request(method, f"/v1/stream/demo/{name}", headers=headers, **parts)
        assert answer.status_code == status, (method, name, answer.status_code, answer.text)
        return answer


def create_and_append(streams: Streams) -> None:
    """Creations, appends and closures, of which some are refused."""
    json, producer = {"content-type": "application/json"}, {"producer-id": "p", "producer-epoch": "1"}
    streams.request("PUT", "text", 201, headers=TEXT, content="a")
    streams.request("PUT", "text", 200, headers=TEXT)
    streams.request("PUT", "text", 409, headers=json)
    streams.request("PUT", "json", 201, headers={**json, "stream-ttl": "60"}, content="[1]")
    streams.request("PUT", "bytes", 201, headers={"stream-expires-at": "2999-01-01T00:00:00z"}, content=b"\xff")
    streams.request("PUT", "new", 400, headers={"stream-ttl": "x"})
    streams.request("PUT", "new", 404, headers={"stream-forked-from": "/v1/stream/demo/absent"})
    streams.request("PUT", "new", 412, headers={"if-match": "*"})
    streams.request("PUT", "new", 413, headers=TEXT, content="x" * 1_001)
    streams.request("PUT", "new", 415, headers={**TEXT, "content-encoding": "br"}, content="x")
    streams.request("POST", "text", 204, headers=TEXT, content="b")
    streams.request("POST", "text", 200, headers={**TEXT, **producer, "producer-seq": "0"}, content="c")
    streams.request("POST", "text", 204, headers={**TEXT, **producer, "producer-seq": "0"}, content="c")
    streams.request("POST", "text", 409, headers={**TEXT, **producer, "producer-seq": "5"}, content="d")
    streams.request(
        "POST", "text", 403, headers={**TEXT, **producer, "producer-epoch": "0", "producer-seq": "0"}, content="e"
    )
    streams.request("POST", "text", 400)
    streams.request("POST", "text", 412, headers={**TEXT, "if-match": '"x"'}, content="f")
    streams.request("POST", "text", 413, headers=TEXT, content="x" * 1_001)
    streams.request("POST", "text", 415, headers={**TEXT, "content-encoding": "br"}, content="x")
    streams.request("POST", "absent", 404, headers=TEXT, content="g")
    streams.request("PUT", "closed", 201, headers={**TEXT, "stream-closed": "true"}, content="x")
    streams.request("POST", "closed", 204, headers={"stream-closed": "true"})
    streams.request("POST", "closed", 409, headers=TEXT, content="y")


def delete(streams: Streams) -> None:
    """A source that is deleted before its fork is gone."""
    streams.request("PUT", "source", 201, headers=TEXT, content="a")
    streams.request("PUT", "fork", 201, headers={"stream-forked-from": "/v1/stream/demo/source"})
    streams.request("DELETE", "source", 412, headers={"if-match": '"x"'})
    streams.request("DELETE", "source", 204)
    streams.request("DELETE", "source", 410)
    streams.request("POST", "source", 410, headers=TEXT, content="b")
    streams.request("GET", "source", 410)
    streams.request("HEAD", "source", 410)
    streams.request("PUT", "source", 409)
    streams.request("DELETE", "absent", 404)


def read(streams: Streams) -> None:
    """Reads of each kind, of which some are refused."""
    for name in ("text", "json", "bytes", "closed", "fork"):
        page = streams.request("GET", name, 200)
        head = streams.request("HEAD", name, 200)
        streams.request("GET", name, 304, headers={"if-none-match": page.headers["etag"]})
        streams.request("HEAD", name, 304, headers={"if-none-match": head.headers["etag"]})
        for live, at_tail in (("long-poll", 204), ("sse", 200)) if name in {"bytes", "json", "closed"} else ():
            streams.request("GET", name, 200, params={"live": live, "offset": "-1"})
            streams.request("GET", name, at_tail, params={"live": live, "offset": page.headers["stream-next-offset"]})
        streams.request("GET", name, 200, params={"offset": "now"})
        streams.request("GET", name, 426, params={"live": "websocket", "offset": "-1"})
        streams.request("GET", name, 412, headers={"if-match": '"x"'})
        streams.request("HEAD", name, 412, headers={"if-match": '"x"'})
    streams.request("GET", "text", 200, params={"rk": head.headers["stream-reader-key"]})
    streams.request("GET", "text", 410, params={"offset": f"{1:016d}_{0:016d}"})
    streams.request("GET", "text", 400, params={"live": "sse"})
    streams.request("GET", "absent", 404)
    streams.request("HEAD", "absent", 404)
    streams.request("HEAD", "text", 400, headers={"if-match": "x"})
    streams.request("DELETE", "text", 400, headers={"if-match": "x"})


def refuse(streams: Streams) -> None:
    """Requests with a wrong token or a wrong path."""
    elsewhere = bearer(mint_token(Scope.MANAGE, stream="elsewhere"))
    for method in ("PUT", "POST", "GET", "HEAD", "DELETE"):
        streams.request(method, "text", 401, headers={"authorization": ""})
        streams.request(method, "text", 401, headers=bearer("x"))
        streams.request(method, "text", 403, headers=elsewhere)
    for method in ("PUT", "POST", "GET", "HEAD", "DELETE", "OPTIONS"):
        streams.request(method, "a//b", 400)
        streams.request(method, "x" * 1_001, 414)
    streams.request("OPTIONS", "text", 204, headers={"origin": "https://app.example"})


@pytest.mark.medium
def test_every_documented_status_of_streams_is_what_the_server_answers(api: ServerClient) -> None:
    """Each answer is as documented, and each documented status is reached, but for those of UNREACHED."""
    document = api.http.get("/openapi.json").json()
    described = ApiDocument(document)
    api.http.event_hooks = {"response": [described.check]}
    streams = Streams(api.http)
    for play in (create_and_append, delete, read, refuse):
        play(streams)
    for method, operation in document["paths"][STREAM].items():
        if method == "parameters":
            continue
        documented = {int(status) for status in operation["responses"]}
        reached = {status for one, path, status in described.answers if (one, path) == (method.upper(), STREAM)}
        assert documented - reached <= UNREACHED | ({403, 404} if method == "options" else set()), method
