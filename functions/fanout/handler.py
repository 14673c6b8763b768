"""The fan-out function: wiring, once per environment. The work is in fluvial.aws.fanout_queue."""

import asyncio
import os
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from fluvial.app import build_function_store
from fluvial.aws.fanout_queue import FanOutConsumer
from fluvial.aws.function_logs import function_logger
from fluvial.clock import Clock
from fluvial.fanout.deliveries import Deliveries
from fluvial.settings import settings_from_environment

logger = function_logger("fanout")
settings, clock = settings_from_environment(os.environ), Clock()
store = build_function_store(settings, clock)
consumer = FanOutConsumer(store, Deliveries(store, clock))
runner = asyncio.Runner()  # one loop for all invocations: the store belongs to it


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """Deliver to each message's followers; the ids of failed messages."""
    return runner.run(consumer.handle(event))
