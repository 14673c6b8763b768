"""Partial batch responses: a function returns the ids of the failed records, and only those are sent to it again.

https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html (SQS: each failed message comes again) and
https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-batchfailurereporting.html (a stream: every record from the
first failed one on comes again)
"""

from collections.abc import Iterable
from typing import Any


def partial_batch_response(failed_ids: Iterable[str]) -> dict[str, Any]:
    """The response to an event source that has ReportBatchItemFailures."""
    return {"batchItemFailures": [{"itemIdentifier": failed_id} for failed_id in failed_ids]}
