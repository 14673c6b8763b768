"""A function that reports its progress to a stream, which a page follows.

Lambda repeats an asynchronous invocation that failed, with the same request id. So the id and the step's number are the
key of each report, and a report that landed before the failure does not come again.
"""

import json
import os
from typing import Any, Final

from fluvial.aws.append_client import AppendClient, AppendRejected, lambda_client

STEPS: Final = ("reads the order", "charges the card", "sends the parcel")


def report(streams: AppendClient, stream: str, request_id: str) -> None:
    """Do each step, and say so."""
    for number, step in enumerate(STEPS):
        answer = streams.append(
            stream,
            json.dumps({"say": step}),
            content_type="application/json",
            idempotency_key=f"{request_id}-{number}",
        )
        match answer:
            case AppendRejected(code=code):
                raise RuntimeError(f"{stream}: {code}")
            case _:
                pass


def handler(event: dict[str, Any], context: Any) -> None:  # noqa: ANN401  Lambda's own object
    """`event` names the stream, which exists."""
    report(AppendClient(lambda_client(), os.environ["APPEND_FUNCTION"]), event["stream"], context.aws_request_id)
