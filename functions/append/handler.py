"""The append function: wiring, once per environment. The work is in fluvial.aws.append_event."""

import asyncio
import os
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from fluvial.app import build_function_store, build_project_cache
from fluvial.aws.append_event import answer_append
from fluvial.aws.function_logs import function_logger
from fluvial.aws.function_metrics import FunctionMetrics
from fluvial.aws.snapshot import reseed_after_restore
from fluvial.clock import Clock
from fluvial.settings import settings_from_environment

reseed_after_restore()
logger, metrics = function_logger("append"), FunctionMetrics("append")
settings, clock = settings_from_environment(os.environ), Clock()
store = build_function_store(settings, clock, metrics.counters)
project_cache = build_project_cache(settings, store.projects, clock)
runner = asyncio.Runner()  # one loop for all invocations: the store belongs to it


@logger.inject_lambda_context(log_event=False)
@metrics.measure
def handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """Append what the event asks for; a rejection is a result, a fault raises."""
    return runner.run(answer_append(store, clock, project_cache, event, metrics.counters.on_append))
