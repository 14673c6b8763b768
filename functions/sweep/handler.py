"""The sweep function: wiring, once per environment. The work is in fluvial.aws.sweep_job."""

import asyncio
import os
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from fluvial.app import build_function_store
from fluvial.aws.function_logs import function_logger
from fluvial.aws.function_metrics import FunctionMetrics
from fluvial.aws.sweep_job import Report, left_something, sweep
from fluvial.clock import Clock
from fluvial.settings import settings_from_environment

logger, metrics = function_logger("sweep"), FunctionMetrics("sweep")
settings, clock = settings_from_environment(os.environ), Clock()
store = build_function_store(settings, clock, metrics.counters)
runner = asyncio.Runner()  # one loop for all invocations: the store belongs to it


@logger.inject_lambda_context(log_event=False)
@metrics.measure
def handler(event: dict[str, Any], context: LambdaContext) -> Report:
    """Sweep while there is time; the report, which is also logged."""
    report = runner.run(sweep(store, event, context.get_remaining_time_in_millis))
    logger.info("swept", extra=report)
    if not report["dryRun"]:
        metrics.observe("SweepIncomplete", int(left_something(report)))
    if report["isWhole"]:  # otherwise the count is of a part of the table
        metrics.observe("OpenSockets", report["connections"])
    return report
