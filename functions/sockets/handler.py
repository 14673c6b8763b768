"""The sockets function: wiring, once per environment; what it does is in fluvial.triggers.sockets."""

import asyncio
import os
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from fluvial.function_logs import function_logger
from fluvial.guarding import gate_of
from fluvial.opening import function_store
from fluvial.settings import settings_from_environment
from fluvial.triggers.sockets import Answer, Sockets
from fluvial.world import World

logger = function_logger("sockets")
world = World()
settings = settings_from_environment(os.environ)
store = function_store(settings, world)
sockets = Sockets(store, world, gate_of(settings, store.projects, world))
runner = asyncio.Runner()  # the store's clients stay with one loop


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], _context: LambdaContext) -> Answer:
    """Note a connection, forget one, or answer a ping."""
    return runner.run(sockets.handle(event))
