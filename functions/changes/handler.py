"""The changes function: wiring, once per environment; what it does is in fluvial.aws.change_feed."""

import asyncio
import os
from typing import Any

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes.dynamo_db_stream_event import DynamoDBRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from fluvial.app import build_function_store, build_project_cache
from fluvial.aws.change_feed import ChangeFeed, changes_of
from fluvial.aws.fanout_queue import FanOutQueue, sqs_client
from fluvial.aws.function_logs import function_logger
from fluvial.aws.websocket_broadcast import Broadcaster, connections_client
from fluvial.clock import Clock
from fluvial.fanout.change_feed_backlog import ChangeFeedBacklog
from fluvial.fanout.publisher import Publisher
from fluvial.model.errors import StoreUnavailable
from fluvial.settings import settings_from_environment

logger = function_logger("changes")
clock = Clock()
settings = settings_from_environment(os.environ)
store = build_function_store(settings, clock)
queue = FanOutQueue(sqs_client(), os.environ["FLUVIAL_FANOUT_QUEUE_URL"])
project_cache = build_project_cache(settings, store.projects, clock)
broadcaster = Broadcaster(
    store, clock, connections_client(os.environ["FLUVIAL_CONNECTIONS_URL"]), project_cache=project_cache
)
feed = ChangeFeed(store, Publisher(store, clock, ChangeFeedBacklog(store)), queue, broadcaster)
processor = BatchProcessor(event_type=EventType.DynamoDBStreams, raise_on_entire_batch_failure=False)
runner = asyncio.Runner()  # the store's clients stay with one loop


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    """Follow up the changes, stream by stream; Lambda goes on from the first record whose stream could not be."""
    failed = runner.run(feed.failed(changes_of(event)))

    def told(record: DynamoDBRecord) -> None:
        """Raise for a record that must come again."""
        if record.dynamodb is not None and record.dynamodb.sequence_number in failed:
            raise StoreUnavailable

    return process_partial_response(event, told, processor, context)
