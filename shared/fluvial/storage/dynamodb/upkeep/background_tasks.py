"""Background tasks: rotation and garbage collection in a process that has no change feed to drive them.

On AWS the change feed drives both. A server or relay over DynamoDB runs them itself, one after the other.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Final

from fluvial.model.errors import FluvialError

log = logging.getLogger(__name__)

#: Bounds the waiting tasks. Further ones are dropped with a log line; a sweep or the next append makes up for them.
TASKS_MAX: Final = 10_000

#: How long a closing store goes on with waiting tasks.
CLOSING_S: Final = 15.0

Work = Callable[[], Awaitable[object]]


class BackgroundTasks:
    """Runs work in one asyncio task, one piece after the other. A failure is logged and left to the sweep.

    Work has a key: a waiting piece stands for all later ones with the same key.
    """

    def __init__(self, count_max: int = TASKS_MAX) -> None:
        """At most `count_max` pieces of work may wait."""
        self._count_max = count_max
        self._waiting: dict[Hashable, Work] = {}
        self._dropped_count = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def count(self) -> int:
        """The number of waiting pieces of work."""
        return len(self._waiting)

    def add(self, key: Hashable, work: Work) -> None:
        """Run the work after all that waits already, unless work with the same key waits."""
        if key in self._waiting:
            return
        if len(self._waiting) >= self._count_max:
            if not self._dropped_count:
                log.warning("too_many_background_tasks", extra={"count": len(self._waiting)})
            self._dropped_count += 1
            return
        self._waiting[key] = work
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="background tasks")

    async def close(self) -> None:
        """Finish the waiting work, for CLOSING_S seconds at most."""
        if self._task is None:
            return
        try:
            await asyncio.wait_for(self._task, CLOSING_S)
        except TimeoutError:
            log.warning("background_tasks_left", extra={"count": len(self._waiting)})

    async def _run(self) -> None:
        while self._waiting:
            work = self._waiting.pop(next(iter(self._waiting)))
            try:
                await work()
            except FluvialError as exc:
                log.warning("background_task_failed", extra={"reason": str(exc.__cause__ or exc)})
            except Exception:
                log.exception("background_task_failed")
        if self._dropped_count:
            log.warning("background_tasks_left", extra={"count": self._dropped_count})
            self._dropped_count = 0
