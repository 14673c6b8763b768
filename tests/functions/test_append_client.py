"""The append client, against the append function itself."""

import subprocess
import sys
from typing import Any

import pytest

from fluvial.aws.append_client import AppendAccepted, AppendClient, AppendFailedError, AppendRejected
from fluvial.model.head import ProducerStamp
from tests.functions.conftest import ImportHandler
from tests.support.lambda_service import LambdaService

pytestmark = pytest.mark.medium


@pytest.fixture
def client(import_handler: ImportHandler) -> AppendClient:
    """A client of the append function."""
    return AppendClient(LambdaService(import_handler("append")), "append")


def test_text_and_bytes_are_appended(client: AppendClient) -> None:
    """The result has the stream's tail."""
    added = client.append("demo", '"x"', content_type="application/json")
    assert added == AppendAccepted("1800000000000000_0000000000000008")
    added = client.append("bytes", b"\xff\x00", content_type="application/octet-stream")
    assert added == AppendAccepted("1800000000000000_0000000000000004")


def test_producers_retry_is_a_duplicate(client: AppendClient) -> None:
    """A producer's batch is appended once."""
    stamp = ProducerStamp("writer", 0, 0)
    first = client.append("demo", "7", content_type="application/json", producer=stamp)
    again = client.append("demo", "7", content_type="application/json", producer=stamp)
    assert isinstance(first, AppendAccepted)
    assert again == AppendAccepted(first.tail_offset, is_duplicate=True)


def test_rejection_is_a_result(client: AppendClient) -> None:
    """It has a code and details."""
    assert client.append("demo", close=True) == AppendAccepted("1800000000000000_0000000000000004", closed=True)
    rejected = client.append("demo", "7", content_type="application/json")
    assert isinstance(rejected, AppendRejected)
    assert rejected.code == "STREAM_CLOSED"
    assert rejected.details == {"streamNextOffset": "1800000000000000_0000000000000004", "streamClosed": "true"}


def test_fault_of_the_append_function_raises(client: AppendClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lambda repeats an asynchronous invocation; a synchronous caller learns of the fault."""

    async def fail(*_: object, **__: object) -> None:
        raise OSError("broken")

    service = client._client
    assert isinstance(service, LambdaService)
    monkeypatch.setattr(service.module.store, "apply", fail)
    with pytest.raises(AppendFailedError):
        client.append("demo", "7", content_type="application/json")


class RecordingClient:
    """A Lambda client that keeps the payload that it is sent."""

    def __init__(self) -> None:
        """`payload` is empty until an event is sent."""
        self.payload = b""

    def invoke(self, *, FunctionName: str, Payload: bytes) -> dict[str, object]:  # noqa: N803  boto3's own names
        """Take an event; the function fails."""
        self.payload = Payload
        return {"FunctionError": FunctionName, "Payload": None}


STAMP = ProducerStamp("writer", 1, 2)

#: The client's arguments, and the event that it sends.
ENCODED: list[tuple[dict[str, Any], str]] = [
    ({}, '{"stream":"s","close":false}'),
    ({"payload": "", "close": True}, '{"stream":"s","close":true}'),
    (
        {"payload": "é", "content_type": "text/plain"},
        '{"stream":"s","close":false,"payload":"é","contentType":"text/plain"}',
    ),
    (
        {"payload": b"\xff", "idempotency_key": "k"},
        '{"stream":"s","close":false,"payloadBase64":"/w==","idempotencyKey":"k"}',
    ),
    (
        {"payload": "x", "producer": STAMP, "stream_seq": "7"},
        '{"stream":"s","close":false,"payload":"x","producer":{"id":"writer","epoch":1,"seq":2},"streamSeq":"7"}',
    ),
]


@pytest.mark.parametrize(("arguments", "event"), ENCODED)
def test_client_sends_an_append_as_json(arguments: dict[str, Any], event: str) -> None:
    """Fields without a value are left out; `close` is always there."""
    service = RecordingClient()
    with pytest.raises(AppendFailedError):
        AppendClient(service, "append").append("s", **arguments)
    assert service.payload.decode() == event


def test_client_imports_no_packages_but_boto3_and_msgspec() -> None:
    """It is imported by users' functions, for which an import is time at each cold start."""
    code = "import sys, botocore.exceptions, msgspec; before = set(sys.modules); import fluvial.aws.append_client; "
    code += "print(*{name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["fluvial"]
