"""The sockets function: wiring, once per environment; what it does is in fluvial.aws.websocket_api."""

import asyncio
import os
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from fluvial.app import build_authorizer, build_function_store
from fluvial.aws.function_logs import function_logger
from fluvial.aws.websocket_api import Answer, WebSocketApi
from fluvial.clock import Clock
from fluvial.settings import settings_from_environment

logger = function_logger("sockets")
clock = Clock()
settings = settings_from_environment(os.environ)
store = build_function_store(settings, clock)
sockets = WebSocketApi(store, clock, build_authorizer(settings, store.projects, clock))
runner = asyncio.Runner()  # the store's clients stay with one loop


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], _context: LambdaContext) -> Answer:
    """Note a connection, forget one, or answer a ping."""
    return runner.run(sockets.handle(event))
