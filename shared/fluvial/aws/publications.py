"""Publications: what is to be published, by direct invocation, EventBridge, SQS or SNS; one envelope for all.

The envelope is an append's event (fluvial.aws.append_event): `{stream, payload | payloadBase64, contentType, …}`.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import msgspec

from fluvial.model.errors import ErrorCode, FluvialError, RequestError


class NoPublicationError(FluvialError):
    """An event that no publication can be found in: it is raised, so that it ends where an operator finds it."""


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

    event: dict[str, Any] | RequestError
    message_id: str = ""
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Invocation:
    """What one event of a function asks for."""

    sender: Sender
    publications: tuple[Publication, ...]


def invocation_of(event: Any) -> Invocation:  # noqa: ANN401  whatever was sent
    """What an event asks for, whichever service brings it.

    Raises NoPublicationError for what is neither an envelope nor brought by a service that brings envelopes: most
    services read no answer, so to answer with an error would be to tell them that all is well.
    """
    match event:
        case {"Records": [{"eventSource": "aws:sqs"}, *_] as records}:
            return Invocation(Sender.QUEUE, tuple(map(_queued, records)))
        case [{"eventSource": "aws:sqs", "messageId": str()}, *_] as records:  # EventBridge Pipes
            return Invocation(Sender.QUEUE, tuple(map(_queued, records)))
        case [_, *_] as contents:  # EventBridge Pipes, from other sources or with a transformer
            return Invocation(Sender.ASYNCHRONOUS, tuple(Publication(_keyed(one, None)) for one in contents))
        case {"Records": [{"EventSource": "aws:sns"}, *_] as records}:
            publications = (Publication(_notified(record["Sns"])) for record in records)
            return Invocation(Sender.ASYNCHRONOUS, tuple(publications))
        case {"detail-type": _, "detail": _}:
            return Invocation(Sender.ASYNCHRONOUS, (Publication(_routed(event)),))
        case {"stream": _}:
            return Invocation(Sender.DIRECT, (Publication(event),))
        case _:
            raise NoPublicationError("the event is neither an envelope, which has a stream, nor does it bring one")


def _queued(record: dict[str, Any]) -> Publication:
    message_id, attributes = record["messageId"], record.get("attributes", {})
    return Publication(
        _keyed(_decoded(record["body"]), f"sqs:{message_id}"), message_id, attributes.get("MessageGroupId")
    )


def _notified(notification: dict[str, Any]) -> dict[str, Any] | RequestError:
    return _keyed(_decoded(notification["Message"]), f"sns:{notification['MessageId']}")


def _routed(event: dict[str, Any], fallback: str | None = None) -> dict[str, Any] | RequestError:
    """An event of EventBridge's; `fallback` is the key of whatever has brought it, for one that has lost its id."""
    key = event.get("id")
    return _keyed(event["detail"], f"eventbridge:{key}" if isinstance(key, str) and key else fallback)


def _keyed(content: Any, key: str | None) -> dict[str, Any] | RequestError:  # noqa: ANN401  whatever was sent
    """The append's event with a key that its redelivery has, too, unless the sender gave one or numbers its appends.

    A queue may hold what SNS or EventBridge has put there. Without a key nobody could tell a redelivery from another
    publication, and one that all had would make them one: so it is refused.
    """
    match content:
        case RequestError():
            return content
        case {"Type": "Notification", "Message": str(), "MessageId": str()}:
            return _notified(content)
        case {"detail-type": str(), "detail": _}:
            return _routed(content, key)
        case {"requestPayload": dict(asked)}:  # put aside by Lambda, and redriven by an operator
            return _redriven(asked, key)
        case dict() if content.get("producer") is not None or content.get("idempotencyKey") is not None:
            return dict(content)  # also when it is none: then the append function refuses it
        case dict() if key is None:
            message = "what comes without an id of its own needs a producer or an idempotencyKey"
            return RequestError(ErrorCode.MALFORMED_REQUEST, message)
        case dict():
            return {**content, "idempotencyKey": key}
        case _:
            return RequestError(ErrorCode.MALFORMED_REQUEST, "a publication is a JSON object")


def _redriven(asked: dict[str, Any], key: str | None) -> dict[str, Any] | RequestError:
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
        return RequestError(ErrorCode.MALFORMED_REQUEST, "a publication is a JSON object")
