"""The scenario from every publisher to every reader: on AWS's functions, and on one machine, killed repeatedly."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
import httpx
import pytest

from fluvial.lambda_client import PublicationSender
from tests.aws_local.__main__ import local_aws
from tests.e2e.scenario import JSON, Place, Publish, play, until
from tests.support.ports import free_port
from tests.support.rigs import dynamodb_local_url
from tests.support.servers import RunningServer, start_server

pytestmark = pytest.mark.slow


def http_door(root: Callable[[], str]) -> Publish:
    """Publish by POST with a producer's stamp, repeated until it is answered."""
    numbers: dict[str, Iterator[int]] = {}

    async def publish(name: str, message: dict[str, Any]) -> None:
        seq, door = next(numbers.setdefault(name, count())), message["door"]
        headers = {**JSON, "Producer-Id": door, "Producer-Epoch": "0", "Producer-Seq": str(seq)}
        url, body = f"{root()}/v1/stream/{name}", json.dumps(message)
        async with httpx.AsyncClient(timeout=60) as client:
            await until(lambda: client.post(url, content=body, headers=headers), 200, 204)

    return publish


def aws_doors(url: str, moto: str, stack_name: str) -> dict[str, Publish]:
    """Publish by direct invocation, SQS, SNS and EventBridge, as the stack's outputs say."""
    clouds = boto3.client("cloudformation", endpoint_url=moto)
    [stack] = clouds.describe_stacks(StackName=stack_name)["Stacks"]
    outputs = {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}
    functions = boto3.client("lambda", endpoint_url=url)
    ids = count()

    async def direct(name: str, message: dict[str, Any]) -> None:
        event = {"stream": name, "payload": message, "idempotencyKey": f"direct-{next(ids)}"}
        while True:
            answer = await asyncio.to_thread(
                functions.invoke, FunctionName=outputs["PublishFunctionArn"], Payload=json.dumps(event).encode()
            )
            if "FunctionError" not in answer:
                assert "tailOffset" in json.loads(answer["Payload"].read())
                return

    def door(sender: PublicationSender) -> Publish:
        async def publish(name: str, message: dict[str, Any]) -> None:
            await asyncio.to_thread(sender.publish_json, name, message)

        return publish

    queue = boto3.client("sqs", endpoint_url=moto)
    topic = boto3.client("sns", endpoint_url=moto)
    bus = boto3.client("events", endpoint_url=moto)
    return {
        "direct": direct,
        "sqs": door(PublicationSender.queue(outputs["PublicationQueueUrl"], queue)),
        "sns": door(PublicationSender.topic(outputs["PublicationTopicArn"], topic)),
        "event_bridge": door(PublicationSender.bus("e2e", client=bus)),
    }


@contextmanager
def cloud(log_file: Path, deaths: float) -> Iterator[Place]:
    """Run all functions on AWS's own engine; a share of the events kills the function that handles them."""
    with local_aws(dynamodb_local_url()) as environment, log_file.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.aws_local.cloud"],
            # A live read holds its function after its reader has gone; with the template's 50 s there would be too few.
            env={"FLUVIAL_SSE_MAX_AGE": "2", **os.environ, **environment, "CHAOS": str(deaths)},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert process.stdout is not None
        matches = map(re.compile(r"serves ((http://[^/]+)/live)/v1/stream/").match, process.stdout)
        found = next(filter(None, matches), None)
        assert found is not None, log_file.read_text()
        root, url = found.groups()
        moto = environment["FLUVIAL_S3_ENDPOINT_URL"]

        def socket_url(name: str, offset: str) -> str:
            return f"{root.replace('http', 'ws')}?stream={quote(name, safe='')}&offset={offset}"

        doors = {"http": http_door(lambda: root), **aws_doors(url, moto, environment["FLUVIAL_BUCKET"])}
        try:
            yield Place(lambda: root, socket_url, doors)
        finally:
            process.terminate()
            process.wait(30)
            process.stdout.close()


@pytest.mark.parametrize("deaths", [pytest.param(0.0, marks=pytest.mark.long), 0.03])
async def test_every_reader_gets_every_message_once_on_aws(tmp_path: Path, deaths: float) -> None:
    """Every function runs in processes of its own, and is invoked by the event sources that it has on AWS.

    With deaths, functions are killed at work, changes and messages come again, and disconnections are not reported.
    """
    with cloud(tmp_path / "cloud.log", deaths) as place:
        await play(place)


@pytest.mark.parametrize("kills", [0, 4])
async def test_every_reader_gets_every_message_once_on_one_machine(tmp_path: Path, kills: int) -> None:
    """With kills, the server is killed by SIGKILL at any moment and started again on the same data."""
    folder, port = tmp_path / "data", str(free_port())
    running: list[RunningServer] = [start_server(folder, "--port", port)]

    async def kill_and_restart() -> None:
        for _ in range(kills):
            await asyncio.sleep(1.5)
            running[0].kill()
            running[0] = await asyncio.to_thread(start_server, folder, "--port", port)

    def root() -> str:
        return f"http://127.0.0.1:{port}"

    def socket_url(name: str, offset: str) -> str:
        return f"ws://127.0.0.1:{port}/v1/stream/{name}?live=websocket&offset={offset}"

    killer = asyncio.create_task(kill_and_restart())
    try:
        await play(Place(root, socket_url, {"http": http_door(root), "other": http_door(root)}))
    finally:
        await killer
        assert running[0].terminate() == 0
        running[0].kill()
