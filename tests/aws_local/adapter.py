"""The Lambda Web Adapter on one machine: how it changes a request's path, and how it frames a server's answer.

The rules are those of its `fetch_response` (https://github.com/awslabs/aws-lambda-web-adapter, src/lib.rs) and of the
Rust runtime below it (https://github.com/awslabs/aws-lambda-rust-runtime, lambda-runtime/src/requests.rs).
"""

import json
import re
from collections.abc import AsyncGenerator
from typing import Any, Final
from urllib.parse import quote

import httpx

#: What ends the metadata in front of a streamed body.
#: https://docs.aws.amazon.com/apigateway/latest/developerguide/response-transfer-mode-lambda.html
DELIMITER: Final = b"\0" * 8

#: The runtime gives an answer without a type this one, also if it has no body.
DEFAULT_TYPE: Final = "application/octet-stream"

#: What the `url` crate leaves as it is in a path (url/src/parser.rs, PATH); `%` stays, so that escapes stay.
_PATH_SAFE: Final = "%!$&'()*+,-./:;=@[]_|~"


def forwarded_path(base_path: str, path: str) -> str:
    """The path of the server's request: without the base path, and then as the path of a URL of HTTP is parsed."""
    return parse_url_path(strip_base_path(base_path, path))


def strip_base_path(base_path: str, path: str) -> str:
    """A path without the base path, which is removed repeatedly (Rust's `trim_start_matches`)."""
    while base_path and path.startswith(base_path):
        path = path.removeprefix(base_path)
    return path


def parse_url_path(path: str) -> str:
    r"""What `Url::set_path` makes of a path: dot segments are resolved, `\` is a slash, tabs and line ends are dropped.

    https://url.spec.whatwg.org/#path-state
    """
    text = re.sub(r"[\t\n\r]", "", path)
    segments = re.split(r"[/\\]", text[1:] if text[:1] in {"/", "\\"} else text)
    kept = list[str]()
    for place, segment in enumerate(segments):
        dots = re.sub("%2e", ".", segment, flags=re.IGNORECASE)
        if dots == "..":
            kept = kept[:-1]
        elif dots != ".":
            kept.append(quote(segment, safe=_PATH_SAFE))
        if dots in {".", ".."} and place == len(segments) - 1:
            kept.append("")
    return "/" + "/".join(kept)


async def frame(answer: httpx.Response) -> AsyncGenerator[bytes]:
    """A server's answer as the function streams it: metadata, the delimiter, and the body's pieces, which may be none.

    Metadata and delimiter go out before the server has sent any of its body.
    """
    fields: dict[str, list[str]] = {}
    for name, value in answer.headers.raw:
        if name.lower() not in {b"transfer-encoding", b"set-cookie"}:
            fields.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    fields.setdefault("content-type", [DEFAULT_TYPE])
    metadata: dict[str, Any] = {
        "statusCode": answer.status_code,
        # A repeated field is a list (the http-serde crate), which API Gateway's documents do not know.
        "headers": {name: values[0] if len(values) == 1 else values for name, values in fields.items()},
        "cookies": answer.headers.get_list("set-cookie"),
    }
    yield json.dumps(metadata).encode()
    yield DELIMITER
    async for chunk in answer.aiter_raw():
        yield chunk
