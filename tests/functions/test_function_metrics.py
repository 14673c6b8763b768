"""The metrics that a function logs after an event, by its own handler."""

import pytest

from tests.aws.test_function_metrics import CONTEXT, logged, values
from tests.functions.conftest import ImportHandler
from tests.functions.samples import event

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
