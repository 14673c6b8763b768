"""A front that makes a project's server look like one that is open: the suite knows no projects and no tokens."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from fluvial.clock import Clock
from fluvial.model.permissions import Scope
from tests.access.clients import JSON, HttpClient, mint_token, operator
from tests.cache.nginx import running_configuration
from tests.support.ports import free_port

#: The suite's streams are in `demo`; what it says and hears of their paths is said without.
CONFIGURATION = """
map $request_uri $inside { "~^/v1/stream/(.*)$" /v1/stream/demo/$1; default $request_uri; }
map $http_stream_forked_from $source { "~^/v1/stream/(.*)$" /v1/stream/demo/$1; default $http_stream_forked_from; }
access_log off;
large_client_header_buffers 8 64k;
client_max_body_size 0;
server {
    listen 127.0.0.1:PORT;
    location / {
        proxy_pass ORIGIN$inside;
        proxy_http_version 1.1;
        proxy_set_header Host $http_host;
        proxy_set_header Connection "";
        proxy_set_header Authorization "Bearer TOKEN";
        proxy_set_header Stream-Forked-From $source;
        proxy_redirect ~^(.*)/v1/stream/demo/(.*)$ $1/v1/stream/$2;
        proxy_buffering off;
        proxy_request_buffering off;
    }
}
"""


@contextlib.contextmanager
def token_front(folder: Path, origin: str) -> Iterator[str]:
    """The front of a server at a URL, which may have a path; its own URL."""
    split, port = urlsplit(origin.rstrip("/")), free_port()
    token = mint_token(Scope.WRITE, exp=Clock().now_ms() / 1_000 + 3_600)
    configuration = (
        CONFIGURATION.replace("PORT", str(port))
        .replace("ORIGIN", f"{split.scheme}://{split.netloc}{split.path}")
        .replace("TOKEN", token)
    )
    with running_configuration(folder, configuration, port) as nginx:
        yield nginx.url


def allow_all_origins(api: HttpClient) -> None:
    """As on a server that is open: the suite asks before it sends, as a browser does."""
    body = json.dumps({"origins": ["*"]}).encode()
    assert api.request("PUT", "/v1/projects/demo/origins", {**operator(), **JSON}, body).status == 200
