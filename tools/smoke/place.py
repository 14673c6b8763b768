"""Where the checks work: a server, a token, and streams of their own that are deleted at the end."""

import asyncio
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import repeat
from typing import Final
from urllib.parse import quote

import httpx

from fluvial.access.tokens import Claims, mint, unverified_project
from fluvial.client.connection import parse_server_url
from fluvial.model.lifetime import format_rfc3339_ms
from fluvial.model.permissions import OPERATOR, Scope
from fluvial.model.project import Secret
from tools.smoke.report import CheckFailedError, CheckSkippedError, expect

JSON: Final = {"Content-Type": "application/json"}
#: How long a server may take to accept a connection, and to answer a request that has nothing to wait for. A function
#: that starts first needs some seconds.
CONNECT_TIMEOUT_S: Final = 10.0
ANSWER_TIMEOUT_S: Final = 30.0
#: The streams expire, and the tokens end, in case that this process is killed.
LIFETIME_S: Final = 3_600
SECRET_BYTES: Final = 32
DELETIONS_AT_ONCE: Final = 8
_OK: Final = 200


def open_client(*, connection_count: int = 10) -> httpx.AsyncClient:
    """A client without redirects; each request sets its own longest wait if it has one."""
    limits = httpx.Limits(max_connections=connection_count, max_keepalive_connections=connection_count)
    timeout = httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    return httpx.AsyncClient(timeout=timeout, limits=limits, follow_redirects=False)


@dataclass(frozen=True)
class Waits:
    """How long a long-poll waits, within what time the first event of a live read must come, and an empty answer."""

    long_poll_s: float = 25.0
    first_event_s: float = 1.0
    empty_answer_s: float = 10.0


@dataclass
class Place:
    """A server, and the checks' own streams there. `token` writes; an operator's makes a project for it first."""

    http: httpx.AsyncClient
    url: str
    given_token: str | None = None
    socket_url: str | None = None
    waits: Waits = field(default_factory=Waits)
    run: str = field(default_factory=lambda: f"smoke-{secrets.token_hex(4)}")
    token: str | None = None
    prefix: str = ""
    _streams: dict[str, dict[str, str]] = field(default_factory=dict)
    _projects: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Parse the URL, which may end with /v1/stream/, and the token."""
        self.url, self.streams_url = parse_server_url(self.url)
        if self.given_token is None:
            self.prefix = f"{self.run}/"
            return
        owner = unverified_project(self.given_token)
        if owner != OPERATOR:
            self.token, self.prefix = self.given_token, f"{owner}/{self.run}/"

    @property
    def is_operator(self) -> bool:
        """Whether the token may create projects."""
        return self.given_token is not None and unverified_project(self.given_token) == OPERATOR

    @property
    def expires_at(self) -> str:
        """When the streams of these checks expire."""
        return format_rfc3339_ms(1_000 * int(time.time() + LIFETIME_S))

    def headers(self, token: str | None = None) -> dict[str, str]:
        """The field with a token: the one given here, or else the one that writes."""
        token = token or self.token
        return {} if token is None else {"Authorization": f"Bearer {token}"}

    async def make_project(self, name: str, limits: dict[str, int] | None = None) -> str:
        """Create a project as an operator; a token that may write all its streams. Raises CheckFailedError."""
        secret = secrets.token_urlsafe(SECRET_BYTES)
        body = {"name": name, "secret": secret, "origins": ["*"], "limits": limits or {}}
        self._projects.append(name)  # before the request, whose answer may be lost
        answer = await self.http.post(f"{self.url}/v1/projects", json=body, headers=self.headers(self.given_token))
        expect(answer, 201)
        claims = Claims(sub=name, scope=Scope.WRITE, exp=time.time() + LIFETIME_S)
        return mint(Secret(secret, int(1_000 * time.time())), claims)

    async def use_own_project(self) -> str:
        """Create a project for the checks, and write with its token from now on.

        A server that is open, because it never had a project, would be closed for ever by the first one. So it gets
        none, and the checks go on without a token. Raises CheckSkippedError then, CheckFailedError when it cannot be
        told whether the server is open.
        """
        answer = await self.http.get(f"{self.url}/v1/streams", params={"limit": "1"})
        if expect(answer, _OK, 401, 403).status_code == _OK:
            self.given_token, self.prefix = None, f"{self.run}/"
            raise CheckSkippedError("the server is open, and its first project would close it")
        self.token, self.prefix = await self.make_project(self.run), f"{self.run}/streams/"
        return self.run

    def stream_url(self, name: str) -> str:
        """The URL of one of the checks' streams; its name is percent-encoded."""
        return f"{self.streams_url}/{self.prefix}{name}"

    def socket_url_of(self, name: str) -> str:
        """The URL of a WebSocket that reads a stream from its beginning."""
        token = f"&token={quote(self.token, safe='')}" if self.token else ""
        if self.socket_url is not None:
            return f"{self.socket_url}?stream={quote(self.prefix + name, safe='')}&offset=-1{token}"
        return f"{self.stream_url(name).replace('http', 'ws', 1)}?live=websocket&offset=-1{token}"

    async def create(
        self, name: str, body: bytes = b"", content_type: str = JSON["Content-Type"], token: str | None = None
    ) -> httpx.Response:
        """Create one of the checks' streams, which expires in an hour. Raises CheckFailedError."""
        url = name if name.startswith(self.streams_url) else self.stream_url(name)
        fields = {**self.headers(token), "Content-Type": content_type}
        self._streams[url] = self.headers(token)
        return expect(
            await self.http.put(url, content=body, headers={**fields, "Stream-Expires-At": self.expires_at}), 201
        )

    async def append(self, name: str, body: bytes, content_type: str = JSON["Content-Type"]) -> httpx.Response:
        """Append to one of the streams. Raises CheckFailedError."""
        fields = {**self.headers(), "Content-Type": content_type}
        return expect(await self.http.post(self.stream_url(name), content=body, headers=fields), 200, 204)

    async def append_json(self, name: str, *messages: object) -> httpx.Response:
        """Append messages to a JSON stream, in one request. Raises CheckFailedError."""
        return await self.append(name, json.dumps(list(messages)).encode())

    async def read(self, name: str, headers: Mapping[str, str] | None = None, **query: str) -> httpx.Response:
        """Read a stream from its beginning, or as the query says. Raises CheckFailedError."""
        query, fields = {"offset": "-1", **query}, {**self.headers(), **(headers or {})}
        return expect(await self.http.get(self.stream_url(name), params=query, headers=fields), 200)

    async def note_all_streams(self) -> str:
        """Delete at the end all streams below the prefix that the server lists, such as the public suite's."""
        after: str | None = ""
        while after is not None:
            query = {"prefix": self.prefix, "after": after, "limit": "1000"}
            page = expect(await self.http.get(f"{self.url}/v1/streams", params=query, headers=self.headers()), 200)
            for name in page.json()["streams"]:
                self._streams.setdefault(f"{self.streams_url}/{name}", self.headers())
            after = page.json()["next"]
        return f"{len(self._streams)} streams"

    async def clean_up(self) -> str:
        """Delete the streams and projects. Raises CheckFailedError, which names what is left."""
        left, slots = list[str](), asyncio.Semaphore(DELETIONS_AT_ONCE)

        async def delete(url: str, fields: dict[str, str]) -> None:
            async with slots:
                if reason := await self._delete(url, fields, 204, 404, 410):
                    left.append(f"{url.removeprefix(self.streams_url)} ({reason})")

        await asyncio.gather(*(delete(url, fields) for url, fields in self._streams.items()))
        await asyncio.gather(*map(self._delete_project, self._projects, repeat(left)))
        if left:
            raise CheckFailedError(f"not deleted: {', '.join(left)}")
        return f"{len(self._streams)} streams, {len(self._projects)} projects deleted"

    async def _delete_project(self, name: str, left: list[str]) -> None:
        url = f"{self.url}/v1/projects/{name}"
        if reason := await self._delete(url, self.headers(self.given_token), 204, 404):
            left.append(f"project {name} ({reason})")

    async def _delete(self, url: str, fields: dict[str, str], *statuses: int) -> str | None:
        """Delete something; why it may still be there, or None. One deletion that fails must not stop the others."""
        try:
            answer = await self.http.delete(url, headers=fields)
        except httpx.HTTPError as exc:
            return f"{type(exc).__name__}: {exc}"
        return None if answer.status_code in statuses else f"{answer.status_code} {answer.text[:100]}".strip()
