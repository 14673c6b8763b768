"""Serves the console's files at `/` and below `/console/`."""

import logging
from dataclasses import dataclass, field
from typing import Final

from starlette.types import Receive, Scope, Send

from fluvial.access.project_cache import ProjectCache
from fluvial.server.asgi_send import send_response
from fluvial.server.console.files import ALIASES, HEADERS, ROOT, ConsoleFile, load_files
from fluvial.server.console.visitors import find_objection
from fluvial.server.exchange import exchange_of
from fluvial.wire.request import Headers, singular_headers
from fluvial.wire.response import NO_STORE, Header, Response, internal_error_response, response_of

log = logging.getLogger(__name__)

#: What metrics and logs call the path of a file.
ROUTE: Final = "/console/{file}"

METHODS: Final = ("GET", "HEAD")

_REFUSAL: Final = """\
{objection}.

This server is open: it has no project, and needs no token. So its console is for browsers of the machine that it runs
on, at http://localhost and the server's port, without a proxy between. With a project the console is there for
everybody, and asks for a token:

    fluvial project create NAME --data-dir FOLDER
"""


@dataclass(frozen=True, slots=True)
class ConsoleApp:
    """Answers requests for the console. `project_cache` says whether the server is open."""

    project_cache: ProjectCache
    files: dict[bytes, ConsoleFile] = field(default_factory=load_files)

    def has_path(self, path: bytes) -> bool:
        """Whether a path is the console's."""
        return path in ALIASES or path.startswith(ROOT)

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer one HTTP request, also if it fails."""
        exchange = exchange_of(scope)
        if exchange is not None:
            exchange.route = ROUTE
        try:
            response = await self._respond(scope, singular_headers(scope["headers"]))
        except Exception as exc:
            known = response_of(exc)
            if known is None:
                log.exception("request_failed", extra={"method": scope["method"], "path": scope["path"]})
            response = known or internal_error_response()
        if scope["method"] == "HEAD":
            response = Response(response.status, response.headers)
        await send_response(send, response)

    async def _respond(self, scope: Scope, headers: Headers) -> Response:
        if scope["method"] not in METHODS:
            allow = (b"allow", ", ".join(METHODS).encode())
            return _text_response(405, f"the console has the methods {', '.join(METHODS)}\n", allow)
        if await self.project_cache.is_open():
            client = scope.get("client")
            objection = find_objection(client[0] if client else None, headers)
            if objection is not None:
                return _text_response(403, _REFUSAL.format(objection=objection))
        found = self.files.get(scope["raw_path"])
        return _text_response(404, "the console has no such file\n") if found is None else found.respond(headers)


def _text_response(status: int, text: str, *extra: Header) -> Response:
    body = text.encode()
    length = (b"content-length", b"%d" % len(body))
    content_type = (b"content-type", b"text/plain; charset=utf-8")
    return Response(status, (*HEADERS, *extra, content_type, length, NO_STORE), (body,))
