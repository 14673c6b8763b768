"""Checks of the stack's other ways to append and to publish, which it names in its outputs."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from fluvial.lambda_client import (
    APPEND_TIMEOUT_S,
    PUBLISH_TIMEOUT_S,
    AppendAccepted,
    AppendClient,
    PublicationSender,
    PublishClient,
    Published,
)
from tools.smoke.place import Place
from tools.smoke.report import CheckFailedError, check_that

#: How long a publication may be under way, whose queue, function and second function may all have to start.
DELIVERY_S: Final = 45.0
_PAUSE_S: Final = 0.5


@dataclass(frozen=True)
class Stack:
    """A CloudFormation stack of the template. AWS's SDK finds its services and credentials as always."""

    session: Any
    outputs: dict[str, str]

    def client(self, service: str, read_timeout_s: float = 30.0) -> Any:  # noqa: ANN401  made at run time
        """A client of a service that sends nothing twice by itself."""
        from botocore.config import Config  # noqa: PLC0415  only a stack needs it

        config = Config(read_timeout=read_timeout_s, retries={"mode": "standard", "total_max_attempts": 1})
        return self.session.client(service, config=config)

    def operator_secret(self) -> str:
        """The secret that signs operators' tokens. Raises ValueError when the stack has none or it cannot be read."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415  only a stack needs it

        if "OperatorSecretArn" not in self.outputs:
            raise ValueError("the stack has no output OperatorSecretArn: give a TOKEN")
        try:
            answer = self.client("secretsmanager").get_secret_value(SecretId=self.outputs["OperatorSecretArn"])
        except (BotoCoreError, ClientError) as exc:
            raise ValueError(f"the operators' secret cannot be read, so give a TOKEN: {exc}") from exc
        return str(answer["SecretString"])

    async def check_append(self, place: Place) -> str:
        """Direct invocation of the append function."""
        client = self.client("lambda", APPEND_TIMEOUT_S)

        def append(stream: str) -> str:
            result = AppendClient(self.outputs["AppendFunctionArn"], client).append_json(stream, "sent")
            check_that(isinstance(result, AppendAccepted), f"it was rejected: {result}")
            return "appended"

        return await self._check(place, "append-function", append)

    async def check_publish(self, place: Place) -> str:
        """Direct invocation of the function that publishes."""
        client = self.client("lambda", PUBLISH_TIMEOUT_S)

        def publish(stream: str) -> str:
            result = PublishClient(self.outputs["PublishFunctionArn"], client).publish_json(stream, "sent")
            check_that(isinstance(result, Published), f"it was rejected: {result}")
            return "published"

        return await self._check(place, "publish-function", publish)

    async def check_queue(self, place: Place) -> str:
        """A message of SQS."""
        sender = PublicationSender.queue(self.outputs["PublicationQueueUrl"], self.client("sqs"))
        return await self._check(place, "queue", lambda stream: sender.publish_json(stream, "sent"))

    async def check_topic(self, place: Place) -> str:
        """A notification of SNS."""
        sender = PublicationSender.topic(self.outputs["PublicationTopicArn"], self.client("sns"))
        return await self._check(place, "topic", lambda stream: sender.publish_json(stream, "sent"))

    async def check_bus(self, place: Place) -> str:
        """An event on the default bus of EventBridge."""
        sender = PublicationSender.bus("fluvial.smoke", client=self.client("events"))
        return await self._check(place, "bus", lambda stream: sender.publish_json(stream, "sent"))

    @staticmethod
    async def _check(place: Place, name: str, send: Callable[[str], str]) -> str:
        """Send one message to a stream of its own, and read it from there."""
        await place.create(name)
        note = await asyncio.to_thread(send, place.prefix + name)
        found = list[Any]()
        try:
            async with asyncio.timeout(DELIVERY_S):
                while not (found := (await place.read(name)).json()):  # noqa: ASYNC110  the server is elsewhere
                    await asyncio.sleep(_PAUSE_S)
        except TimeoutError as exc:
            raise CheckFailedError(f"nothing came within {DELIVERY_S:.0f} s of {note}") from exc
        check_that(found == ["sent"], f"the stream has {json.dumps(found)[:100]}")
        return note


def find_stack(name: str, region: str | None) -> Stack:
    """A stack by its name. Raises ValueError when there is none, or no way to ask."""
    try:
        import boto3  # noqa: PLC0415  only a stack needs it
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415
    except ImportError as exc:
        raise ValueError("a stack needs boto3: pip install 'fluvial[aws]'") from exc
    session = boto3.session.Session(region_name=region)
    try:
        answer = session.client("cloudformation").describe_stacks(StackName=name)
    except (BotoCoreError, ClientError) as exc:
        raise ValueError(f"the stack {name} cannot be described: {exc}") from exc
    outputs = answer["Stacks"][0].get("Outputs", [])
    return Stack(session, {one["OutputKey"]: one["OutputValue"] for one in outputs})
