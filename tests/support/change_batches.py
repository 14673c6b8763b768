"""Batches of the change feed, processed without a function."""

import asyncio
from typing import Any

from aws_lambda_powertools.utilities.data_classes.dynamo_db_stream_event import DynamoDBRecord

from fluvial.aws.change_feed import ChangeBatch, ChangeFeed
from fluvial.aws.partial_batch import RecordFailedError


async def process_records(feed: ChangeFeed, records: list[dict[str, Any]]) -> set[str]:
    """The sequence numbers of the records that fail. Raises what a process dies of."""
    batch = ChangeBatch(feed, {"Records": records})
    processed = (batch.process_record(DynamoDBRecord(record)) for record in records)
    results = await asyncio.gather(*processed, return_exceptions=True)
    for result in results:
        if result is not None and not isinstance(result, RecordFailedError):
            raise result
    numbers = [record["dynamodb"]["SequenceNumber"] for record in records]
    return {number for number, result in zip(numbers, results, strict=True) if result is not None}
