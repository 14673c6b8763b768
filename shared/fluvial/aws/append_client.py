"""The client of the append function, for users' functions: typed arguments in, a typed result out."""

from base64 import b64encode
from collections.abc import Mapping
from typing import IO, Any, Final, Protocol

import msgspec

from fluvial.aws.append_message import (
    AppendAccepted,
    AppendEvent,
    AppendProducer,
    AppendRejected,
    AppendResult,
    decode_result,
)
from fluvial.model.errors import FluvialError
from fluvial.model.head import ProducerStamp

try:
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError:
    raise ImportError("fluvial.aws.append_client needs boto3: pip install 'fluvial[aws]'") from None

__all__ = ["AppendAccepted", "AppendClient", "AppendFailedError", "AppendRejected", "LambdaClient", "lambda_client"]

#: Longer than the append function's timeout, so that the client gets its result.
READ_TIMEOUT_S: Final = 25


class LambdaClient(Protocol):
    """The part of boto3's Lambda client that is used."""

    def invoke(self, *, FunctionName: str, Payload: bytes) -> Any:  # noqa: ANN401, N803  boto3's own names
        """Invoke a function and wait for its answer."""
        ...


class AppendFailedError(FluvialError):
    """The append function failed: the payload may be in the stream or not.

    With a producer or an idempotency key it is safe to call again.
    """


class AppendClient:
    """Appends to streams by invoking the append function."""

    def __init__(self, client: LambdaClient, function_name: str) -> None:
        """`client` must not retry by itself: see `lambda_client`."""
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
    ) -> AppendResult:
        """Append a payload, close the stream, or both. Raises AppendFailedError."""
        event = AppendEvent(
            stream=stream,
            close=close,
            payload=None if isinstance(payload, bytes) else payload or None,
            payload_base64=b64encode(payload).decode() if isinstance(payload, bytes) and payload else None,
            producer=None if producer is None else AppendProducer(producer.producer_id, producer.epoch, producer.seq),
            content_type=content_type,
            stream_seq=stream_seq,
            idempotency_key=idempotency_key,
        )
        return self.invoke(event)

    def invoke(self, event: AppendEvent | Mapping[str, Any]) -> AppendResult:
        """Invoke the function with an event; a mapping is sent unchecked. Raises AppendFailedError."""
        payload = msgspec.json.encode(event)
        try:
            answer = self._client.invoke(FunctionName=self._function_name, Payload=payload)
        except (BotoCoreError, ClientError) as exc:
            raise AppendFailedError(f"{self._function_name} could not be invoked: {exc}") from exc
        body: IO[bytes] = answer["Payload"]
        if "FunctionError" in answer:
            raise AppendFailedError(f"{self._function_name} failed: {answer['FunctionError']}")
        return decode_result(msgspec.json.decode(body.read()))


def lambda_client() -> LambdaClient:
    """A Lambda client that waits long enough and never sends an append a second time."""
    import boto3  # noqa: PLC0415  a caller with a client of its own needs none
    from botocore.config import Config  # noqa: PLC0415

    config = Config(read_timeout=READ_TIMEOUT_S, retries={"mode": "standard", "total_max_attempts": 1})
    client: LambdaClient = boto3.client("lambda", config=config)
    return client
