"""All that the template deploys, on one machine: gateways, functions, queues, and the table's stream.

`python -m tests.aws_local.cloud` serves it over the engines that its environment names. With CHAOS, functions are
killed at their work, and events and messages come again.
"""

import asyncio
import json
import os
import socket
import sys
from typing import Any

import boto3
from starlette.types import Receive, Scope, Send

from tests.aws_local.api_gateway import STAGE, ApiGateway
from tests.aws_local.change_feed import ChangeFeedReader
from tests.aws_local.environments import Environments, FunctionFailedError
from tests.aws_local.live_function import LiveFunction
from tests.aws_local.serving import serve
from tests.aws_local.sockets_api import SocketsApi
from tests.aws_local.sources import FeedSource, QueueSource

INVOCATIONS = "/2015-03-31/functions/"
CONNECTIONS = f"/{STAGE}/@connections/"
ASYNC_TRIES_MAX = 20


class Cloud:
    """The application in front of everything."""

    def __init__(self, functions: dict[str, Environments], live: LiveFunction, chaos: float) -> None:
        """`functions` by their folders' names."""
        self._functions = functions
        self._gateway = ApiGateway(functions["edge"], live)
        self._sockets = SocketsApi(functions["sockets"], untold=chaos)
        self._tasks = set[asyncio.Task[None]]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """HTTP and WebSockets from outside; invocations and connections' management from inside."""
        path = scope["path"]
        if scope["type"] == "websocket":
            await self._sockets.connect(scope, receive, send)
        elif path.startswith(INVOCATIONS):
            name = path.removeprefix(INVOCATIONS).removesuffix("/invocations")
            await self._invoked(name, await body_of(receive), scope, send)
        elif path.startswith(CONNECTIONS):
            body = await body_of(receive)
            connection_id = path.removeprefix(CONNECTIONS)
            await answer(send, await self._sockets.manage(connection_id, scope["method"], body), b"")
        else:
            await self._gateway(scope, receive, send)

    async def _invoked(self, name: str, event: bytes, scope: Scope, send: Send) -> None:
        kinds = [value for field, value in scope["headers"] if field == b"x-amz-invocation-type"]
        if kinds == [b"Event"]:
            task = asyncio.create_task(self._retried(name, event))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await answer(send, 202, b"")
            return
        try:
            await answer(send, 200, await self._functions[name].invoke(event))
        except (FunctionFailedError, TimeoutError) as exc:
            error = json.dumps({"errorMessage": str(exc), "errorType": type(exc).__name__}).encode()
            await answer(send, 200, error, (b"x-amz-function-error", b"Unhandled"))

    async def _retried(self, name: str, event: bytes) -> None:
        """An asynchronous invocation: again after a failure."""
        for _ in range(ASYNC_TRIES_MAX):
            try:
                await self._functions[name].invoke(event)
            except (FunctionFailedError, TimeoutError):
                continue
            return


async def body_of(receive: Receive) -> bytes:
    """A request's body."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


async def answer(send: Send, status: int, body: bytes, *fields: tuple[bytes, bytes]) -> None:
    """One answer."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [length, *fields]})
    await send({"type": "http.response.body", "body": body})


async def _serve(chaos: float) -> None:
    moto, table = os.environ["FLUVIAL_S3_ENDPOINT_URL"], os.environ["FLUVIAL_TABLE"]
    sqs = boto3.client("sqs", endpoint_url=moto)

    def queue(name: str) -> str:
        made: dict[str, Any] = sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "10"})
        return str(made["QueueUrl"])

    fan_out, publications = queue("fan-out"), queue("publications")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        os.environ |= {
            "AWS_ENDPOINT_URL_SQS": moto,
            "AWS_ENDPOINT_URL_LAMBDA": url,
            "FLUVIAL_APPEND_FUNCTION": "append",
            "FLUVIAL_FANOUT_QUEUE_URL": fan_out,
            "FLUVIAL_CONNECTIONS_URL": f"{url}/{STAGE}",
        }
        names = {"edge": 3, "append": 2, "subscription": 2, "fanout": 2, "changes": 2, "sockets": 2}
        functions = {name: Environments(name, count, chaos) for name, count in names.items()}
        live = LiveFunction()
        await live.ready()
        for function in functions.values():
            await function.provision()
        feed = boto3.client("dynamodbstreams", endpoint_url=os.environ["FLUVIAL_ENDPOINT_URL"])
        sources: list[FeedSource | QueueSource] = [
            FeedSource(ChangeFeedReader(feed, table), functions["changes"], chaos),
            QueueSource(sqs, fan_out, functions["fanout"], chaos),
            QueueSource(sqs, publications, functions["subscription"], chaos),
        ]
        tasks = [asyncio.create_task(source.run()) for source in sources]
        sys.stdout.write(f"serves {url}/{STAGE}/v1/stream/ publications {publications}\n")
        sys.stdout.flush()
        await serve(Cloud(functions, live, chaos), listener)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for function in functions.values():
        function.close()
    await live.close()


def main() -> None:
    """Serve on a free port, over the engines in the environment, and say where."""
    os.environ.setdefault("POWERTOOLS_TRACE_DISABLED", "true")
    os.environ.setdefault("POWERTOOLS_METRICS_NAMESPACE", "Fluvial")
    asyncio.run(_serve(float(os.environ.get("CHAOS", "0"))))


if __name__ == "__main__":
    main()
