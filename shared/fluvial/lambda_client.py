"""Clients of Fluvial's Lambda functions, for functions of yours: append, or publish (docs/lambda-client.md).

- A rejection is a result: the same call would be rejected again. What may succeed when it is repeated raises.
- This one module needs msgspec and botocore and nothing else of the package, because an import is time at each cold
  start. So it comes with the layer, or as a copy.
"""

import hashlib
import uuid
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import IO, Any, Final, Protocol, TypedDict, Unpack

import msgspec

try:
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError:
    raise ImportError("fluvial.lambda_client needs boto3: pip install 'fluvial[aws]'") from None

__all__ = [
    "AppendAccepted",
    "AppendClient",
    "AppendEvent",
    "AppendFields",
    "AppendRejected",
    "AppendResult",
    "CallFailedError",
    "FanOut",
    "FanOutMode",
    "ProducerStamp",
    "PublicationSender",
    "PublishClient",
    "PublishResult",
    "Published",
    "append_event",
    "boto3_client",
]

#: Longer than the functions' timeouts, so that the client gets their results.
APPEND_TIMEOUT_S: Final = 25
PUBLISH_TIMEOUT_S: Final = 65

#: The detail type of EventBridge's events that are published.
DETAIL_TYPE: Final = "fluvial.publish"


class CallFailedError(Exception):
    """A function or a service failed: the payload may be in the stream or not.

    With a producer or an idempotency key it is safe to call again.
    """


class ProducerStamp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A writer that numbers its appends: the same stamp is appended once. A new `epoch` begins with `seq` 0."""

    id: str
    epoch: int
    seq: int


class AppendEvent(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True
):
    """One append, as a function's event.

    `stream` is the path below /v1/stream/, `{project}/{stream}` once there are projects. The body is `payload` or the
    bytes in `payload_base64`; a payload that is text is the body as it is, any other is JSON. Without a body, `close`
    must be true. Of several events with the same `idempotency_key`, a stream takes one in 15 days.
    """

    stream: str
    close: bool = msgspec.field(default_factory=bool)  # a factory's value is encoded, though defaults are omitted
    payload: Any = None
    payload_base64: str | None = None
    producer: ProducerStamp | None = None
    content_type: str | None = None
    stream_seq: str | None = None
    idempotency_key: str | None = None


class AppendFields(TypedDict, total=False):
    """What else an append may have. `close` closes the stream with this append."""

    content_type: str | None
    producer: ProducerStamp | None
    stream_seq: str | None
    close: bool
    idempotency_key: str | None


@dataclass(frozen=True, slots=True)
class AppendAccepted:
    """The payload is in the stream; `is_duplicate` when an earlier attempt had appended it."""

    tail_offset: str
    closed: bool = False
    is_duplicate: bool = False


@dataclass(frozen=True, slots=True)
class AppendRejected:
    """Nothing was changed, and the same call would be rejected again, e.g. with the code STREAM_CLOSED."""

    code: str
    message: str
    details: dict[str, str] = field(default_factory=dict)


AppendResult = AppendAccepted | AppendRejected


class FanOutMode(StrEnum):
    """When the followers of a stream are delivered to."""

    INLINE = "inline"  # before the publisher is answered
    QUEUED = "queued"  # soon after
    DEFERRED = "deferred"  # when the store can list them again


@dataclass(frozen=True, slots=True)
class FanOut:
    """How many followers a stream has, and how many have the message or not yet. QUEUED ones are not counted."""

    count: int
    successes: int
    failures: int
    mode: FanOutMode


@dataclass(frozen=True, slots=True)
class Published:
    """The payload is in the stream. `fan_out` is how its deliveries went: None without followers, or if not known."""

    tail_offset: str
    closed: bool = False
    is_duplicate: bool = False
    fan_out: FanOut | None = None


PublishResult = Published | AppendRejected


class LambdaClient(Protocol):
    """The part of boto3's Lambda client that is used."""

    def invoke(self, *, FunctionName: str, Payload: bytes) -> Any:  # noqa: ANN401, N803  boto3's own names
        """Invoke a function and wait for its answer."""
        ...


def boto3_client(read_timeout_s: float) -> LambdaClient:
    """A Lambda client that waits so long for an answer and never sends an append a second time."""
    import boto3  # noqa: PLC0415  a caller with a client of its own needs none
    from botocore.config import Config  # noqa: PLC0415

    config = Config(read_timeout=read_timeout_s, retries={"mode": "standard", "total_max_attempts": 1})
    client: LambdaClient = boto3.client("lambda", config=config)
    return client


def append_event(stream: str, payload: bytes | str = b"", **fields: Unpack[AppendFields]) -> AppendEvent:
    """The event that appends bytes or text: what is sent to each of the functions, queues, topics and buses."""
    return AppendEvent(
        stream=stream,
        payload=None if isinstance(payload, bytes) else payload or None,
        payload_base64=b64encode(payload).decode() if isinstance(payload, bytes) and payload else None,
        **fields,
    )


def _json_event(stream: str, messages: tuple[object, ...], fields: AppendFields) -> AppendEvent:
    """The event that appends messages to a JSON stream; a message that is a list stays one message."""
    return AppendEvent(stream=stream, payload=list(messages), **fields)


class AppendClient:
    """Appends to streams by invoking the append function. It does not deliver: the change feed does that soon after."""

    def __init__(self, function_name: str, client: LambdaClient | None = None) -> None:
        """`function_name` may be an ARN. `client` must not retry by itself: see `boto3_client`, the default."""
        self._function_name, self._client = function_name, client or boto3_client(APPEND_TIMEOUT_S)

    def append(self, stream: str, payload: bytes | str = b"", **fields: Unpack[AppendFields]) -> AppendResult:
        """Append bytes or text, close the stream, or both. Raises CallFailedError."""
        return self.invoke(append_event(stream, payload, **fields))

    def append_json(self, stream: str, *messages: object, **fields: Unpack[AppendFields]) -> AppendResult:
        """Append messages to a JSON stream, in one step. Raises CallFailedError."""
        return self.invoke(_json_event(stream, messages, fields))

    def close(self, stream: str, *, producer: ProducerStamp | None = None) -> AppendResult:
        """Close the stream for ever. Raises CallFailedError."""
        return self.invoke(AppendEvent(stream=stream, close=True, producer=producer))

    def invoke(self, event: AppendEvent | Mapping[str, Any]) -> AppendResult:
        """Invoke the function with an event; a mapping is sent unchecked. Raises CallFailedError."""
        return decode_result(_invoke(self._client, self._function_name, event))


class PublishClient:
    """Publishes by invoking the subscription function: appends, and delivers to the estuaries that follow."""

    def __init__(self, function_name: str, client: LambdaClient | None = None) -> None:
        """As for AppendClient."""
        self._function_name, self._client = function_name, client or boto3_client(PUBLISH_TIMEOUT_S)

    def publish(self, stream: str, payload: bytes | str = b"", **fields: Unpack[AppendFields]) -> PublishResult:
        """Publish bytes or text. Raises CallFailedError."""
        return self._publish(append_event(stream, payload, **fields))

    def publish_json(self, stream: str, *messages: object, **fields: Unpack[AppendFields]) -> PublishResult:
        """Publish messages to a JSON stream, in one step. Raises CallFailedError."""
        return self._publish(_json_event(stream, messages, fields))

    def _publish(self, event: AppendEvent) -> PublishResult:
        answer = _invoke(self._client, self._function_name, event)
        result = decode_result(answer)
        if isinstance(result, AppendRejected):
            return result
        fan_out = msgspec.convert(answer["fanout"], FanOut) if "fanout" in answer else None
        return Published(result.tail_offset, result.closed, result.is_duplicate, fan_out)


class _SendEnvelope(Protocol):
    def __call__(self, event: AppendEvent, text: str, /) -> str:
        """Send an envelope, which is `event` encoded; the message's id."""
        ...


class PublicationSender:
    """Publishes through a queue, a topic or an event bus: sends, and does not wait for the append.

    Each publication has an idempotency key, a random one by default, so that it is appended once however often it is
    sent and delivered. What is rejected later ends in the dead letters of the stack.
    """

    def __init__(self, send: _SendEnvelope) -> None:
        """See `queue`, `topic` and `bus`."""
        self._send = send

    @classmethod
    def queue(cls, url: str, client: Any = None) -> "PublicationSender":  # noqa: ANN401  boto3's SQS client
        """Send to a queue of SQS. In a FIFO queue, the publications of a stream keep their order."""
        sqs = client or _service("sqs")

        def send(event: AppendEvent, text: str) -> str:
            ordered = {}
            if url.endswith(".fifo"):
                ordered = {
                    "MessageGroupId": _digest(event.stream),
                    "MessageDeduplicationId": _digest(f"{event.producer} {event.idempotency_key}"),
                }
            return str(sqs.send_message(QueueUrl=url, MessageBody=text, **ordered)["MessageId"])

        return cls(send)

    @classmethod
    def topic(cls, arn: str, client: Any = None) -> "PublicationSender":  # noqa: ANN401  boto3's SNS client
        """Send to a topic of SNS."""
        sns = client or _service("sns")
        return cls(lambda _, text: str(sns.publish(TopicArn=arn, Message=text)["MessageId"]))

    @classmethod
    def bus(cls, source: str, name: str = "default", client: Any = None) -> "PublicationSender":  # noqa: ANN401
        """Send to an event bus of EventBridge; `source` says who sends."""
        events = client or _service("events")

        def send(_event: AppendEvent, text: str) -> str:
            entry = {"Source": source, "DetailType": DETAIL_TYPE, "Detail": text, "EventBusName": name}
            [answer] = events.put_events(Entries=[entry])["Entries"]
            if "EventId" not in answer:
                raise CallFailedError(f"the event bus {name} failed: {answer.get('ErrorCode')}")
            return str(answer["EventId"])

        return cls(send)

    def publish(self, stream: str, payload: bytes | str = b"", **fields: Unpack[AppendFields]) -> str:
        """Send bytes or text; the message's id. Raises CallFailedError."""
        return self._publish(append_event(stream, payload, **fields))

    def publish_json(self, stream: str, *messages: object, **fields: Unpack[AppendFields]) -> str:
        """Send messages for a JSON stream; the message's id. Raises CallFailedError."""
        return self._publish(_json_event(stream, messages, fields))

    def _publish(self, event: AppendEvent) -> str:
        if event.producer is None and event.idempotency_key is None:
            event = msgspec.structs.replace(event, idempotency_key=uuid.uuid4().hex)
        try:
            return self._send(event, msgspec.json.encode(event).decode())
        except (BotoCoreError, ClientError) as exc:
            raise CallFailedError(f"the publication could not be sent: {exc}") from exc


def _invoke(client: LambdaClient, name: str, event: AppendEvent | Mapping[str, Any]) -> dict[str, Any]:
    """A function's answer. Raises CallFailedError."""
    try:
        answer = client.invoke(FunctionName=name, Payload=msgspec.json.encode(event))
    except (BotoCoreError, ClientError) as exc:
        raise CallFailedError(f"{name} could not be invoked: {exc}") from exc
    if "FunctionError" in answer:
        raise CallFailedError(f"{name} failed: {answer['FunctionError']}")
    body: IO[bytes] = answer["Payload"]
    found: dict[str, Any] = msgspec.json.decode(body.read())
    return found


def decode_result(result: Mapping[str, Any]) -> AppendResult:
    """The result in a function's answer: `{"tailOffset", "closed", "duplicate"?}` or `{"error": …}`."""
    if "error" in result:
        details = dict(result["error"])
        return AppendRejected(details.pop("code"), details.pop("message"), details)
    return AppendAccepted(result["tailOffset"], result["closed"], result.get("duplicate", False) is True)


def _service(name: str) -> Any:  # noqa: ANN401  a client of boto3
    import boto3  # noqa: PLC0415  a caller with a client of its own needs none

    create: Any = boto3.client
    return create(name)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
