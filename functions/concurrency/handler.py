"""The concurrency function: wiring, once per environment. The work is in fluvial.aws.reader_concurrency."""

import os
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from fluvial.aws.function_logs import function_logger
from fluvial.aws.function_metrics import FunctionMetrics
from fluvial.aws.reader_concurrency import Reservation, account_client, answer_reservation

logger, metrics = function_logger("concurrency"), FunctionMetrics("concurrency")
live_function, reservation = os.environ["FLUVIAL_LIVE_FUNCTION"], Reservation(os.environ["FLUVIAL_RESERVATION"])
client = account_client()


@logger.inject_lambda_context(log_event=False)
@metrics.measure
def handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """Reserve concurrency for the live function, or none; what was decided."""
    return answer_reservation(client, live_function, reservation, event)
