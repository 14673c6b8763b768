"""The subscription function: append through the append function, then deliver to whoever follows the stream."""

import asyncio
import logging
from typing import Any

from fluvial.aws.append_client import AppendClient, AppendFailedError, AppendRejected
from fluvial.aws.publications import Publication, Sender, invocation_of
from fluvial.fanout.publisher import FanOutReport, Publisher
from fluvial.fanout.replication import Source
from fluvial.model.errors import FluvialError, RequestError, StoreError
from fluvial.model.names import parse_name
from fluvial.storage.contract import Store

log = logging.getLogger(__name__)

Answer = dict[str, Any]


class PublishRejectedError(FluvialError):
    """What nobody waits for was refused: it is raised, so that it ends where an operator finds it."""


class SubscriptionFunction:
    """Publishes what a function is sent."""

    def __init__(self, store: Store, publisher: Publisher, appender: AppendClient) -> None:
        """`appender` invokes the append function."""
        self._store, self._publisher, self._appender = store, publisher, appender

    async def handle(self, event: object) -> Answer:
        """The answer to an event of any service; raises what is to be tried again, and refusals nobody waits for.

        An event in which there is no publication is a refusal, too: whoever has sent it may hear no answer.
        """
        invocation = invocation_of(event)
        match invocation.sender:
            case Sender.DIRECT:
                return await self._published(invocation.publications[0])
            case Sender.ASYNCHRONOUS:
                for publication in invocation.publications:
                    _raise_refusal(await self._published(publication))
                return {}
            case Sender.QUEUE:
                groups: dict[str, list[Publication]] = {}
                for publication in invocation.publications:
                    groups.setdefault(publication.group or publication.message_id, []).append(publication)
                failed = await asyncio.gather(*map(self._publish_in_order, groups.values()))
                return {"batchItemFailures": [{"itemIdentifier": name} for names in failed for name in names]}

    async def _publish_in_order(self, publications: list[Publication]) -> list[str]:
        """The messages that were not published: after one that was not, its group waits."""
        for index, publication in enumerate(publications):
            try:
                _raise_refusal(await self._published(publication))
            except (PublishRejectedError, AppendFailedError, StoreError) as exc:
                log.warning("message_not_published", extra={"message_id": publication.message_id, "reason": str(exc)})
                return [one.message_id for one in publications[index:]]
        return []

    async def _published(self, publication: Publication) -> Answer:
        event = publication.event
        if isinstance(event, RequestError):
            return {"error": {"code": event.code.value.upper(), "message": event.message}}
        appended = await asyncio.to_thread(self._appender.ask, event)
        if isinstance(appended, AppendRejected):
            return {"error": {"code": appended.code, "message": appended.message, **appended.details}}
        answer: Answer = {"tailOffset": appended.tail_offset, "closed": appended.closed}
        if appended.is_duplicate:
            answer["duplicate"] = True
        report = await self._delivered(str(event["stream"]))
        return answer if report is None else {**answer, "fanout": _spelt(report)}

    async def _delivered(self, path: str) -> FanOutReport | None:
        """Deliver; the append stands whatever becomes of that, and the change feed makes it good."""
        name = parse_name(path)
        try:
            head = await self._store.head(name)
            return None if head is None else await self._publisher.publish(Source(name, head))
        except StoreError as exc:
            log.warning("fan_out_deferred", extra={"stream": name, "reason": str(exc.__cause__ or exc)})
            return None


def _raise_refusal(answer: Answer) -> None:
    if "error" in answer:
        raise PublishRejectedError(f"{answer['error']['code']}: {answer['error']['message']}")


def _spelt(report: FanOutReport) -> Answer:
    return {
        "count": report.count,
        "successes": report.successes,
        "failures": report.failures,
        "mode": report.mode.value,
    }
