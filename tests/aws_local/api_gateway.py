"""API Gateway on one machine: HTTP becomes REST proxy events for the functions, and their answers become HTTP.

Each worker process is one of Lambda's environments: it imports the handler by itself and has one request at a time.
The rules are those of a Regional REST API with Lambda proxy integration and `*/*` as a binary type:
https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-lambda-proxy-integrations.html
https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-known-issues.html
"""

import asyncio
import json
import multiprocessing
import os
import socket
import sys
from base64 import b64decode, b64encode
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote
from uuid import uuid4

import uvicorn
from starlette.types import Receive, Scope, Send

from tests.aws_local.live_function import LiveFunction

STAGE = "live"
ENVIRONMENTS = 12
REQUEST_BYTES_MAX = 10 * 1_048_576
LAMBDA_BYTES_MAX = 6 * 1_048_576
TIMEOUT_S = 29

#: What a client sends to the gateway and not to the function, and what the gateway keeps for itself in answers.
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


@dataclass
class Context:
    """What Lambda tells a function of its invocation."""

    function_name: str
    aws_request_id: str
    memory_limit_in_mb: int = 512
    function_version: str = "$LATEST"

    @property
    def invoked_function_arn(self) -> str:
        """The function's ARN."""
        return f"arn:aws:lambda:eu-central-1:123456789012:function:{self.function_name}"

    @staticmethod
    def get_remaining_time_in_millis() -> int:
        """Enough."""
        return TIMEOUT_S * 1_000


def invoke(module: str, event: bytes) -> bytes:
    """Run a handler in this process; what goes in and out is JSON, as with Lambda."""
    functions = str(Path(__file__).parents[2] / "functions")
    if functions not in sys.path:
        sys.path.insert(0, functions)
    handler = __import__(f"{module}.handler", fromlist=["handler"]).handler
    answer = handler(json.loads(event), Context(module, str(uuid4())))
    return json.dumps(answer).encode()


def _print_to_the_log() -> None:
    """A function's output is its log; nobody reads this process's standard output after its first line."""
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


def proxy_event(scope: Scope, body: bytes) -> dict[str, Any]:
    """The event that a request becomes. The path stays encoded, query values do not."""
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


def answer_of(result: dict[str, Any], method: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, header fields and body of the HTTP answer to a function's result."""
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


class Environments:
    """Processes that have a function loaded, each for one event at a time; more are started as they are needed."""

    def __init__(self, module: str) -> None:
        """None is started before the first event."""
        self._module = module
        self._idle: list[ProcessPoolExecutor] = []
        self._all: list[ProcessPoolExecutor] = []
        self._room = asyncio.Semaphore(ENVIRONMENTS)

    async def invoke(self, event: bytes) -> bytes:
        """The answer to an event, from whichever environment is free. Raises TimeoutError."""
        await self._room.acquire()
        environment = self._idle.pop() if self._idle else self._started()
        call = asyncio.get_running_loop().run_in_executor(environment, invoke, self._module, event)
        call.add_done_callback(lambda _: self._freed(environment))
        return await asyncio.wait_for(asyncio.shield(call), TIMEOUT_S)

    def close(self) -> None:
        """End them all."""
        for environment in self._all:
            for process in environment._processes.values():
                process.kill()
            environment.shutdown(wait=False)

    def _started(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        self._all.append(ProcessPoolExecutor(1, mp_context=context, initializer=_print_to_the_log))
        return self._all[-1]

    def _freed(self, environment: ProcessPoolExecutor) -> None:
        self._idle.append(environment)
        self._room.release()


class ApiGateway:
    """The gateway as an ASGI application in front of the functions: each GET of a stream is streamed."""

    def __init__(self, edge: Environments, live: LiveFunction) -> None:
        """The functions' processes have the settings in their environment variables."""
        self._edge, self._live = edge, live

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer back."""
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if scope["method"] == "GET" and scope["path"].startswith(f"/{STAGE}/v1/stream/"):
            await self._live.stream(proxy_event(scope, body), send)
            return
        status, fields, content = await self._answer(scope, body)
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": content})

    async def _answer(self, scope: Scope, body: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        event = json.dumps(proxy_event(scope, body)).encode()
        if len(body) > REQUEST_BYTES_MAX or len(event) > LAMBDA_BYTES_MAX:
            return _own_answer(413, "Request Too Long")
        try:
            result = await self._edge.invoke(event)
        except TimeoutError:
            return _own_answer(504, "Endpoint request timed out")
        if len(result) > LAMBDA_BYTES_MAX:
            return _own_answer(502, "Internal server error")
        return answer_of(json.loads(result), scope["method"])


def _own_answer(status: int, message: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    body = json.dumps({"message": message}).encode()
    length = (b"content-length", str(len(body)).encode())
    return status, [(b"content-type", b"application/json"), length], body


def main() -> None:
    """Serve on a free port, with the functions' settings from the environment, and say where."""
    os.environ.setdefault("POWERTOOLS_TRACE_DISABLED", "true")
    os.environ.setdefault("POWERTOOLS_METRICS_NAMESPACE", "Fluvial")
    asyncio.run(_serve())


async def _serve() -> None:
    edge, live = Environments("edge"), LiveFunction()
    await live.ready()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(ApiGateway(edge, live), http="httptools", lifespan="off", log_level="warning")
        sys.stdout.write(f"serves http://127.0.0.1:{listener.getsockname()[1]}/{STAGE}/v1/stream/\n")
        sys.stdout.flush()
        await uvicorn.Server(config).serve([listener])
    edge.close()
    await live.close()


if __name__ == "__main__":
    main()
