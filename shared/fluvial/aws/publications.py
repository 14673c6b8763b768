"""Publications: what each AWS service's event asks to be published. The envelope is the same in all of them.

- The envelope is the event of the append function (fluvial.lambda_client): `{stream, payload | payloadBase64, …}`.
- Most services deliver at least once. So each publication has an idempotency key that its redelivery has, too: the
  sender's own, or else the id of the message, notification or event that has brought it.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import msgspec

from fluvial.aws.append_message import JsonObject
from fluvial.model.errors import ErrorCode, FluvialError, RequestError


class NotAPublicationError(FluvialError):
    """The event has no envelope. It is raised, so that Lambda puts the event aside where an operator finds it."""


class Sender(Enum):
    """How the sender learns whether its publication failed."""

    DIRECT = auto()  # it waits for the result
    ASYNCHRONOUS = auto()  # it does not: a failed invocation is repeated and then put aside
    QUEUE = auto()  # SQS: the ids of failed messages are returned


@dataclass(frozen=True, slots=True)
class Publication:
    """One thing to publish.

    `event` is the append function's event, or the reason why there is none. Of a queue's message, `message_id` is its
    id and `group` its ordered group.
    """

    event: JsonObject | RequestError
    message_id: str = ""
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Invocation:
    """The publications of one event."""

    sender: Sender
    publications: tuple[Publication, ...]


def parse_invocation(event: Any) -> Invocation:  # noqa: ANN401  any JSON
    """The publications of an event of any service.

    Raises NotAPublicationError for an event that is no envelope and of no service that brings envelopes. An error as
    the result would not do: most services read no result, and take it for success.
    """
    match event:
        case {"Records": [{"eventSource": "aws:sqs"}, *_] as records}:
            return Invocation(Sender.QUEUE, tuple(map(_parse_message, records)))
        case [{"eventSource": "aws:sqs", "messageId": str()}, *_] as records:  # EventBridge Pipes
            return Invocation(Sender.QUEUE, tuple(map(_parse_message, records)))
        case [_, *_] as contents:  # EventBridge Pipes, from other sources or with a transformer
            return Invocation(Sender.ASYNCHRONOUS, tuple(Publication(_add_key(one, None)) for one in contents))
        case {"Records": [{"EventSource": "aws:sns"}, *_] as records}:
            publications = (Publication(_unwrap_notification(record["Sns"])) for record in records)
            return Invocation(Sender.ASYNCHRONOUS, tuple(publications))
        case {"detail-type": _, "detail": _}:
            return Invocation(Sender.ASYNCHRONOUS, (Publication(_unwrap_eventbridge_event(event)),))
        case {"stream": _}:
            return Invocation(Sender.DIRECT, (Publication(event),))
        case _:
            raise NotAPublicationError("the event is neither an envelope, which has a stream, nor does it bring one")


def _parse_message(record: dict[str, Any]) -> Publication:
    message_id, attributes = record["messageId"], record.get("attributes", {})
    event = _add_key(_decode_json(record["body"]), f"sqs:{message_id}")
    return Publication(event, message_id, attributes.get("MessageGroupId"))


def _unwrap_notification(notification: dict[str, Any]) -> JsonObject | RequestError:
    return _add_key(_decode_json(notification["Message"]), f"sns:{notification['MessageId']}")


def _unwrap_eventbridge_event(event: dict[str, Any], fallback: str | None = None) -> JsonObject | RequestError:
    """An EventBridge event's envelope; `fallback` is the key of the message that has brought an event without an id.

    Events without an id must not share a key such as `eventbridge:`. The second one would be taken for a redelivery
    of the first, and be dropped for 15 days.
    """
    event_id = event.get("id")
    return _add_key(event["detail"], f"eventbridge:{event_id}" if isinstance(event_id, str) and event_id else fallback)


def _add_key(content: Any, key: str | None) -> JsonObject | RequestError:  # noqa: ANN401  any JSON
    """The append function's event with an idempotency key, unless the sender gave one or numbers its appends.

    A message of a queue may hold a notification of SNS or an event of EventBridge, whose own id is the better key: the
    same event may be in two messages, when the rule or topic delivered it twice. Without any key the publication is
    rejected, because its redelivery could not be told from another publication.
    """
    match content:
        case RequestError():
            return content
        case {"Type": "Notification", "Message": str(), "MessageId": str()}:
            return _unwrap_notification(content)
        case {"detail-type": str(), "detail": _}:
            return _unwrap_eventbridge_event(content, key)
        case {"requestPayload": dict(event)}:
            return _unwrap_dead_letter(event, key)
        case dict() if content.get("producer") is not None or content.get("idempotencyKey") is not None:
            return dict(content)  # also if they are malformed: then the append function rejects it
        case dict() if key is None:
            message = "a publication without an id of its own needs a producer or an idempotencyKey"
            return RequestError(ErrorCode.MALFORMED_REQUEST, message)
        case dict():
            return {**content, "idempotencyKey": key}
        case _:
            return RequestError(ErrorCode.MALFORMED_REQUEST, "a publication is a JSON object")


def _unwrap_dead_letter(event: dict[str, Any], key: str | None) -> JsonObject | RequestError:
    """The envelope of an invocation that Lambda gave up on and an operator has redriven: `event` is the original event.

    The message that holds it has a new id, so that the keys of the original event come first.
    """
    match event:
        case {"Records": [{"EventSource": "aws:sns", "Sns": dict(notification)}]}:
            return _unwrap_notification(notification)
        case _:
            return _add_key(event, key)


def _decode_json(text: str) -> Any:  # noqa: ANN401  any JSON
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return RequestError(ErrorCode.MALFORMED_REQUEST, "a publication is a JSON object")
