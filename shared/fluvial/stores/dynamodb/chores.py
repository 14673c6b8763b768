"""Chores: what follows a commit where no change feed drives it, done by the process that has time for it."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from fluvial.core.errors import FluvialError

log = logging.getLogger(__name__)

#: What may wait; past it the oldest is left to a sweep.
CHORES_MAX: Final = 10_000

#: How long a closing store goes on with what has been begun.
CLOSING_S: Final = 15.0

Chore = Callable[[], Awaitable[object]]


class Chores:
    """One task that does one thing after the other; what fails is logged and left to a sweep."""

    def __init__(self) -> None:
        """There is nothing to do."""
        self._queue: deque[Chore] = deque(maxlen=CHORES_MAX)
        self._task: asyncio.Task[None] | None = None

    def add(self, chore: Chore) -> None:
        """Do this when everything before it is done."""
        self._queue.append(chore)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work(), name="chores")

    async def close(self) -> None:
        """Finish what is due, within reason."""
        if self._task is None:
            return
        try:
            await asyncio.wait_for(self._task, CLOSING_S)
        except TimeoutError:
            log.warning("chores_left", extra={"count": len(self._queue)})

    async def _work(self) -> None:
        while self._queue:
            chore = self._queue.popleft()
            try:
                await chore()
            except FluvialError as exc:
                log.warning("chore_failed", extra={"reason": str(exc.__cause__ or exc)})
            except Exception:
                log.exception("chore_failed")
