"""The fan-out function: wiring, once per environment. The work is in fluvial.aws.fanout_queue."""

import asyncio
import os
from typing import Any

from aws_lambda_powertools.utilities.batch import EventType
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.typing import LambdaContext

from fluvial.app import build_function_store
from fluvial.aws.fanout_queue import FanOutConsumer
from fluvial.aws.function_logs import function_logger
from fluvial.aws.function_metrics import FunctionMetrics
from fluvial.aws.partial_batch import batch_processor, process_batch
from fluvial.clock import Clock
from fluvial.fanout.deliveries import Deliveries
from fluvial.settings import settings_from_environment

logger, metrics = function_logger("fanout"), FunctionMetrics("fanout")
settings, clock = settings_from_environment(os.environ), Clock()
store = build_function_store(settings, clock, metrics.counters)
consumer = FanOutConsumer(store, Deliveries(store, clock))
processor = batch_processor(EventType.SQS)
runner = asyncio.Runner()  # one loop for all invocations: the store belongs to it


@logger.inject_lambda_context(log_event=False)
@metrics.measure
def handler(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    """Deliver to each message's followers; the ids of failed messages."""
    return process_batch(runner, processor, event, consumer.process_message, context)
