"""The fan-out function: wiring, once per environment; what it does is in fluvial.triggers.fanout_queue."""

import asyncio
import os
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from fluvial.fanout.feed import FeedBacklog
from fluvial.fanout.publishing import Publisher
from fluvial.function_logs import function_logger
from fluvial.opening import function_store
from fluvial.settings import settings_from_environment
from fluvial.triggers.fanout_queue import QueuedDeliveries
from fluvial.world import World

logger = function_logger("fanout")
world = World()
store = function_store(settings_from_environment(os.environ), world)
deliveries = QueuedDeliveries(store, Publisher(store, world, FeedBacklog(store)))
runner = asyncio.Runner()  # the store's clients stay with one loop


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """Deliver each message's page of followers; the ids of those that must come again."""
    return runner.run(deliveries.handle(event))
