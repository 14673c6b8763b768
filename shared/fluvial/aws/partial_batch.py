"""Batches of records: Powertools' batch processor runs a coroutine for each record, and reports those that failed.

https://docs.powertools.aws.dev/lambda/python/latest/utilities/batch/

Only the failed records come again: each failed message of a queue, and from a stream every record from the first failed
one on. Records that belong together, e.g. a stream's changes, are processed as one (`Groups`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from aws_lambda_powertools.utilities.batch import AsyncBatchProcessor, EventType, async_process_partial_response
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.typing import LambdaContext

from fluvial.model.errors import FluvialError

K = TypeVar("K")
R = TypeVar("R")


class RecordFailedError(FluvialError):
    """A record must come again; the log has said why."""


def batch_processor(event_type: EventType) -> AsyncBatchProcessor:
    """A processor that reports a batch of which every record failed as it reports any other."""
    return AsyncBatchProcessor(event_type, raise_on_entire_batch_failure=False)


def process_batch(
    runner: asyncio.Runner,
    processor: AsyncBatchProcessor,
    event: dict[str, Any],
    process_record: Callable[[Any], Awaitable[None]],
    context: LambdaContext,
) -> PartialItemFailureResponse:
    """Process each record of an event on the runner's loop; the ids of those for which `process_record` raised.

    The processor calls it with the keyword `record`.
    """
    asyncio.set_event_loop(runner.get_loop())  # the processor takes the current one
    return async_process_partial_response(event, process_record, processor, context)


class Groups(Generic[K, R]):
    """Work on groups of records: the first record of a group begins it, and all of them wait for its result."""

    def __init__(self, at_once: int) -> None:
        """At most `at_once` groups are worked on at the same time."""
        self._slots = asyncio.Semaphore(at_once)
        self._tasks: dict[K, asyncio.Task[R]] = {}

    async def result(self, key: K, work: Callable[[], Awaitable[R]]) -> R:
        """The result of the group's work, or its error."""
        if key not in self._tasks:
            self._tasks[key] = asyncio.create_task(self._work(work))
        return await self._tasks[key]

    async def _work(self, work: Callable[[], Awaitable[R]]) -> R:
        async with self._slots:
            return await work()
