"""What other functions append with, against the append function itself."""

import io
import json
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

from fluvial.append_client import AppendClient, AppendFailedError, DirectlyAppended, DirectlyRefused
from fluvial.core.head import ProducerStamp
from tests.aws_local.api_gateway import Context
from tests.functions.conftest import ImportHandler


@dataclass
class LambdaService:
    """Lambda's side of an invocation: JSON in, JSON out, a fault told beside the payload."""

    module: ModuleType

    def invoke(self, *, FunctionName: str, Payload: bytes) -> dict[str, Any]:  # noqa: N803  boto3's own names
        """Invoke the function."""
        try:
            answer = self.module.handler(json.loads(Payload), Context(FunctionName, "request"))
        except Exception as exc:  # noqa: BLE001  as Lambda does
            error = {"errorMessage": str(exc), "errorType": type(exc).__name__}
            return {"FunctionError": "Unhandled", "Payload": io.BytesIO(json.dumps(error).encode())}
        return {"StatusCode": 200, "Payload": io.BytesIO(json.dumps(answer).encode())}


@pytest.fixture
def client(import_handler: ImportHandler) -> AppendClient:
    """A client of the append function."""
    return AppendClient(LambdaService(import_handler("append")), "append")


def test_text_and_bytes_are_appended(client: AppendClient) -> None:
    """Each tells where the stream ends."""
    added = client.append("demo", '"x"', content_type="application/json")
    assert added == DirectlyAppended("0000000000000000_0000000000000008")
    added = client.append("bytes", b"\xff\x00", content_type="application/octet-stream")
    assert added == DirectlyAppended("0000000000000000_0000000000000004")


def test_a_retry_is_a_duplicate(client: AppendClient) -> None:
    """A producer's batch lands once."""
    stamp = ProducerStamp("writer", 0, 0)
    first = client.append("demo", "7", content_type="application/json", producer=stamp)
    again = client.append("demo", "7", content_type="application/json", producer=stamp)
    assert isinstance(first, DirectlyAppended)
    assert again == DirectlyAppended(first.tail_offset, is_duplicate=True)


def test_a_refusal_is_a_value(client: AppendClient) -> None:
    """With its code, and what else there is to know."""
    assert client.append("demo", close=True) == DirectlyAppended("0000000000000000_0000000000000004", closed=True)
    refused = client.append("demo", "7", content_type="application/json")
    assert isinstance(refused, DirectlyRefused)
    assert refused.code == "STREAM_CLOSED"
    assert refused.details == {"streamNextOffset": "0000000000000000_0000000000000004", "streamClosed": "true"}


def test_a_fault_raises(client: AppendClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that whoever invoked asynchronously tries again, and whoever did not knows."""

    async def failing(*_: object, **__: object) -> None:
        raise OSError("broken")

    service = client._client
    assert isinstance(service, LambdaService)
    monkeypatch.setattr(service.module.store, "apply", failing)
    with pytest.raises(AppendFailedError):
        client.append("demo", "7", content_type="application/json")
