"""A connection to a server: requests with a token, and refusals as exceptions."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

import httpx
import msgspec

from fluvial.client.errors import ServerRefused, ServerUnreachable

STREAM_ROOT: Final = "/v1/stream"

#: How long a server may take to accept a connection, and to answer a request that it does not have to wait for.
CONNECT_TIMEOUT_S: Final = 10.0
ANSWER_TIMEOUT_S: Final = 60.0

#: What is shown of an error body that is not in this server's form.
_FOREIGN_MESSAGE_CHARACTERS_MAX: Final = 200

#: The request has not been sent.
_NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with a status below 400; header names are lower case."""

    status: int
    fields: Mapping[str, str]
    body: bytes


class Connection:
    """Requests to one server. The connection is kept open between them, so it belongs to one thread."""

    def __init__(self, url: str, authorization: str | None = None) -> None:
        """`url` is the server's, with or without /v1/stream at its end. ValueError when it is none.

        `authorization` is the value of the header field, e.g. `Bearer` and a token.
        """
        self.url, self.streams_url = parse_server_url(url)
        fields = {} if authorization is None else {"authorization": authorization}
        timeout = httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        self._http = httpx.Client(headers=fields, timeout=timeout, follow_redirects=False)

    def __enter__(self) -> Self:
        """The connection is opened by the first request."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """Send a request to a path below the server's URL. Raises ServerUnreachable and ServerRefused."""
        return self._send(method, self.url + path, query, fields, body)

    def request_stream(
        self,
        method: str,
        name: str,
        *,
        query: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """Send a request to a stream, whose name is percent-encoded. Raises as `request` does."""
        return self._send(method, f"{self.streams_url}/{name}", query, fields, body)

    def _send(
        self,
        method: str,
        url: str,
        query: Mapping[str, str] | None,
        fields: Mapping[str, str] | None,
        body: bytes | None,
    ) -> Answer:
        try:
            response = self._http.request(method, url, params=query, headers=fields, content=body)
        except _NOT_SENT as exc:
            raise ServerUnreachable(self.url, _reason(exc), may_have_arrived=False) from exc
        except httpx.TransportError as exc:
            raise ServerUnreachable(self.url, _reason(exc), may_have_arrived=True) from exc
        except httpx.DecodingError as exc:
            raise ServerUnreachable(self.url, _reason(exc), may_have_arrived=True) from exc
        if response.status_code >= 300:  # noqa: PLR2004  a redirect is refused, too: the token is for this server alone
            raise _refusal(response)
        return Answer(response.status_code, response.headers, response.content)


def connect(url: str, token: str | None = None) -> Connection:
    """A connection with a token."""
    return Connection(url, None if token is None else f"Bearer {token}")


def parse_server_url(url: str) -> tuple[str, str]:
    """The server's URL, and the URL below which its streams are. ValueError when it is not a URL of HTTP."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        message = f"'{url}' is not the URL of a server, such as http://127.0.0.1:4437"
        raise ValueError(message)
    if parts.username is not None:
        message = "a URL with a user name is not supported: give a token"
        raise ValueError(message)
    _ = parts.port  # raises ValueError
    base = url.rstrip("/").removesuffix(STREAM_ROOT)
    return base, base + STREAM_ROOT


def _reason(exc: Exception) -> str:
    text = str(exc) or type(exc).__name__
    return re.sub(r"^\[Errno -?\d+\] ", "", text).removesuffix(".")


def _refusal(response: httpx.Response) -> ServerRefused:
    code, message = "", ""
    try:
        error = msgspec.json.decode(response.content)["error"]
        code, message = str(error["code"]), str(error["message"])
    except (msgspec.DecodeError, KeyError, TypeError, UnicodeError):
        if response.headers.get("content-type", "").startswith("text/plain"):
            message = response.text.strip()[:_FOREIGN_MESSAGE_CHARACTERS_MAX]
    if not message and response.is_redirect:
        message = f"the server redirects to {response.headers.get('location', 'nowhere')}: give that URL instead"
    message = message or response.reason_phrase or "the server gives no reason"
    return ServerRefused(response.status_code, code, message, response.headers)
