"""Chores: what follows a commit where no change feed drives it, done by the process that has time for it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Final

from fluvial.model.errors import FluvialError

log = logging.getLogger(__name__)

#: What may wait; past it whatever else comes is left to a sweep or the next append, and the log says so.
CHORES_MAX: Final = 10_000

#: How long a closing store goes on with what has been begun.
CLOSING_S: Final = 15.0

Chore = Callable[[], Awaitable[object]]


class BackgroundTasks:
    """One task that does one thing after the other; what fails is logged and left to a sweep.

    Each chore has a key: one that waits already stands for every later one with its key, however many there are.
    """

    def __init__(self, count_max: int = CHORES_MAX) -> None:
        """There is nothing to do."""
        self._count_max = count_max
        self._due: dict[Hashable, Chore] = {}
        self._left_count = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def count(self) -> int:
        """How many wait."""
        return len(self._due)

    def add(self, key: Hashable, chore: Chore) -> None:
        """Do this when everything before it is done, unless it is to be done already."""
        if key in self._due:
            return
        if len(self._due) >= self._count_max:
            if not self._left_count:
                log.warning("too_many_chores", extra={"count": len(self._due)})
            self._left_count += 1
            return
        self._due[key] = chore
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work(), name="chores")

    async def close(self) -> None:
        """Finish what is due, within reason."""
        if self._task is None:
            return
        try:
            await asyncio.wait_for(self._task, CLOSING_S)
        except TimeoutError:
            log.warning("chores_left", extra={"count": len(self._due)})

    async def _work(self) -> None:
        while self._due:
            chore = self._due.pop(next(iter(self._due)))
            try:
                await chore()
            except FluvialError as exc:
                log.warning("chore_failed", extra={"reason": str(exc.__cause__ or exc)})
            except Exception:
                log.exception("chore_failed")
        if self._left_count:
            log.warning("chores_left", extra={"count": self._left_count})
            self._left_count = 0
