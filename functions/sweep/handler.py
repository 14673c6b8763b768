"""The sweep function: wiring, once per environment. The work is in fluvial.aws.sweep_job."""

import asyncio
import os
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from fluvial.app import build_function_store
from fluvial.aws.function_logs import function_logger
from fluvial.aws.sweep_job import Report, sweep
from fluvial.clock import Clock
from fluvial.settings import settings_from_environment

logger = function_logger("sweep")
settings, clock = settings_from_environment(os.environ), Clock()
store = build_function_store(settings, clock)
runner = asyncio.Runner()  # one loop for all invocations: the store belongs to it


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> Report:
    """Sweep while there is time; the report, which is also logged."""
    report = runner.run(sweep(store, event, context.get_remaining_time_in_millis))
    logger.info("swept", extra=report)
    return report
