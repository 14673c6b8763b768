"""The function, with a Lambda service that answers as the publish function does."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from fluvial.lambda_client import PublishClient


class Lambda:
    """Answers each event once with a success, and then as a duplicate."""

    def __init__(self) -> None:
        """`keys` are the idempotency keys that it has seen."""
        self.keys = list[str]()

    def invoke(self, *, FunctionName: str, Payload: bytes) -> dict[str, Any]:  # noqa: N803  boto3's own names
        """Publish."""
        event = json.loads(Payload)
        if FunctionName != "publish" or event["stream"] != "shop/orders/7":
            return answer({"error": {"code": "STREAM_NOT_FOUND", "message": "there is no stream at this path"}})
        self.keys.append(event["idempotencyKey"])
        is_again = len(self.keys) > 1
        return answer({"tailOffset": "1", "closed": False, **({"duplicate": True} if is_again else {})})


def answer(content: dict[str, Any]) -> dict[str, Any]:
    """A function's answer."""
    return {"StatusCode": 200, "Payload": io.BytesIO(json.dumps(content).encode())}


def test_order_is_published_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lambda may deliver an event twice."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "src")
    monkeypatch.setenv("PUBLISH_FUNCTION", "publish")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    sys.modules.pop("orders", None)
    import orders  # noqa: PLC0415  the environment comes first

    monkeypatch.setattr(orders, "streams", PublishClient("publish", Lambda()))
    event = json.loads((Path(__file__).parent / "events" / "paid.json").read_text())
    assert orders.handler(event, None) == {"published": True, "offset": "1", "again": False}
    assert orders.handler(event, None) == {"published": True, "offset": "1", "again": True}
    assert orders.handler({**event, "order": 8}, None) == {"published": False, "why": "STREAM_NOT_FOUND"}
