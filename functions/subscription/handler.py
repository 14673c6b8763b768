"""The subscription function: wiring, once per environment. The work is in fluvial.aws.subscription."""

import asyncio
import os
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from fluvial.app import build_function_store
from fluvial.aws.function_logs import function_logger
from fluvial.aws.subscription import SubscriptionFunction
from fluvial.clock import Clock
from fluvial.fanout.change_feed_backlog import ChangeFeedBacklog
from fluvial.fanout.deliveries import Deliveries
from fluvial.fanout.publisher import Publisher
from fluvial.lambda_client import AppendClient
from fluvial.settings import settings_from_environment

logger = function_logger("subscription")
settings, clock = settings_from_environment(os.environ), Clock()
store = build_function_store(settings, clock)
publisher = Publisher(store, Deliveries(store, clock), ChangeFeedBacklog(store))
appender = AppendClient(os.environ["FLUVIAL_APPEND_FUNCTION"])
subscriptions = SubscriptionFunction(store, publisher, appender)
runner = asyncio.Runner()  # one loop for all invocations: the store belongs to it


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """Publish what the event asks for."""
    return runner.run(subscriptions.handle(event))
