"""REST proxy events: what API Gateway hands to Lambda and takes back, as Mangum's handler of them.

Mangum's own handler decodes the path (`a%2Fb` would become `a/b`), joins repeated headers and query parameters, and
takes what a response says of itself for UTF-8. What this one does is what the protocol needs.
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

#: What one answer of Lambda may hold, with some room for its headers; a body in base64 takes four thirds of itself.
#: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
ANSWER_BYTES_MAX: Final = 6 * 1_048_576 - 65_536


#: A placeholder in a resource's path: `{proxy+}`.
_PARAMETER: Final = re.compile(r"\{([^}+]+)\+?\}")


class RestProxyEvent:
    """One request from a REST API with Lambda proxy integration."""

    @classmethod
    def infer(cls, event: LambdaEvent, context: LambdaContext, config: LambdaConfig) -> bool:  # noqa: ARG003  Mangum's names
        """Whether the event is one."""
        return "httpMethod" in event and "requestContext" in event

    def __init__(self, event: LambdaEvent, context: LambdaContext, config: LambdaConfig) -> None:
        """The event as it came."""
        self._event, self._context, self.config = event, context, config

    @property
    def body(self) -> bytes:
        """The request's body; with `*/*` as a binary type it always comes in base64."""
        body: str = self._event.get("body") or ""
        return b64decode(body) if self._event.get("isBase64Encoded") else body.encode()

    @property
    def scope(self) -> Scope:
        """The request for ASGI: path and query as they were sent, every header field on its own."""
        event = self._event
        context = event["requestContext"]
        root, path = _split(event)
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
            "path": root + unquote(path),  # as ASGI has it: the framework takes the root off again
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
        """The answer to API Gateway; every body in base64, whose length can be known before."""
        status, fields, body = response["status"], response["headers"], response["body"]
        if len(body) * 4 > ANSWER_BYTES_MAX * 3:
            message = "the batch at this offset is larger than Lambda can answer with"
            refusal = error_response(500, ErrorCode.ANSWER_TOO_LARGE, message)
            status, fields, body = refusal.status, [list(field) for field in refusal.headers], refusal.body
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


def _split(event: LambdaEvent) -> tuple[str, str]:
    """What comes before the API's own path in the URL that the client used, and that path.

    Behind the API's own host name the URL begins with the stage, which is not in the event's `path`; behind a custom
    domain it begins with the base path of its mapping, which is.
    """
    path: str = event["path"]
    mapped = _mapped(event, path)
    public: str = event["requestContext"].get("path") or ""
    staged = public.removesuffix(path) if public.endswith(path) else ""
    return staged + mapped, path.removeprefix(mapped)


def _mapped(event: LambdaEvent, path: str) -> str:
    """The base path of a custom domain's mapping: what is before the resource with its parameters filled in."""
    resource: str = event.get("resource") or ""
    values = event.get("pathParameters") or {}
    own = _PARAMETER.sub(lambda found: values.get(found[1]) or found[0], resource)
    for spelt in (path, unquote(path)):
        if own and spelt.endswith(own):
            mapped = spelt.removesuffix(own)
            return mapped if path.startswith(mapped) else ""
    # Parameters as they are in no path, e.g. with a slash at the end that is not in them.
    fixed = resource.partition("{")[0]
    return path[: max(path.find(fixed), 0)]
