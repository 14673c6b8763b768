"""The subscription function: publish, that is append through the append function and deliver to the followers.

- The append stands whatever becomes of the deliveries: the change feed makes up for those that fail.
- A publication that fails is repeated by its service. One that is rejected is raised or returned as failed, too, unless
  its sender waits for the result: after some repetitions it ends in the dead letters, where an operator finds it.
- A failed message of an ordered group keeps back those behind it.
"""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from fluvial.aws.append_message import JsonObject, build_rejection, encode_result
from fluvial.aws.partial_batch import Groups, RecordFailedError
from fluvial.aws.publications import Publication
from fluvial.fanout.publisher import FanOutReport, Publisher
from fluvial.fanout.replication import Source
from fluvial.lambda_client import AppendClient, AppendRejected, AppendResult, CallFailedError
from fluvial.model.errors import FluvialError, RequestError, StoreError
from fluvial.model.names import parse_name
from fluvial.storage.contract import Store

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

log = logging.getLogger(__name__)

#: Groups of a queue's messages that are published at the same time; each waits for the append function.
GROUPS_AT_ONCE: Final = 10


class PublishRejectedError(FluvialError):
    """A publication was rejected whose sender does not wait for the result."""


class SubscriptionFunction:
    """Publishes what the events of AWS's services bring."""

    def __init__(self, store: Store, publisher: Publisher, appender: AppendClient) -> None:
        """`appender` invokes the append function."""
        self._store, self._publisher, self._appender = store, publisher, appender

    async def publish_directly(self, publication: Publication) -> JsonObject:
        """Publish for a sender that waits for the result, and return it. Raises CallFailedError."""
        result, report = await self._publish(publication)
        response = encode_result(result)
        return response if report is None else {**response, "fanout": msgspec.to_builtins(report)}

    async def publish_all(self, publications: Sequence[Publication]) -> JsonObject:
        """Publish one after the other; an empty response.

        Raises CallFailedError, PublishRejectedError, so that Lambda repeats the event and then puts it aside.
        """
        for publication in publications:
            await self._publish_or_raise(publication)
        return {}

    async def publish_in_order(self, publications: Sequence[Publication]) -> list[str]:
        """Publish the messages of a group; the ids of the first one that fails and of those behind it."""
        for index, publication in enumerate(publications):
            try:
                await self._publish_or_raise(publication)
            except (PublishRejectedError, CallFailedError, StoreError) as exc:
                log.warning("message_not_published", extra={"message_id": publication.message_id, "reason": str(exc)})
                return [one.message_id for one in publications[index:]]
            except Exception:  # an unforeseen error of one group does not have the other groups' messages sent again
                log.exception("message_not_published", extra={"message_id": publication.message_id})
                return [one.message_id for one in publications[index:]]
        return []

    async def _publish_or_raise(self, publication: Publication) -> None:
        result, _ = await self._publish(publication)
        if isinstance(result, AppendRejected):
            raise PublishRejectedError(f"{result.code}: {result.message}")

    async def _publish(self, publication: Publication) -> tuple[AppendResult, FanOutReport | None]:
        """Append and deliver; no report of a stream without followers, of a rejection, or when the store fails."""
        event = publication.event
        if isinstance(event, RequestError):
            return build_rejection(event.code, event.message), None
        result = await asyncio.to_thread(self._appender.invoke, event)
        if isinstance(result, AppendRejected):
            return result, None
        return result, await self._deliver(str(event["stream"]))

    async def _deliver(self, path: str) -> FanOutReport | None:
        name = parse_name(path)
        try:
            head = await self._store.head(name)
            return None if head is None else await self._publisher.publish(Source(name, head))
        except StoreError as exc:
            log.warning("fan_out_deferred", extra={"stream": name, "reason": str(exc.__cause__ or exc)})
            return None


class QueueBatch:
    """A batch of a queue's messages. Those of a group are published in order, each of the others by itself."""

    def __init__(self, function: SubscriptionFunction, publications: Sequence[Publication]) -> None:
        """Nothing is published before the first message."""
        self._function = function
        self._groups = Groups[str, list[str]](GROUPS_AT_ONCE)
        self._publications: dict[str, list[Publication]] = {}
        for publication in publications:
            self._publications.setdefault(_group_of(publication), []).append(publication)
        self._group_of = {publication.message_id: _group_of(publication) for publication in publications}

    async def process_message(self, record: "SQSRecord") -> None:
        """Wait until the message's group is published as far as can be. Raises RecordFailedError for the rest of it."""
        group = self._group_of[record.message_id]
        publish = partial(self._function.publish_in_order, self._publications[group])
        if record.message_id in await self._groups.result(group, publish):
            raise RecordFailedError


def _group_of(publication: Publication) -> str:
    return publication.group or publication.message_id
