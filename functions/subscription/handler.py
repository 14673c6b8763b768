"""The subscription function: wiring, once per environment. The work is in fluvial.aws.subscription."""

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools.utilities.batch import EventType
from aws_lambda_powertools.utilities.typing import LambdaContext

from fluvial.app import build_function_store
from fluvial.aws.function_logs import function_logger
from fluvial.aws.function_metrics import FunctionMetrics
from fluvial.aws.partial_batch import batch_processor, process_batch
from fluvial.aws.publications import Sender, parse_invocation
from fluvial.aws.snapshot import reseed_after_restore
from fluvial.aws.subscription import QueueBatch, SubscriptionFunction
from fluvial.clock import Clock
from fluvial.fanout.change_feed_backlog import ChangeFeedBacklog
from fluvial.fanout.deliveries import Deliveries
from fluvial.fanout.publisher import Publisher
from fluvial.lambda_client import AppendClient
from fluvial.settings import settings_from_environment

reseed_after_restore()
logger, metrics = function_logger("subscription"), FunctionMetrics("subscription")
settings, clock = settings_from_environment(os.environ), Clock()
store = build_function_store(settings, clock, metrics.counters)
publisher = Publisher(store, Deliveries(store, clock), ChangeFeedBacklog(store))
appender = AppendClient(os.environ["FLUVIAL_APPEND_FUNCTION"])
subscriptions = SubscriptionFunction(store, publisher, appender)
processor = batch_processor(EventType.SQS)
runner = asyncio.Runner()  # one loop for all invocations: the store belongs to it


@logger.inject_lambda_context(log_event=False)
@metrics.measure
def handler(event: Any, context: LambdaContext) -> Mapping[str, Any]:  # noqa: ANN401  any JSON
    """Publish what the event asks for."""
    invocation = parse_invocation(event)
    match invocation.sender:
        case Sender.DIRECT:
            return runner.run(subscriptions.publish_directly(invocation.publications[0]))
        case Sender.ASYNCHRONOUS:
            return runner.run(subscriptions.publish_all(invocation.publications))
        case Sender.QUEUE:
            batch = QueueBatch(subscriptions, invocation.publications)
            records = event if isinstance(event, dict) else {"Records": event}  # EventBridge Pipes sends them bare
            return process_batch(runner, processor, records, batch.process_message, context)
