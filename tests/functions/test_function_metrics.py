"""The metrics that a function logs after an event, by its own handler."""

import boto3
import pytest

from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.format import FORMAT
from tests.aws.test_function_metrics import CONTEXT, logged, values
from tests.functions.conftest import ImportHandler
from tests.functions.samples import event
from tests.support.rigs import DynamoDbRig

pytestmark = pytest.mark.medium


def test_append_function_logs_its_append_and_its_units(
    import_handler: ImportHandler, capsys: pytest.CaptureFixture[str]
) -> None:
    """The store's requests are counted by the same counters; a rejected append is none."""
    handler = import_handler("append").handler
    handler(event("append_json_text"), CONTEXT)
    [line] = logged(capsys)
    found = values(line)
    assert (found["Appends"], found["AppendedBytes"]) == (1, len('{"say":"hello"},'))
    assert found["WriteUnits"] >= 1
    handler(event("append_missing_stream"), CONTEXT)
    assert all("Appends" not in values(line) for line in logged(capsys))


def test_sweep_function_says_whether_it_left_something(
    import_handler: ImportHandler, rig: DynamoDbRig, capsys: pytest.CaptureFixture[str]
) -> None:
    """An item that cannot be swept keeps the alarm up, as a sweep without time does; a dry run says nothing of it."""
    handler = import_handler("sweep").handler
    handler(event("sweep_scheduled"), CONTEXT)
    assert values(logged(capsys)[-1])["SweepIncomplete"] == 0
    newer = {a.PK: {"S": "S#newer"}, a.SK: {"S": a.HEAD_SK}, a.FORMAT: {"N": str(FORMAT + 1)}}
    table = boto3.client("dynamodb", endpoint_url=rig.config.endpoints.dynamodb)
    table.put_item(TableName=rig.config.table, Item=newer)
    handler(event("sweep_scheduled"), CONTEXT)
    assert values(logged(capsys)[-1])["SweepIncomplete"] == 1
    handler({"dryRun": True}, CONTEXT)
    assert all("SweepIncomplete" not in values(line) for line in logged(capsys))
