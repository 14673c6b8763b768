"""The functions' metrics: the growth of the counters after each event, with the stack as a dimension."""

import json
import logging
from typing import Any

import pytest

from fluvial.aws.function_metrics import FunctionMetrics
from fluvial.aws.web_adapter import REQUEST_IDS, WebAdapterRequests
from fluvial.metrics.log_events import LogEvents
from fluvial.storage.observer import AwsOutcome
from tests.aws_local.environments import Context

CONTEXT = Context("append", "request")


@pytest.fixture(autouse=True)
def stack(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stack's name, as the template sets it."""
    monkeypatch.setenv("FLUVIAL_STACK", "shop")


def logged(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The lines of the embedded metric format that were logged since the last call."""
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    return [line for line in lines if "_aws" in line]


def values(line: dict[str, Any]) -> dict[str, float]:
    """The values of a line's metrics."""
    [metrics] = line["_aws"]["CloudWatchMetrics"]
    return {one["Name"]: sum(line[one["Name"]]) for one in metrics["Metrics"]}


def test_growth_of_the_counters_is_logged_after_each_event(capsys: pytest.CaptureFixture[str]) -> None:
    """Counters go on from event to event; CloudWatch adds what it is sent."""
    metrics = FunctionMetrics("append", log_events=LogEvents())

    @metrics.measure
    def handler(event: dict[str, Any], _context: object) -> None:
        for size in event["sizes"]:
            metrics.counters.on_append(size)
        metrics.counters.on_units("update_item", 1.5)
        metrics.counters.on_units("query", 0.5)
        metrics.counters.on_aws_request("update_item", AwsOutcome.BUSY)

    handler({"sizes": [10, 20]}, CONTEXT)
    handler({"sizes": [5]}, CONTEXT)
    first, second = logged(capsys)
    expected = {"Appends": 2, "AppendedBytes": 30, "WriteUnits": 1.5, "ReadUnits": 0.5, "BusyTries": 1}
    assert values(first) == expected
    assert values(second) == {**expected, "Appends": 1, "AppendedBytes": 5}
    assert {"stack", "service"} == set(first["_aws"]["CloudWatchMetrics"][0]["Dimensions"][0])
    assert (first["stack"], first["service"]) == ("shop", "append")
    assert first["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "Fluvial"


def test_event_that_counts_nothing_logs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Each line costs, and so does each metric for each hour in which it comes."""
    metrics = FunctionMetrics("sockets", log_events=LogEvents())
    metrics.measure(lambda _event, _context: None)({}, CONTEXT)
    assert logged(capsys) == []


def test_exception_is_a_fault(capsys: pytest.CaptureFixture[str]) -> None:
    """It is raised as well, because Lambda repeats what has failed."""
    metrics = FunctionMetrics("fanout", log_events=LogEvents())

    def fail(_event: dict[str, Any], _context: object) -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        metrics.measure(fail)({}, CONTEXT)
    assert [values(line) for line in logged(capsys)] == [{"Faults": 1}]


def test_answer_with_500_is_a_fault_and_other_answers_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    """The function returns in each case, so Lambda itself counts no error."""
    metrics = FunctionMetrics("edge", log_events=LogEvents())

    @metrics.measure
    def handler(event: dict[str, Any], _context: object) -> None:
        metrics.counters.on_request("/v1/stream/{stream:path}", "POST", event["status"], 0.01)

    for status in (204, 404, 500, 503):
        handler({"status": status}, CONTEXT)
    expected = [{"Http2xx": 1}, {"Http4xx": 1}, {"Http5xx": 1, "Faults": 1}, {"Http5xx": 1}]
    assert [values(line) for line in logged(capsys)] == expected


def test_log_lines_are_counted_by_level_except_those_that_clients_cause(capsys: pytest.CaptureFixture[str]) -> None:
    """A failure in the background answers no request; an alarm looks at these counts."""
    events = LogEvents()
    metrics = FunctionMetrics("changes", log_events=events)

    @metrics.measure
    def handler(_event: dict[str, Any], _context: object) -> None:
        for name, level in (
            ("write_in_doubt", logging.ERROR),
            ("spill_failed", logging.WARNING),
            ("origin_refused", logging.WARNING),
            ("message_not_published", logging.WARNING),
            ("message_not_published", logging.ERROR),  # an unforeseen one
            ("swept", logging.INFO),
        ):
            events.handle(logging.LogRecord("fluvial.x", level, "x.py", 1, name, None, None))

    handler({}, CONTEXT)
    assert [values(line) for line in logged(capsys)] == [{"LoggedErrors": 2, "LoggedWarnings": 1}]


def test_live_function_logs_metrics_and_ids_of_each_request(capsys: pytest.CaptureFixture[str]) -> None:
    """The adapter sends both ids; one that is no JSON is ignored, and the next request's ids replace them."""
    metrics = FunctionMetrics("live", log_events=LogEvents())
    requests = WebAdapterRequests(metrics)
    headers = [
        (b"x-amzn-request-context", b'{"requestId":"of-the-gateway","stage":"live"}'),
        (b"x-amzn-lambda-context", b'{"request_id":"of-lambda","env_config":{}}'),
    ]
    requests.begin({"type": "http", "headers": headers})
    assert REQUEST_IDS == {"correlation_id": "of-the-gateway", "function_request_id": "of-lambda"}
    metrics.counters.on_live_request("/v1/stream/{stream:path}", "GET", 200)
    requests.end()
    assert [values(line) for line in logged(capsys)] == [{"Http2xx": 1}]
    requests.begin({"type": "http", "headers": [(b"x-amzn-request-context", b"boom")]})
    assert REQUEST_IDS == {}
