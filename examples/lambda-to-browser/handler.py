"""A function that reports its progress to a stream, which a page follows.

Lambda repeats an asynchronous invocation that failed, with the same request id. So the id and the step's number are the
key of each report, and a report that landed before the failure does not come again.
"""

import os
from typing import Any, Final

from fluvial.lambda_client import AppendClient, AppendRejected

STEPS: Final = ("reads the order", "charges the card", "sends the parcel")

streams = AppendClient(os.environ["APPEND_FUNCTION"])  # once in each environment


def report(streams: AppendClient, stream: str, request_id: str) -> None:
    """Do each step, and say so."""
    for number, step in enumerate(STEPS):
        answer = streams.append_json(stream, {"say": step}, idempotency_key=f"{request_id}-{number}")
        match answer:
            case AppendRejected(code=code):
                raise RuntimeError(f"{stream}: {code}")
            case _:
                pass


def handler(event: dict[str, Any], context: Any) -> None:  # noqa: ANN401  Lambda's own object
    """`event` names the stream, which exists."""
    report(streams, event["stream"], context.aws_request_id)
