"""API Gateway on one machine: turns HTTP requests into REST proxy events for functions, and their results into HTTP.

The rules are those of a Regional REST API with Lambda proxy integration and `*/*` as a binary type:
https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html
https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-known-issues.html
"""

import asyncio
import json
import logging
import os
import socket
import sys
from base64 import b64decode, b64encode
from contextlib import aclosing
from typing import Any
from urllib.parse import parse_qsl, unquote
from uuid import uuid4

from starlette.types import Receive, Scope, Send

from tests.aws_local.environments import Environments, FunctionFailedError, ThrottledError
from tests.aws_local.gateway_responses import gateway_answer
from tests.aws_local.live_function import LiveFunction
from tests.aws_local.routes import find_route
from tests.aws_local.serving import serve
from tests.aws_local.streamed_answer import MalformedStreamError, send_streamed
from tests.aws_local.token_bucket import TokenBucket, stage_throttle

log = logging.getLogger(__name__)

STAGE = "live"
ENVIRONMENTS = 2
LIVE_ENVIRONMENTS = 4
#: https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-execution-service-limits-table.html, which
#: does not say with which status a URL and header values are refused that are too long.
REQUEST_BYTES_MAX = 10 * 1_048_576
URL_LENGTH_MAX = HEADER_VALUES_BYTES_MAX = 10_240
#: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
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


GatewayAnswer = tuple[int, list[tuple[bytes, bytes]], bytes]


def path_of(scope: Scope) -> str:
    """A request's path without the stage, percent-encoded as it was sent."""
    public_path: str = scope["raw_path"].decode("latin-1")
    return public_path.removeprefix(f"/{STAGE}") or "/"


def proxy_event(scope: Scope, body: bytes, resource: str, parameters: dict[str, str]) -> dict[str, Any]:
    """A request as an event. The path stays percent-encoded; query values are decoded."""
    public_path = scope["raw_path"].decode("latin-1")
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
        "resource": resource,
        "path": path_of(scope),
        "httpMethod": scope["method"],
        "headers": {name: values[-1] for name, values in fields.items()},
        "multiValueHeaders": fields,
        "queryStringParameters": {key: values[-1] for key, values in query.items()} or None,
        "multiValueQueryStringParameters": query or None,
        "pathParameters": {name: unquote(value) for name, value in parameters.items()} or None,
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
            "resourcePath": resource,
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


async def read_body(receive: Receive) -> bytes:
    """Receive a request's body to its end."""
    pieces, more = list[bytes](), True
    while more:
        message = await receive()
        pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(pieces)


class ApiGateway:
    """The gateway as an ASGI application in front of the functions; the live function streams each GET of a stream."""

    def __init__(self, edge: Environments, live: LiveFunction, throttle: TokenBucket | None = None) -> None:
        """`edge` and `live` run processes that read their settings from environment variables."""
        self._edge, self._live = edge, live
        self._throttle = throttle or stage_throttle()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request to its function, and send the answer."""
        body = await read_body(receive)
        answer = self._refusal(scope, body)
        if answer is None:
            answer = await self._forward(scope, body, send)
        if answer is not None:
            status, fields, content = answer
            await send({"type": "http.response.start", "status": status, "headers": fields})
            await send({"type": "http.response.body", "body": content})

    def _refusal(self, scope: Scope, body: bytes) -> GatewayAnswer | None:
        """The answer to a request that is over a limit."""
        if not self._throttle.take():
            return gateway_answer("THROTTLED", "Too Many Requests")
        if len(scope["raw_path"]) + 1 + len(scope["query_string"]) > URL_LENGTH_MAX:
            return gateway_answer("DEFAULT_4XX", "URI Too Long", 414)
        if sum(len(value) for _, value in scope["headers"]) > HEADER_VALUES_BYTES_MAX:
            return gateway_answer("DEFAULT_4XX", "Request Header Fields Too Large", 431)
        if len(body) > REQUEST_BYTES_MAX:
            return gateway_answer("REQUEST_TOO_LARGE", "Request Too Long")
        return None

    async def _forward(self, scope: Scope, body: bytes, send: Send) -> GatewayAnswer | None:
        """The answer of the request's function, or None if it was streamed."""
        found = find_route(scope["method"], path_of(scope))
        if found is None:
            return gateway_answer("MISSING_AUTHENTICATION_TOKEN", "Missing Authentication Token")
        route, parameters = found
        event = proxy_event(scope, body, route.resource, parameters)
        encoded = json.dumps(event).encode()
        if len(encoded) > LAMBDA_BYTES_MAX:
            return gateway_answer("REQUEST_TOO_LARGE", "Request Too Long")
        try:
            if route.function == "LiveFunction":
                async with aclosing(self._live.invoke(event)) as pieces:
                    await send_streamed(pieces, send)
                return None
            result = await self._edge.invoke(encoded)
        except TimeoutError:
            return gateway_answer("INTEGRATION_TIMEOUT", "Endpoint request timed out")
        except ThrottledError:
            # Not a 429: https://repost.aws/questions/QUfI6bsdd0SOiPeyimzxSkfQ
            return gateway_answer("INTEGRATION_FAILURE", "Internal server error", 500)
        except (FunctionFailedError, MalformedStreamError) as exc:
            log.warning("%s failed: %s", route.function, exc)
            return gateway_answer("DEFAULT_5XX", "Internal server error")
        if len(result) > LAMBDA_BYTES_MAX:
            return gateway_answer("DEFAULT_5XX", "Internal server error")
        return http_answer(json.loads(result), scope["method"])


def main() -> None:
    """Serve on a free port, and print its URL; the functions take their settings from the environment."""
    os.environ.setdefault("POWERTOOLS_METRICS_NAMESPACE", "Fluvial")
    asyncio.run(_serve())


async def _serve() -> None:
    edge, live = Environments("edge", ENVIRONMENTS), LiveFunction(LIVE_ENVIRONMENTS)
    await live.provision(LIVE_ENVIRONMENTS)  # the suite gives an event stream two seconds, less than a cold start here
    await edge.provision()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sys.stdout.write(f"serves http://127.0.0.1:{listener.getsockname()[1]}/{STAGE}/v1/stream/\n")
        sys.stdout.flush()
        await serve(ApiGateway(edge, live), listener)
    edge.close()
    await live.close()


if __name__ == "__main__":
    main()
