"""The append function: wiring, once per environment; what it does is in fluvial.aws.append_event."""

import asyncio
import os
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from fluvial.app import build_function_store, build_project_cache
from fluvial.aws.append_event import Answer, answer_append
from fluvial.aws.function_logs import function_logger
from fluvial.clock import Clock
from fluvial.settings import settings_from_environment

logger = function_logger("append")
clock = Clock()
settings = settings_from_environment(os.environ)
store = build_function_store(settings, clock)
project_cache = build_project_cache(settings, store.projects, clock)
runner = asyncio.Runner()  # the store's clients stay with one loop


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], _context: LambdaContext) -> Answer:
    """Append what the event asks for; a refusal is an answer, a fault raises."""
    return runner.run(answer_append(store, clock, project_cache, event))
