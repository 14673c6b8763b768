"""The sweep function: wiring, once per environment; what it does is in fluvial.triggers.sweeping."""

import asyncio
import os
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from fluvial.function_logs import function_logger
from fluvial.opening import function_store
from fluvial.settings import settings_from_environment
from fluvial.triggers.sweeping import Report, sweep
from fluvial.world import World

logger = function_logger("sweep")
store = function_store(settings_from_environment(os.environ), World())
runner = asyncio.Runner()  # the store's clients stay with one loop


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> Report:
    """Sweep while there is time; the report is logged, too."""
    report = runner.run(sweep(store, event, context.get_remaining_time_in_millis))
    logger.info("swept", extra=report)
    return report
