"""The changes function: wiring, once per environment; what it does is in fluvial.triggers.changes."""

import asyncio
import os
from typing import Any

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes.dynamo_db_stream_event import DynamoDBRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from fluvial.core.errors import StoreUnavailable
from fluvial.fanout.feed import FeedBacklog
from fluvial.fanout.publishing import Publisher
from fluvial.function_logs import function_logger
from fluvial.opening import directory_of, function_store
from fluvial.settings import settings_from_environment
from fluvial.triggers.broadcasting import Broadcaster, connections_client
from fluvial.triggers.changes import ChangeFeed, changes_of
from fluvial.triggers.fanout_queue import FanOutQueue, sqs_client
from fluvial.world import World

logger = function_logger("changes")
world = World()
settings = settings_from_environment(os.environ)
store = function_store(settings, world)
queue = FanOutQueue(sqs_client(), os.environ["FLUVIAL_FANOUT_QUEUE_URL"])
directory = directory_of(settings, store.projects, world)
broadcaster = Broadcaster(store, world, connections_client(os.environ["FLUVIAL_CONNECTIONS_URL"]), directory=directory)
feed = ChangeFeed(store, Publisher(store, world, FeedBacklog(store)), queue, broadcaster)
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
