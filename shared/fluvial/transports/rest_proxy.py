"""REST proxy events: what API Gateway hands to Lambda and takes back, as Mangum's handler of them.

Mangum's own handler decodes the path (`a%2Fb` would become `a/b`), joins repeated headers and query parameters, and
takes what a response says of itself for UTF-8. What this one does is what the protocol needs.
https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html
"""

from base64 import b64decode, b64encode
from typing import Any, Final
from urllib.parse import unquote, urlencode

from mangum.types import LambdaConfig, LambdaContext, LambdaEvent, Response, Scope

from fluvial.core.errors import ErrorCode
from fluvial.core.response import error_response

#: What one answer of Lambda may hold, with some room for its headers; a body in base64 takes four thirds of itself.
#: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
ANSWER_BYTES_MAX: Final = 6 * 1_048_576 - 65_536


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
        context, path = event["requestContext"], event["path"]
        fields = [
            (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
            for name, values in (event.get("multiValueHeaders") or {}).items()
            for value in values
        ]
        scheme = next((value for name, value in fields if name == b"x-forwarded-proto"), b"https")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": event["httpMethod"],
            "scheme": scheme.decode(),
            "path": unquote(path),
            "raw_path": path.encode(),
            "root_path": _prefix(context.get("path"), path),
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
        headers: dict[str, list[str]] = {}
        for name, value in fields:
            headers.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
        return {
            "statusCode": status,
            "multiValueHeaders": headers,
            "body": b64encode(body).decode(),
            "isBase64Encoded": bool(body),
        }


def _prefix(public_path: str | None, path: str) -> str:
    """What comes before the path in the URL that the client used: the stage, unless a domain is mapped to it."""
    if public_path is None or not public_path.endswith(path):
        return ""
    return public_path.removesuffix(path)
