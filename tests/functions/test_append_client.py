"""What other functions append with, against the append function itself."""

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
    """Each tells where the stream ends."""
    added = client.append("demo", '"x"', content_type="application/json")
    assert added == AppendAccepted("1800000000000000_0000000000000008")
    added = client.append("bytes", b"\xff\x00", content_type="application/octet-stream")
    assert added == AppendAccepted("1800000000000000_0000000000000004")


def test_a_retry_is_a_duplicate(client: AppendClient) -> None:
    """A producer's batch lands once."""
    stamp = ProducerStamp("writer", 0, 0)
    first = client.append("demo", "7", content_type="application/json", producer=stamp)
    again = client.append("demo", "7", content_type="application/json", producer=stamp)
    assert isinstance(first, AppendAccepted)
    assert again == AppendAccepted(first.tail_offset, is_duplicate=True)


def test_a_refusal_is_a_value(client: AppendClient) -> None:
    """With its code, and what else there is to know."""
    assert client.append("demo", close=True) == AppendAccepted("1800000000000000_0000000000000004", closed=True)
    refused = client.append("demo", "7", content_type="application/json")
    assert isinstance(refused, AppendRejected)
    assert refused.code == "STREAM_CLOSED"
    assert refused.details == {"streamNextOffset": "1800000000000000_0000000000000004", "streamClosed": "true"}


def test_a_fault_raises(client: AppendClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that whoever invoked asynchronously tries again, and whoever did not knows."""

    async def failing(*_: object, **__: object) -> None:
        raise OSError("broken")

    service = client._client
    assert isinstance(service, LambdaService)
    monkeypatch.setattr(service.module.store, "apply", failing)
    with pytest.raises(AppendFailedError):
        client.append("demo", "7", content_type="application/json")
