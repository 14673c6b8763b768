"""The fan-out queue: followers of a stream by fifties, each of them delivered to by the fan-out function."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from fluvial.fanout.publisher import Publisher
from fluvial.fanout.replication import Source
from fluvial.model.errors import StoreError, StoreUnavailable
from fluvial.model.followers import Follower
from fluvial.model.head import Incarnation
from fluvial.model.names import StreamName
from fluvial.storage.contract import Store

log = logging.getLogger(__name__)

#: What one request to SQS takes.
#: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html
MESSAGES_PER_REQUEST_MAX: Final = 10

#: Nobody waits for these deliveries, but the function ends after a minute.
DELIVERY_TIMEOUT_S: Final = 45.0


class _Message(msgspec.Struct, frozen=True):
    stream: StreamName
    incarnation: Incarnation
    followers: tuple[Follower, ...]


_MESSAGE = msgspec.json.Decoder(_Message)


class SqsClient(Protocol):
    """As much of boto3's SQS client as is used."""

    def send_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, str]]) -> Any:  # noqa: ANN401, N803  boto3's own names
        """Send up to ten messages."""
        ...


class FanOutQueue:
    """The queue's sending side."""

    def __init__(self, client: SqsClient, url: str) -> None:
        """Nothing is sent yet."""
        self._client, self._url = client, url

    async def send(self, source: Source, pages: Sequence[Sequence[Follower]]) -> None:
        """Have each page delivered to. Raises StoreUnavailable when the queue does not take them all."""
        for start in range(0, len(pages), MESSAGES_PER_REQUEST_MAX):
            entries = [
                {"Id": str(number), "MessageBody": _spelt(source, followers)}
                for number, followers in enumerate(pages[start : start + MESSAGES_PER_REQUEST_MAX])
            ]
            send = self._client.send_message_batch
            try:
                answer = await asyncio.to_thread(send, QueueUrl=self._url, Entries=entries)
            except (BotoCoreError, ClientError) as exc:
                raise StoreUnavailable from exc
            if answer.get("Failed"):
                raise StoreUnavailable


def _spelt(source: Source, followers: Sequence[Follower]) -> str:
    return msgspec.json.encode(_Message(source.name, source.head.incarnation, tuple(followers))).decode()


class QueuedDeliveries:
    """The queue's receiving side."""

    def __init__(self, store: Store, publisher: Publisher) -> None:
        """Nothing is delivered yet."""
        self._store, self._publisher = store, publisher

    async def handle(self, event: dict[str, Any]) -> dict[str, Any]:
        """Deliver each message's page; the failed messages come again, and end in the dead-letter queue."""
        records = event["Records"]
        delivered = await asyncio.gather(*(self._delivered(record["body"]) for record in records))
        failed = [record["messageId"] for record, is_done in zip(records, delivered, strict=True) if not is_done]
        return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}

    async def _delivered(self, body: str) -> bool:
        try:
            message = _MESSAGE.decode(body)
            head = await self._store.head(message.stream)
            if head is None or head.incarnation != message.incarnation:
                return True  # the followers went with the life that they followed
            source = Source(message.stream, head)
            lacking = await self._publisher.deliver_to(source, message.followers, within_s=DELIVERY_TIMEOUT_S)
        except (StoreError, msgspec.DecodeError) as exc:
            log.warning("page_not_delivered", extra={"reason": str(exc.__cause__ or exc)})
            return False
        except Exception:  # whatever is wrong with one message, the batch's others are not sent again for it
            log.exception("page_not_delivered")
            return False
        return not lacking


def sqs_client() -> SqsClient:
    """An SQS client that gives up in time; to send a page twice does no harm."""
    import boto3  # noqa: PLC0415  whoever only receives needs none
    from botocore.config import Config  # noqa: PLC0415

    config = Config(connect_timeout=1, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})
    client: SqsClient = boto3.client("sqs", config=config)
    return client
