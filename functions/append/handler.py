"""The append function: wiring, once per environment; what it does is in fluvial.transports.direct."""

import asyncio
import os
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from fluvial.function_logs import function_logger
from fluvial.opening import directory_of, function_store
from fluvial.settings import settings_from_environment
from fluvial.transports.direct import Answer, answer_append
from fluvial.world import World

logger = function_logger("append")
world = World()
settings = settings_from_environment(os.environ)
store = function_store(settings, world)
directory = directory_of(settings, store.projects, world)
runner = asyncio.Runner()  # the store's clients stay with one loop


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], _context: LambdaContext) -> Answer:
    """Append what the event asks for; a refusal is an answer, a fault raises."""
    return runner.run(answer_append(store, world, directory, event))
