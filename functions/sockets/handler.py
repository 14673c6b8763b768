"""The sockets function: wiring, once per environment. The work is in fluvial.aws.websocket_api."""

import asyncio
import os
from typing import Any

from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.utilities.typing import LambdaContext

from fluvial.app import build_authorizer, build_function_store
from fluvial.aws.function_logs import function_logger
from fluvial.aws.function_metrics import FunctionMetrics
from fluvial.aws.snapshot import reseed_after_restore
from fluvial.aws.websocket_api import WebSocketApi
from fluvial.clock import Clock
from fluvial.settings import settings_from_environment

reseed_after_restore()
logger, metrics = function_logger("sockets"), FunctionMetrics("sockets")
settings, clock = settings_from_environment(os.environ), Clock()
store = build_function_store(settings, clock, metrics.counters)
sockets = WebSocketApi(store, clock, build_authorizer(settings, store.projects, clock))
runner = asyncio.Runner()  # one loop for all invocations: the store belongs to it


# A WebSocket event has its request's id where a REST event has it.
@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_REST, log_event=False)
@metrics.measure
def handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """Add a connection, remove one, or answer a ping."""
    return runner.run(sockets.handle(event))
