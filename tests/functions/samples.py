"""The functions' responses to the sample events."""

import json
from pathlib import Path
from typing import Any

from fluvial.aws.subscription import PublishRejectedError
from tests.support.clocks import START_MS

_NEWS = {"count": 1, "successes": 1, "failures": 0, "mode": "inline"}


def event(name: str) -> dict[str, Any]:
    """A sample event."""
    path = Path(__file__).parents[2] / "events" / f"{name}.json"
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def offset(position: int) -> str:
    """An offset token."""
    return f"{START_MS * 1_000}_{position:016d}"


def _failed(*numbers: int) -> dict[str, Any]:
    return {
        "batchItemFailures": [{"itemIdentifier": f"059f36b4-87a3-44ab-83d2-66197{number:07d}"} for number in numbers]
    }


#: What the subscription function returns or raises, and the messages that a follower of its stream has then.
PUBLISHED: dict[str, tuple[dict[str, Any] | type[Exception], list[Any]]] = {
    "direct": (
        {"tailOffset": offset(16), "closed": False, "fanout": _NEWS},
        [{"say": "hello"}],
    ),
    "direct_missing_stream": (
        {"error": {"code": "STREAM_NOT_FOUND", "message": "there is no stream at this path"}},
        [],
    ),
    "eventbridge": ({}, [{"order": 7}]),
    "eventbridge_refused": (PublishRejectedError, []),
    "sqs": (_failed(), [1, 2]),
    "sqs_of_sns": (_failed(), ["from SNS"]),
    "sqs_partial": (_failed(4), [5]),
    "sqs_fifo": (_failed(6, 7), [8]),
    "sns": ({}, ["from SNS"]),
}

#: The messages that the fan-out function could not deliver.
FANNED_OUT: dict[str, list[str]] = {"sqs": ["059f36b4-87a3-44ab-83d2-661970000010"]}

#: The status that the sockets function returns to API Gateway.
SOCKETS = {"connect": 200, "connect_missing_stream": 404, "disconnect": 200, "ping": 200}

#: Whether the sweep function's event asks for a dry run.
SWEPT = {"scheduled": False, "dry_run": True}

#: The events of the concurrency function, whose tests are in tests/aws.
CONCURRENCY = ("scheduled",)

CHANGES = ("appended", "ended", "other_items", "connected")
