"""The whole stack of the template on one machine: gateways, functions, queues, and the change feed.

`python -m tests.aws_local.cloud` serves it over the engines that its environment names, and `make serve-aws
FUNCTIONS=yes` over engines that it starts. README.md says what is as on AWS. CHAOS is a probability: that an
invocation is killed, that an event or a message is delivered again, and that a disconnection is lost.
"""

import asyncio
import json
import os
import socket
import sys
from typing import Any
from urllib.parse import unquote

import boto3
from starlette.types import Receive, Scope, Send

from tests.aws_local.api_gateway import STAGE, ApiGateway, read_body
from tests.aws_local.change_feed import ChangeFeedReader
from tests.aws_local.environments import Environments, FunctionFailedError, ThrottledError
from tests.aws_local.live_function import LiveFunction
from tests.aws_local.serving import serve
from tests.aws_local.sockets_api import SocketsApi
from tests.aws_local.sources import EventSource, FeedSource, QueueSource, bus_event, sns_event
from tests.aws_local.stack import create_stack

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
            name = unquote(path.removeprefix(INVOCATIONS).removesuffix("/invocations")).rpartition(":")[2]
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
        except ThrottledError:
            error = json.dumps({"Reason": "ConcurrentInvocationLimitExceeded", "message": "Rate Exceeded."}).encode()
            await send_answer(send, 429, error, (b"x-amzn-errortype", b"TooManyRequestsException"))
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


async def send_answer(send: Send, status: int, body: bytes, *fields: tuple[bytes, bytes]) -> None:
    """Send an HTTP answer with a length and more header fields."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [length, *fields]})
    await send({"type": "http.response.body", "body": body})


#: How many processes each function has at most.
ENVIRONMENTS = {"edge": 3, "append": 2, "subscription": 2, "fanout": 2, "changes": 2, "sockets": 2}
LIVE_ENVIRONMENTS = 16


async def _serve(chaos: float) -> None:
    moto, table = os.environ["FLUVIAL_S3_ENDPOINT_URL"], os.environ["FLUVIAL_TABLE"]

    def client(service: str) -> Any:  # noqa: ANN401  made at run time
        return boto3.client(service, endpoint_url=moto)  # type: ignore[call-overload]

    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        stream_url, storage = f"{url}/{STAGE}/v1/stream/", (table, os.environ["FLUVIAL_BUCKET"])
        stack = create_stack(client, os.environ["FLUVIAL_BUCKET"], stream_url, storage)
        os.environ |= {
            "AWS_ENDPOINT_URL_SQS": moto,
            "AWS_ENDPOINT_URL_SECRETS_MANAGER": moto,
            "AWS_ENDPOINT_URL_LAMBDA": url,
            "FLUVIAL_APPEND_FUNCTION": "append",
            "FLUVIAL_FANOUT_QUEUE_URL": stack.fan_out_url,
            "FLUVIAL_CONNECTIONS_URL": f"{url}/{STAGE}",
            "FLUVIAL_OPERATOR_SECRET_ARN": stack.operator_secret_arn,
        }
        functions = {name: Environments(name, count, chaos) for name, count in ENVIRONMENTS.items()}
        live = LiveFunction(LIVE_ENVIRONMENTS)
        await live.provision(1)
        for function in functions.values():
            await function.provision(1)
        feed = boto3.client("dynamodbstreams", endpoint_url=os.environ["FLUVIAL_ENDPOINT_URL"])
        sqs, publish = client("sqs"), functions["subscription"]
        sources: list[FeedSource | QueueSource | EventSource] = [
            FeedSource(ChangeFeedReader(feed, table), functions["changes"], chaos),
            QueueSource(sqs, stack.fan_out_url, functions["fanout"], chaos),
            QueueSource(sqs, stack.publications_url, publish, chaos),
            EventSource(sqs, stack.topic_deliveries_url, publish, sns_event, chaos),
            EventSource(sqs, stack.bus_deliveries_url, publish, bus_event, chaos),
        ]
        tasks = [asyncio.create_task(source.run()) for source in sources]
        sys.stdout.write(export_lines(stack.name, moto, url))
        sys.stdout.write(f"serves {stream_url} as the stack {stack.name}\n")
        sys.stdout.flush()
        await serve(Cloud(functions, live, chaos), listener)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for function in functions.values():
        function.close()
    await live.close()


def export_lines(stack: str, moto: str, url: str) -> str:
    """Shell lines with which the AWS CLI, any SDK and `make smoke` find the stack and its services."""
    services = ("CLOUDFORMATION", "SECRETS_MANAGER", "SQS", "SNS", "EVENTBRIDGE")
    endpoints = {**{f"AWS_ENDPOINT_URL_{service}": moto for service in services}, "AWS_ENDPOINT_URL_LAMBDA": url}
    return "".join(f"export {name}={value}\n" for name, value in {**endpoints, "STACK": stack}.items())


def main() -> None:
    """Serve on a free port over the engines in the environment, and print the URLs."""
    os.environ.setdefault("POWERTOOLS_METRICS_NAMESPACE", "Fluvial")
    asyncio.run(_serve(float(os.environ.get("CHAOS", "0"))))


if __name__ == "__main__":
    main()
