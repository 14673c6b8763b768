"""The fan-out function: wiring, once per environment; what it does is in fluvial.aws.fanout_queue."""

import asyncio
import os
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from fluvial.app import build_function_store
from fluvial.aws.fanout_queue import QueuedDeliveries
from fluvial.aws.function_logs import function_logger
from fluvial.clock import Clock
from fluvial.fanout.change_feed_backlog import ChangeFeedBacklog
from fluvial.fanout.publisher import Publisher
from fluvial.settings import settings_from_environment

logger = function_logger("fanout")
clock = Clock()
store = build_function_store(settings_from_environment(os.environ), clock)
deliveries = QueuedDeliveries(store, Publisher(store, clock, ChangeFeedBacklog(store)))
runner = asyncio.Runner()  # the store's clients stay with one loop


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """Deliver each message's page of followers; the ids of those that must come again."""
    return runner.run(deliveries.handle(event))
