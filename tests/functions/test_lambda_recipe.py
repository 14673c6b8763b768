"""The recipe of a function that reports to a page (examples/lambda-to-browser)."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from fluvial.lambda_client import AppendAccepted, AppendClient
from tests.functions.conftest import ImportHandler
from tests.support.lambda_service import LambdaService
from tests.support.rigs import REGION, DynamoDbRig
from tests.support.servers import running_server

EXAMPLE = Path(__file__).parents[2] / "examples" / "lambda-to-browser" / "handler.py"

pytestmark = pytest.mark.slow


def load_example() -> ModuleType:
    """The example's module."""
    spec = importlib.util.spec_from_file_location("lambda_to_browser", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_reports_of_a_repeated_invocation_reach_the_reader_once(
    import_handler: ImportHandler, rig: DynamoDbRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The function appends through the append function, and a server over the same table sends events."""
    monkeypatch.setenv("APPEND_FUNCTION", "append")
    example = load_example()
    client = AppendClient("append", LambdaService(import_handler("append")))
    environment = {
        "AWS_DEFAULT_REGION": REGION,
        "FLUVIAL_SSE_MAX_AGE": "60",  # the fixture has set a shorter one for functions
        "FLUVIAL_STORE": "dynamodb",
        "FLUVIAL_READ_ONLY": "true",
        "FLUVIAL_TABLE": rig.config.table,
        "FLUVIAL_BUCKET": rig.config.bucket,
        "FLUVIAL_ENDPOINT_URL": rig.config.endpoints.dynamodb or "",
    }
    with (
        running_server(tmp_path / "data", **environment) as server,
        httpx.stream("GET", f"{server.url}/v1/stream/demo?offset=now&live=sse", timeout=30) as events,
    ):
        lines = events.iter_lines()
        next(line for line in lines if line == "event: control")
        for _ in range(2):  # as Lambda does when the first invocation has failed after its reports
            example.report(client, "demo", "request-1")
        done = client.append_json("demo", {"say": "done"})
        assert isinstance(done, AppendAccepted)
        said = list[str]()
        while "done" not in said:
            payload = json.loads(next(line for line in lines if line.startswith("data:[")).removeprefix("data:"))
            said += [message["say"] for message in payload]
    assert said == [*example.STEPS, "done"]
