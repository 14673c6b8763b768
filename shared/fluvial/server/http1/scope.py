"""The ASGI scope of a request, from what its connection knows and what its head says."""

from typing import Final
from urllib.parse import unquote

from uvicorn._types import ASGIVersions, HTTPScope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fluvial.wire.http_head import Target

_ASGI: Final[ASGIVersions] = {"version": "3.0", "spec_version": "2.3"}


def build_scope(connection: HttpToolsProtocol, method: str, version: str, target: Target) -> HTTPScope:
    """The scope of the request whose header fields the connection holds.

    As uvicorn builds it, but without `state`, which belongs to the lifespan protocol, and without a root path.
    """
    path = target.path.decode("latin-1")
    return {
        "type": "http",
        "asgi": _ASGI,
        "http_version": version,
        "server": connection.server,
        "client": connection.client,
        "scheme": connection.scheme or "http",
        "root_path": "",
        "headers": connection.headers,
        "method": method,
        "path": unquote(path) if "%" in path else path,
        "raw_path": target.path,
        "query_string": target.query,
    }
