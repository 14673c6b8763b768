"""The subscription function: wiring, once per environment; what it does is in fluvial.triggers.subscription."""

import asyncio
import os
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from fluvial.append_client import AppendClient, lambda_client
from fluvial.fanout.feed import FeedBacklog
from fluvial.fanout.publishing import Publisher
from fluvial.function_logs import function_logger
from fluvial.opening import function_store
from fluvial.settings import settings_from_environment
from fluvial.triggers.subscription import Answer, Subscriptions
from fluvial.world import World

logger = function_logger("subscription")
world = World()
store = function_store(settings_from_environment(os.environ), world)
publisher = Publisher(store, world, FeedBacklog(store))
appender = AppendClient(lambda_client(), os.environ["FLUVIAL_APPEND_FUNCTION"])
subscriptions = Subscriptions(store, publisher, appender)
runner = asyncio.Runner()  # the store's clients stay with one loop


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], _context: LambdaContext) -> Answer:
    """Publish what the event asks for."""
    return runner.run(subscriptions.handle(event))
