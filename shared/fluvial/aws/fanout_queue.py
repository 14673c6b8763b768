"""The fan-out queue: pages of a source's followers, each delivered to by the fan-out function.

- A message names a source, its incarnation and some fifty followers. It carries no bytes: a delivery reads the source.
- A message that comes twice or late does no harm, because each delivery goes on from the follower's cursor.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from fluvial.aws.partial_batch import RecordFailedError
from fluvial.fanout.deliveries import Deliveries
from fluvial.fanout.replication import Source
from fluvial.model.errors import StoreError, StoreUnavailable
from fluvial.model.followers import Follower
from fluvial.model.head import Incarnation
from fluvial.model.names import StreamName
from fluvial.storage.contract import Store

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

log = logging.getLogger(__name__)

#: SQS takes up to ten messages in one request, and hands over up to ten at a time.
#: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html
MESSAGES_PER_REQUEST_MAX: Final = 10

#: No publisher waits for these deliveries, but the function's timeout is a minute.
DELIVERY_TIMEOUT_S: Final = 45.0


class _Message(msgspec.Struct, frozen=True):
    stream: StreamName
    incarnation: Incarnation
    followers: tuple[Follower, ...]


_MESSAGE = msgspec.json.Decoder(_Message)


class SqsClient(Protocol):
    """The part of boto3's SQS client that is used."""

    def send_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, str]]) -> Any:  # noqa: ANN401, N803  boto3's own names
        """Send up to ten messages."""
        ...


class FanOutQueue:
    """The queue's sending side."""

    def __init__(self, client: SqsClient, url: str) -> None:
        """`url` is the queue's."""
        self._client, self._url = client, url

    async def send(self, source: Source, pages: Sequence[Sequence[Follower]]) -> None:
        """Send a message for each page of followers. Raises StoreUnavailable when the queue does not take them all."""
        for start in range(0, len(pages), MESSAGES_PER_REQUEST_MAX):
            entries = [
                {"Id": str(number), "MessageBody": _encode_message(source, followers)}
                for number, followers in enumerate(pages[start : start + MESSAGES_PER_REQUEST_MAX])
            ]
            send = self._client.send_message_batch
            try:
                answer = await asyncio.to_thread(send, QueueUrl=self._url, Entries=entries)
            except (BotoCoreError, ClientError) as exc:
                raise StoreUnavailable from exc
            if answer.get("Failed"):
                raise StoreUnavailable


def _encode_message(source: Source, followers: Sequence[Follower]) -> str:
    return msgspec.json.encode(_Message(source.name, source.head.incarnation, tuple(followers))).decode()


class FanOutConsumer:
    """The queue's receiving side: the fan-out function."""

    def __init__(self, store: Store, deliveries: Deliveries) -> None:
        """`store` has the sources' heads."""
        self._store, self._deliveries = store, deliveries

    async def process_message(self, record: "SQSRecord") -> None:
        """Deliver to a message's followers. Raises RecordFailedError: it comes again, or ends in the dead letters."""
        if not await self._deliver_page(record.body):
            raise RecordFailedError

    async def _deliver_page(self, body: str) -> bool:
        """Deliver to the followers of one message; whether nothing is left to do for them."""
        try:
            message = _MESSAGE.decode(body)
            head = await self._store.head(message.stream)
            if head is None or head.incarnation != message.incarnation:
                return True  # the followers went with the incarnation that they followed
            source = Source(message.stream, head)
            undelivered = await self._deliveries.deliver_to(source, message.followers, within_s=DELIVERY_TIMEOUT_S)
        except (StoreError, msgspec.DecodeError) as exc:
            log.warning("page_not_delivered", extra={"reason": str(exc.__cause__ or exc)})
            return False
        except Exception:  # an unforeseen error of one message does not have the batch's other messages sent again
            log.exception("page_not_delivered")
            return False
        return not undelivered


def sqs_client() -> SqsClient:
    """An SQS client that gives up in time; a page that is sent twice does no harm."""
    import boto3  # noqa: PLC0415  the receiving side needs no client
    from botocore.config import Config  # noqa: PLC0415

    config = Config(connect_timeout=1, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})
    client: SqsClient = boto3.client("sqs", config=config)
    return client
