"""The whole stack of the template on one machine: gateways, functions, queues, and the change feed.

`python -m tests.aws_local.cloud` serves it over the engines that its environment names. CHAOS is a probability: that an
invocation is killed, that an event or a message is delivered again, and that a disconnection is lost.
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
    """Routes requests from clients to the gateways, and the functions' own calls to Lambda and to connections."""

    def __init__(self, functions: dict[str, Environments], live: LiveFunction, chaos: float) -> None:
        """`functions` are keyed by their folders' names; `chaos` is the share of disconnections that are lost."""
        self._functions = functions
        self._gateway = ApiGateway(functions["edge"], live)
        self._sockets = SocketsApi(functions["sockets"], lost_disconnections=chaos)
        self._tasks = set[asyncio.Task[None]]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request: a client's, an invocation, or one to manage a connection."""
        path = scope["path"]
        if scope["type"] == "websocket":
            await self._sockets.connect(scope, receive, send)
        elif path.startswith(INVOCATIONS):
            name = path.removeprefix(INVOCATIONS).removesuffix("/invocations")
            await self._invoke(name, await read_body(receive), scope, send)
        elif path.startswith(CONNECTIONS):
            body = await read_body(receive)
            connection_id = path.removeprefix(CONNECTIONS)
            await send_answer(send, await self._sockets.manage(connection_id, scope["method"], body), b"")
        else:
            await self._gateway(scope, receive, send)

    async def _invoke(self, name: str, event: bytes, scope: Scope, send: Send) -> None:
        kinds = [value for field, value in scope["headers"] if field == b"x-amz-invocation-type"]
        if kinds == [b"Event"]:
            task = asyncio.create_task(self._invoke_with_retries(name, event))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await send_answer(send, 202, b"")
            return
        try:
            await send_answer(send, 200, await self._functions[name].invoke(event))
        except (FunctionFailedError, TimeoutError) as exc:
            error = json.dumps({"errorMessage": str(exc), "errorType": type(exc).__name__}).encode()
            await send_answer(send, 200, error, (b"x-amz-function-error", b"Unhandled"))

    async def _invoke_with_retries(self, name: str, event: bytes) -> None:
        """An asynchronous invocation, which Lambda repeats after a failure."""
        for _ in range(ASYNC_TRIES_MAX):
            try:
                await self._functions[name].invoke(event)
            except (FunctionFailedError, TimeoutError):
                continue
            return


async def read_body(receive: Receive) -> bytes:
    """Receive a request's body to its end."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


async def send_answer(send: Send, status: int, body: bytes, *fields: tuple[bytes, bytes]) -> None:
    """Send an HTTP answer with a length and more header fields."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [length, *fields]})
    await send({"type": "http.response.body", "body": body})


async def _serve(chaos: float) -> None:
    moto, table = os.environ["FLUVIAL_S3_ENDPOINT_URL"], os.environ["FLUVIAL_TABLE"]
    sqs = boto3.client("sqs", endpoint_url=moto)

    def create_queue(name: str) -> str:
        created: dict[str, Any] = sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "10"})
        return str(created["QueueUrl"])

    fan_out, publications = create_queue("fan-out"), create_queue("publications")
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
        await live.wait_until_ready()
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
    """Serve on a free port over the engines in the environment, and print the URLs."""
    os.environ.setdefault("POWERTOOLS_TRACE_DISABLED", "true")
    os.environ.setdefault("POWERTOOLS_METRICS_NAMESPACE", "Fluvial")
    asyncio.run(_serve(float(os.environ.get("CHAOS", "0"))))


if __name__ == "__main__":
    main()
