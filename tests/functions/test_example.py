"""The example application's function, against the publish function itself."""

import importlib
import json
from pathlib import Path

import pytest

from fluvial.lambda_client import PublishClient
from fluvial.model.names import StreamName
from tests.functions.conftest import ImportHandler
from tests.support.commands import create_commit
from tests.support.lambda_service import LambdaService

pytestmark = pytest.mark.medium

EXAMPLE = Path(__file__).parents[2] / "examples" / "lambda-publisher"


def test_examples_function_publishes_once(import_handler: ImportHandler, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that is not there is rejected."""
    publish = import_handler("subscription")
    publish.appender._client = LambdaService(import_handler("append"))
    monkeypatch.setenv("PUBLISH_FUNCTION", "publish")
    monkeypatch.syspath_prepend(EXAMPLE / "src")
    orders = importlib.import_module("orders")
    monkeypatch.setattr(orders, "streams", PublishClient("publish", LambdaService(publish)))
    event = json.loads((EXAMPLE / "events" / "paid.json").read_text())
    assert orders.handler(event, None) == {"published": False, "why": "STREAM_NOT_FOUND"}
    store, runner = publish.store, publish.runner
    made = create_commit(incarnation=9, content_type="application/json")
    runner.run(store.apply(StreamName("shop/orders/7"), made))
    first, again = (orders.handler(event, None) for _ in range(2))
    assert (first["published"], first["again"], again["again"]) == (True, False, True)
    assert first["offset"] == again["offset"]
