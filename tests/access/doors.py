"""The doors that a request may come through: the local server, and the edge function; behind each the same projects."""

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
    """What came back; field names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str | None:
        """The error's code, if it is one."""
        found: str | None = json.loads(self.body)["error"]["code"] if self.status >= 400 and self.body else None
        return found


class Door(Protocol):
    """Takes one request. `path` may have a query."""

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
        """The answer."""
        ...

    def shake_hands(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
        """The answer to a WebSocket's handshake; 200 when there is a connection."""
        ...


@dataclass
class ServerDoor:
    """The local server."""

    client: httpx.Client

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
        """See Door.ask."""
        answer = self.client.request(method, path, headers=headers, content=body)
        return Answer(answer.status_code, dict(answer.headers), answer.content)

    def shake_hands(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
        """See Door.shake_hands."""
        assert (method, body) == ("GET", b"")
        url = str(self.client.base_url).replace("http", "ws").rstrip("/") + path
        try:
            with connect(url, additional_headers=headers):
                return Answer(200, {}, b"")
        except InvalidStatus as exc:
            response = exc.response
            return Answer(
                response.status_code, {k.lower(): v for k, v in response.headers.raw_items()}, bytes(response.body)
            )


@dataclass
class EdgeDoor:
    """The edge function's handler, as API Gateway invokes it."""

    module: ModuleType
    sample: dict[str, Any] = field(default_factory=lambda: event("edge_head"))

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
        """See Door.ask."""
        split = urlsplit(path)
        asked = {**self.sample, "httpMethod": method, "path": split.path}
        asked["multiValueHeaders"] = {name: [value] for name, value in (headers or {}).items()}
        asked["multiValueQueryStringParameters"] = parse_qs(split.query, keep_blank_values=True) or None
        asked |= {"body": b64encode(body).decode(), "isBase64Encoded": bool(body)}
        answer = self.module.handler(asked, Context("edge", "request"))
        fields = {name.lower(): values[-1] for name, values in answer["multiValueHeaders"].items()}
        return Answer(answer["statusCode"], fields, b64decode(answer["body"]))

    def shake_hands(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
        """See Door.shake_hands: no handshake comes through this door."""
        return self.ask(method, path, headers, body)


def bearer(token: str) -> dict[str, str]:
    """The header field that brings a token."""
    return {"authorization": f"Bearer {token}"}


def minted(scope: Scope = Scope.READ, secret: Secret = SECRET, sub: str = "demo", **claims: object) -> str:
    """A token that is good for an hour from now, unless its claims say something else."""
    defaults: dict[str, object] = {"sub": sub, "scope": scope, "exp": Clock().now_ms() / 1_000 + 3_600}
    return mint(secret, Claims(**{**defaults, **claims}))  # type: ignore[arg-type]


def operator() -> dict[str, str]:
    """An operator's token."""
    return bearer(minted(Scope.MANAGE, OPERATOR_SECRET, OPERATOR))


def make_projects(door: Door) -> None:
    """`demo`, which has turned its secret, and `other`."""
    for name, secret in (("demo", OLD_SECRET), ("other", FOREIGN_SECRET)):
        body = json.dumps({"name": name, "secret": secret.value}).encode()
        assert door.ask("POST", "/v1/projects", {**operator(), **JSON}, body).status == 201
    body = json.dumps({"secret": SECRET.value}).encode()
    assert door.ask("POST", "/v1/projects/demo/secrets", {**operator(), **JSON}, body).status == 201


@contextlib.contextmanager
def server_door(
    folder: Path, *options: str, environment: Mapping[str, str] | None = None, start: StartServer = server_in_thread
) -> Iterator[ServerDoor]:
    """A server with both projects, over SQLite."""
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
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        door = ServerDoor(client)
        make_projects(door)
        yield door


def edge_door(import_handler: Callable[[str], ModuleType]) -> EdgeDoor:
    """The edge function with both projects."""
    door = EdgeDoor(import_handler("edge"))
    make_projects(door)
    return door
