"""Publications: what is to be published, by direct invocation, EventBridge, SQS or SNS; one envelope for all.

The envelope is an append's event (fluvial.transports.direct): `{stream, payload | payloadBase64, contentType, …}`.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import msgspec

from fluvial.core.errors import ErrorCode, RefusedRequest


class Sender(Enum):
    """Who hears how a publication went."""

    DIRECT = auto()  # whoever invoked the function waits for the answer
    ASYNCHRONOUS = auto()  # nobody: a failure is tried again and then put aside
    QUEUE = auto()  # SQS: each message for itself


@dataclass(frozen=True, slots=True)
class Publication:
    """One thing to publish.

    `event` is what to append, or why that cannot be told; `message_id` names it to its queue, `group` is the ordered
    group that it is in.
    """

    event: dict[str, Any] | RefusedRequest
    message_id: str = ""
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Invocation:
    """What one event of a function asks for."""

    sender: Sender
    publications: tuple[Publication, ...]


def invocation_of(event: dict[str, Any]) -> Invocation:
    """What an event asks for, whichever service brings it."""
    match event:
        case {"Records": [{"eventSource": "aws:sqs"}, *_] as records}:
            return Invocation(Sender.QUEUE, tuple(map(_queued, records)))
        case {"Records": [{"EventSource": "aws:sns"}, *_] as records}:
            publications = (Publication(_notified(record["Sns"])) for record in records)
            return Invocation(Sender.ASYNCHRONOUS, tuple(publications))
        case {"detail-type": _, "detail": _}:
            return Invocation(Sender.ASYNCHRONOUS, (Publication(_routed(event)),))
        case _:
            return Invocation(Sender.DIRECT, (Publication(event),))


def _queued(record: dict[str, Any]) -> Publication:
    message_id, attributes = record["messageId"], record.get("attributes", {})
    return Publication(
        _keyed(_decoded(record["body"]), f"sqs:{message_id}"), message_id, attributes.get("MessageGroupId")
    )


def _notified(notification: dict[str, Any]) -> dict[str, Any] | RefusedRequest:
    return _keyed(_decoded(notification["Message"]), f"sns:{notification['MessageId']}")


def _routed(event: dict[str, Any]) -> dict[str, Any] | RefusedRequest:
    return _keyed(event["detail"], f"eventbridge:{event.get('id', '')}")


def _keyed(content: Any, key: str) -> dict[str, Any] | RefusedRequest:  # noqa: ANN401  whatever was sent
    """The append's event with a key that its redelivery has, too, unless the sender gave one or numbers its appends.

    A queue may hold what SNS or EventBridge has put there.
    """
    match content:
        case RefusedRequest():
            return content
        case {"Type": "Notification", "Message": str(), "MessageId": str()}:
            return _notified(content)
        case {"detail-type": str(), "detail": _}:
            return _routed(content)
        case {"requestPayload": dict(asked)}:  # put aside by Lambda, and redriven by an operator
            return _redriven(asked, key)
        case {"producer": dict()} | {"idempotencyKey": str()}:
            return dict(content)
        case dict():
            return {**content, "idempotencyKey": key}
        case _:
            return RefusedRequest(ErrorCode.MALFORMED_REQUEST, "a publication is a JSON object")


def _redriven(asked: dict[str, Any], key: str) -> dict[str, Any] | RefusedRequest:
    """What an asynchronous invocation that failed had asked for."""
    match asked:
        case {"Records": [{"EventSource": "aws:sns", "Sns": dict(notification)}]}:
            return _notified(notification)
        case _:
            return _keyed(asked, key)


def _decoded(text: str) -> Any:  # noqa: ANN401  whatever was sent
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return RefusedRequest(ErrorCode.MALFORMED_REQUEST, "a publication is a JSON object")
