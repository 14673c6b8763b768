"""API Gateway on one machine: turns HTTP requests into REST proxy events for functions, and their results into HTTP.

The rules are those of a Regional REST API with Lambda proxy integration and `*/*` as a binary type:
https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html
https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-known-issues.html
"""

import asyncio
import json
import os
import socket
import sys
from base64 import b64decode, b64encode
from typing import Any
from urllib.parse import parse_qsl, unquote
from uuid import uuid4

from starlette.types import Receive, Scope, Send

from tests.aws_local.environments import Environments, FunctionFailedError
from tests.aws_local.live_function import LiveFunction
from tests.aws_local.serving import serve

STAGE = "live"
ENVIRONMENTS = 2
REQUEST_BYTES_MAX = 10 * 1_048_576
LAMBDA_BYTES_MAX = 6 * 1_048_576

#: Request header fields that the gateway does not forward, and answer header fields that it renames.
NOT_FORWARDED = {
    "connection",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
REMAPPED = {"connection", "content-length", "date", "server", "transfer-encoding", "upgrade", "via", "www-authenticate"}


def proxy_event(scope: Scope, body: bytes) -> dict[str, Any]:
    """A request as an event. The path stays percent-encoded; query values are decoded."""
    public_path = scope["raw_path"].decode("latin-1")
    path = public_path.removeprefix(f"/{STAGE}") or "/"
    fields: dict[str, list[str]] = {}
    for raw_name, value in scope["headers"]:
        name = raw_name.decode("latin-1")
        if name not in NOT_FORWARDED and not (name == "content-length" and not body):
            fields.setdefault(name, []).append(value.decode("latin-1"))
    fields["X-Forwarded-For"] = ["203.0.113.7"]
    fields["X-Forwarded-Port"] = ["443"]
    fields["X-Forwarded-Proto"] = ["http"]
    fields["X-Amzn-Trace-Id"] = [f"Root=1-{uuid4().hex[:8]}-{uuid4().hex[:24]}"]
    query: dict[str, list[str]] = {}
    for key, value in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True):
        query.setdefault(key, []).append(value)
    return {
        "resource": "/v1/stream/{proxy+}",
        "path": path,
        "httpMethod": scope["method"],
        "headers": {name: values[-1] for name, values in fields.items()},
        "multiValueHeaders": fields,
        "queryStringParameters": {key: values[-1] for key, values in query.items()} or None,
        "multiValueQueryStringParameters": query or None,
        "pathParameters": {"proxy": unquote(path.removeprefix("/v1/stream/"))},
        "stageVariables": None,
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "local",
            "domainName": "local.execute-api.eu-central-1.amazonaws.com",
            "extendedRequestId": uuid4().hex,
            "httpMethod": scope["method"],
            "identity": {"sourceIp": "203.0.113.7", "userAgent": "test"},
            "path": public_path,
            "protocol": "HTTP/1.1",
            "requestId": str(uuid4()),
            "resourcePath": "/v1/stream/{proxy+}",
            "stage": STAGE,
        },
        "body": b64encode(body).decode() if body else None,
        "isBase64Encoded": bool(body),
    }


def http_answer(result: dict[str, Any], method: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """A function's result as the status, header fields and body of an HTTP answer."""
    body = result.get("body") or ""
    content = b64decode(body) if result.get("isBase64Encoded") else body.encode()
    named = {name.lower(): [value] for name, value in (result.get("headers") or {}).items()}
    named |= {name.lower(): values for name, values in (result.get("multiValueHeaders") or {}).items()}
    named.setdefault("content-type", ["application/json"])
    fields = [
        (f"x-amzn-remapped-{name}" if name in REMAPPED else name, value)
        for name, values in named.items()
        for value in values
    ]
    status = int(result["statusCode"])
    content = b"" if method == "HEAD" or status in {204, 304} else content
    if status != 204:
        fields.append(("content-length", str(len(content))))
    return status, [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields], content


class ApiGateway:
    """The gateway as an ASGI application in front of the functions; the live function streams each GET of a stream."""

    def __init__(self, edge: Environments, live: LiveFunction) -> None:
        """`edge` and `live` run processes that read their settings from environment variables."""
        self._edge, self._live = edge, live

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request to its function, and send the answer."""
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if scope["method"] == "GET" and scope["path"].startswith(f"/{STAGE}/v1/stream/"):
            await self._live.stream(proxy_event(scope, body), send)
            return
        status, fields, content = await self._invoke_edge(scope, body)
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": content})

    async def _invoke_edge(self, scope: Scope, body: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        event = json.dumps(proxy_event(scope, body)).encode()
        if len(body) > REQUEST_BYTES_MAX or len(event) > LAMBDA_BYTES_MAX:
            return _gateway_error(413, "Request Too Long")
        try:
            result = await self._edge.invoke(event)
        except TimeoutError:
            return _gateway_error(504, "Endpoint request timed out")
        except FunctionFailedError:
            return _gateway_error(502, "Internal server error")
        if len(result) > LAMBDA_BYTES_MAX:
            return _gateway_error(502, "Internal server error")
        return http_answer(json.loads(result), scope["method"])


def _gateway_error(status: int, message: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    body = json.dumps({"message": message}).encode()
    length = (b"content-length", str(len(body)).encode())
    return status, [(b"content-type", b"application/json"), length], body


def main() -> None:
    """Serve on a free port, and print its URL; the functions take their settings from the environment."""
    os.environ.setdefault("POWERTOOLS_TRACE_DISABLED", "true")
    os.environ.setdefault("POWERTOOLS_METRICS_NAMESPACE", "Fluvial")
    asyncio.run(_serve())


async def _serve() -> None:
    edge, live = Environments("edge", ENVIRONMENTS), LiveFunction()
    await live.wait_until_ready()
    await edge.provision()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sys.stdout.write(f"serves http://127.0.0.1:{listener.getsockname()[1]}/{STAGE}/v1/stream/\n")
        sys.stdout.flush()
        await serve(ApiGateway(edge, live), listener)
    edge.close()
    await live.close()


if __name__ == "__main__":
    main()
