"""Clients of a server with projects: of the local server over HTTP, and of the edge function."""

import contextlib
import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

import httpx
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from fluvial.access.tokens import Claims, mint
from fluvial.clock import Clock
from fluvial.model.permissions import OPERATOR, Scope
from fluvial.model.project import Secret
from tests.aws_local.environments import Context
from tests.functions.samples import event
from tests.support.access import FOREIGN_SECRET, OLD_SECRET, OPERATOR_SECRET, SECRET
from tests.support.servers import StartServer, server_in_thread

JSON = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Answer:
    """A response; field names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str | None:
        """The code of an error."""
        found: str | None = json.loads(self.body)["error"]["code"] if self.status >= 400 and self.body else None
        return found


class HttpClient(Protocol):
    """Sends requests. A path may have a query."""

    def request(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
        """Send a request."""
        ...

    def handshake(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
        """Send a WebSocket handshake; the answer is 200 when the connection is accepted."""
        ...


@dataclass
class ServerClient:
    """A client of the local server."""

    http: httpx.Client

    def request(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
        """See HttpClient.request."""
        answer = self.http.request(method, path, headers=headers, content=body)
        return Answer(answer.status_code, dict(answer.headers), answer.content)

    def handshake(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
        """See HttpClient.handshake."""
        assert (method, body) == ("GET", b"")
        url = str(self.http.base_url).replace("http", "ws").rstrip("/") + path
        try:
            with connect(url, additional_headers=headers):
                return Answer(200, {}, b"")
        except InvalidStatus as exc:
            response = exc.response
            return Answer(
                response.status_code, {k.lower(): v for k, v in response.headers.raw_items()}, bytes(response.body)
            )


@dataclass
class EdgeClient:
    """Invokes the edge function's handler as API Gateway does."""

    module: ModuleType
    sample: dict[str, Any] = field(default_factory=lambda: event("edge_head"))

    def request(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
        """See HttpClient.request."""
        split = urlsplit(path)
        invocation = {**self.sample, "httpMethod": method, "path": split.path}
        invocation["multiValueHeaders"] = {name: [value] for name, value in (headers or {}).items()}
        invocation["multiValueQueryStringParameters"] = parse_qs(split.query, keep_blank_values=True) or None
        invocation |= {"body": b64encode(body).decode(), "isBase64Encoded": bool(body)}
        answer = self.module.handler(invocation, Context("edge", "request"))
        fields = {name.lower(): values[-1] for name, values in answer["multiValueHeaders"].items()}
        return Answer(answer["statusCode"], fields, b64decode(answer["body"]))

    def handshake(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
        """See HttpClient.handshake. API Gateway does not pass handshakes to the edge function."""
        return self.request(method, path, headers, body)


def bearer(token: str) -> dict[str, str]:
    """The Authorization field with a token."""
    return {"authorization": f"Bearer {token}"}


def mint_token(scope: Scope = Scope.READ, secret: Secret = SECRET, sub: str = "demo", **claims: object) -> str:
    """A token of `demo` that expires in an hour, unless other claims are given."""
    defaults: dict[str, object] = {"sub": sub, "scope": scope, "exp": Clock().now_ms() / 1_000 + 3_600}
    return mint(secret, Claims(**{**defaults, **claims}))  # type: ignore[arg-type]


def operator() -> dict[str, str]:
    """The Authorization field with an operator's token."""
    return bearer(mint_token(Scope.MANAGE, OPERATOR_SECRET, OPERATOR))


def make_projects(api: HttpClient) -> None:
    """Create `demo`, whose secret is rotated, and `other`."""
    for name, secret in (("demo", OLD_SECRET), ("other", FOREIGN_SECRET)):
        body = json.dumps({"name": name, "secret": secret.value}).encode()
        assert api.request("POST", "/v1/projects", {**operator(), **JSON}, body).status == 201
    body = json.dumps({"secret": SECRET.value}).encode()
    assert api.request("POST", "/v1/projects/demo/secrets", {**operator(), **JSON}, body).status == 201


@contextlib.contextmanager
def server_client(
    folder: Path, *options: str, environment: Mapping[str, str] | None = None, start: StartServer = server_in_thread
) -> Iterator[ServerClient]:
    """A client of a local server with both projects, over SQLite."""
    secret_file = folder / "operator-secret"
    secret_file.write_text(OPERATOR_SECRET.value)
    options = (
        "--operator-secret-file",
        str(secret_file),
        "--long-poll-timeout",
        "0.1",
        "--sse-max-age",
        "0.2",
        *options,
    )
    with (
        start(folder / "data", *options, **(environment or {})) as server,
        httpx.Client(base_url=server.url, timeout=30) as http,
    ):
        api = ServerClient(http)
        make_projects(api)
        yield api


def edge_client(import_handler: Callable[[str], ModuleType]) -> EdgeClient:
    """A client of the edge function with both projects."""
    api = EdgeClient(import_handler("edge"))
    make_projects(api)
    return api
