"""What other functions append with: a direct invocation of the append function, typed at both ends."""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any, Final, Protocol

import msgspec

from fluvial.model.errors import FluvialError
from fluvial.model.head import ProducerStamp

try:
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError:
    raise ImportError("fluvial.aws.append_client needs boto3: pip install 'fluvial[aws]'") from None

#: Longer than the append function may run, so that its answer is waited for.
READ_TIMEOUT_S: Final = 25


class LambdaClient(Protocol):
    """As much of boto3's Lambda client as is used."""

    def invoke(self, *, FunctionName: str, Payload: bytes) -> Any:  # noqa: ANN401, N803  boto3's own names
        """Invoke a function and wait for its answer."""
        ...


@dataclass(frozen=True, slots=True)
class AppendAccepted:
    """The payload is in the stream; `is_duplicate` when an earlier try of the same producer had put it there."""

    tail_offset: str
    closed: bool = False
    is_duplicate: bool = False


@dataclass(frozen=True, slots=True)
class AppendRejected:
    """Nothing was changed, and the same call would be refused again, e.g. with the code STREAM_CLOSED."""

    code: str
    message: str
    details: dict[str, str] = field(default_factory=dict)


class AppendFailedError(FluvialError):
    """The append function failed: whether the payload landed is not known; with a producer it is safe to call again."""


class AppendClient:
    """Appends to streams by invoking the append function."""

    def __init__(self, client: LambdaClient, function_name: str) -> None:
        """`client` must not try again by itself: see `lambda_client`."""
        self._client, self._function_name = client, function_name

    def append(  # noqa: PLR0913  one name for each thing that an append has
        self,
        stream: str,
        payload: bytes | str = b"",
        *,
        content_type: str | None = None,
        producer: ProducerStamp | None = None,
        stream_seq: str | None = None,
        close: bool = False,
        idempotency_key: str | None = None,
    ) -> AppendAccepted | AppendRejected:
        """Append a payload, close the stream, or both. Raises AppendFailedError."""
        event: dict[str, Any] = {"stream": stream, "close": close}
        if isinstance(payload, bytes) and payload:
            event["payloadBase64"] = b64encode(payload).decode()
        elif payload:
            event["payload"] = payload
        if producer is not None:
            event["producer"] = {"id": producer.producer_id, "epoch": producer.epoch, "seq": producer.seq}
        optional = {"contentType": content_type, "streamSeq": stream_seq, "idempotencyKey": idempotency_key}
        return self.ask({**event, **{name: value for name, value in optional.items() if value is not None}})

    def ask(self, event: Mapping[str, Any]) -> AppendAccepted | AppendRejected:
        """Invoke the function with an event as it is. Raises as `append` does."""
        payload = msgspec.json.encode(event)
        try:
            answer = self._client.invoke(FunctionName=self._function_name, Payload=payload)
        except (BotoCoreError, ClientError) as exc:
            raise AppendFailedError(f"{self._function_name} could not be invoked: {exc}") from exc
        body: IO[bytes] = answer["Payload"]
        if "FunctionError" in answer:
            raise AppendFailedError(f"{self._function_name} failed: {answer['FunctionError']}")
        return _answer(msgspec.json.decode(body.read()))


def _answer(answer: dict[str, Any]) -> AppendAccepted | AppendRejected:
    if "error" in answer:
        details = dict(answer["error"])
        return AppendRejected(details.pop("code"), details.pop("message"), details)
    return AppendAccepted(answer["tailOffset"], answer["closed"], answer.get("duplicate", False) is True)


def lambda_client() -> LambdaClient:
    """A Lambda client that waits long enough and never sends an append a second time."""
    import boto3  # noqa: PLC0415  whoever has a client already needs none
    from botocore.config import Config  # noqa: PLC0415

    config = Config(read_timeout=READ_TIMEOUT_S, retries={"mode": "standard", "total_max_attempts": 1})
    client: LambdaClient = boto3.client("lambda", config=config)
    return client
