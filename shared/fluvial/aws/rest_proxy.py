"""REST proxy events: Mangum's handler for the requests of a REST API, which keeps them as the client sent them.

Mangum's own handler would change three things that the protocol needs:
- it decodes the path, so that the stream `a%2Fb` would become `a/b`;
- it joins repeated headers and query parameters, so that a second Content-Type could not be rejected;
- it decodes response headers as UTF-8, though they are Latin-1.
https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html
"""

import re
from base64 import b64decode, b64encode
from typing import Any, Final
from urllib.parse import unquote, urlencode

from mangum.types import LambdaConfig, LambdaContext, LambdaEvent, Response, Scope

from fluvial.model.errors import ErrorCode
from fluvial.wire.forwarded import client_scheme
from fluvial.wire.response import error_response

#: The size of one response of Lambda, less some room for headers; base64 makes a body a third longer.
#: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
ANSWER_BYTES_MAX: Final = 6 * 1_048_576 - 65_536


#: A placeholder in a resource's path: `{proxy+}`.
_PARAMETER: Final = re.compile(r"\{([^}+]+)\+?\}")


class RestProxyEvent:
    """One request from a REST API with Lambda proxy integration."""

    @classmethod
    def infer(cls, event: LambdaEvent, context: LambdaContext, config: LambdaConfig) -> bool:  # noqa: ARG003  Mangum's names
        """Whether the event is a REST API's."""
        return "httpMethod" in event and "requestContext" in event

    def __init__(self, event: LambdaEvent, context: LambdaContext, config: LambdaConfig) -> None:
        """`event` and `context` are Lambda's."""
        self._event, self._context, self.config = event, context, config

    @property
    def body(self) -> bytes:
        """The request's body; with `*/*` as a binary type it always comes in base64."""
        body: str = self._event.get("body") or ""
        return b64decode(body) if self._event.get("isBase64Encoded") else body.encode()

    @property
    def scope(self) -> Scope:
        """The ASGI scope: path and query as they were sent, one entry for each header field."""
        event = self._event
        context = event["requestContext"]
        root, path = _split_path(event)
        fields = [
            (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
            for name, values in (event.get("multiValueHeaders") or {}).items()
            for value in values
        ]
        scheme = client_scheme(dict(reversed(fields)), b"https")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": event["httpMethod"],
            "scheme": scheme.decode(),
            "path": root + unquote(path),  # as ASGI requires: the framework removes the root again
            "raw_path": path.encode(),
            "root_path": root,
            "query_string": urlencode(event.get("multiValueQueryStringParameters") or {}, doseq=True).encode(),
            "headers": fields,
            "client": (context.get("identity", {}).get("sourceIp", ""), 0),
            "server": (context.get("domainName", ""), 443),
            "aws.event": event,
            "aws.context": self._context,
        }

    def __call__(self, response: Response) -> dict[str, Any]:
        """The response for API Gateway: every body is in base64, so that the size of the response is known."""
        status, fields, body = response["status"], response["headers"], response["body"]
        if len(body) * 4 > ANSWER_BYTES_MAX * 3:
            message = "the batch at this offset is larger than Lambda can answer with"
            error = error_response(500, ErrorCode.ANSWER_TOO_LARGE, message)
            status, fields, body = error.status, [list(field) for field in error.headers], error.body
        if self._event["httpMethod"] == "HEAD":
            body = b""
        headers: dict[str, list[str]] = {}
        for name, value in fields:
            headers.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
        return {
            "statusCode": status,
            "multiValueHeaders": headers,
            "body": b64encode(body).decode(),
            "isBase64Encoded": bool(body),
        }


def _split_path(event: LambdaEvent) -> tuple[str, str]:
    """The URL's path as the client sent it, split where the API's own path begins.

    Behind the API's own host name the URL begins with the stage, which is not in the event's `path`; behind a custom
    domain it begins with the base path of its mapping, which is.
    """
    path: str = event["path"]
    base_path = _mapping_base_path(event, path)
    public: str = event["requestContext"].get("path") or ""
    stage = public.removesuffix(path) if public.endswith(path) else ""
    return stage + base_path, path.removeprefix(base_path)


def _mapping_base_path(event: LambdaEvent, path: str) -> str:
    """The base path of a custom domain's mapping: the part of the path before the resource's own path."""
    resource: str = event.get("resource") or ""
    values = event.get("pathParameters") or {}
    own = _PARAMETER.sub(lambda found: values.get(found[1]) or found[0], resource)
    for spelling in (path, unquote(path)):
        if own and spelling.endswith(own):
            base_path = spelling.removesuffix(own)
            return base_path if path.startswith(base_path) else ""
    # The path does not end with the parameters' values: e.g. it has a slash at its end that they lack.
    fixed = resource.partition("{")[0]
    return path[: max(path.find(fixed), 0)]
