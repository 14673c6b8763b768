"""The changes function: wiring, once per environment. The work is in fluvial.aws.change_feed."""

import asyncio
import os
from typing import Any

from aws_lambda_powertools.utilities.batch import EventType
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.typing import LambdaContext

from fluvial.app import build_function_store, build_project_cache
from fluvial.aws.change_feed import ChangeBatch, ChangeFeed
from fluvial.aws.fanout_queue import FanOutQueue, sqs_client
from fluvial.aws.function_logs import function_logger
from fluvial.aws.function_metrics import FunctionMetrics
from fluvial.aws.partial_batch import batch_processor, process_batch
from fluvial.aws.websocket_broadcast import Broadcaster, connections_client
from fluvial.clock import Clock
from fluvial.fanout.deliveries import Deliveries
from fluvial.settings import settings_from_environment

logger, metrics = function_logger("changes"), FunctionMetrics("changes")
settings, clock = settings_from_environment(os.environ), Clock()
store = build_function_store(settings, clock, metrics.counters)
project_cache = build_project_cache(settings, store.projects, clock)
client = connections_client(os.environ["FLUVIAL_CONNECTIONS_URL"])
broadcaster = Broadcaster(store, clock, client, project_cache=project_cache, observer=metrics)
queue = FanOutQueue(sqs_client(), os.environ["FLUVIAL_FANOUT_QUEUE_URL"])
feed = ChangeFeed(store, Deliveries(store, clock), queue, broadcaster, metrics)
processor = batch_processor(EventType.DynamoDBStreams)
runner = asyncio.Runner()  # one loop for all invocations: the store belongs to it


@logger.inject_lambda_context(log_event=False)
@metrics.measure
def handler(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    """Take the steps that follow the changes; the ids of failed records."""
    return process_batch(runner, processor, event, ChangeBatch(feed, event).process_record, context)
