"""Follow-up of a table by a server that is alone with it: no function reads the changes of its table.

A process that is killed leaves sources behind: their bytes are committed, and their followers lack them. The table has
no index of such sources, because an index would cost every publication two more writes. So the server looks at the
heads of all streams: when it starts, and then again and again, for what other processes on the table have left. What it
finds, it puts into its own backlog; and the store begins upkeep that is due.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from fluvial.fanout.publisher import Backlog
from fluvial.fanout.replication import Source
from fluvial.model.errors import StoreError
from fluvial.storage.contract import Resumable, Store

log = logging.getLogger(__name__)

#: Streams that are listed at once, and whose heads are read at once.
STREAMS_PER_PAGE: Final = 200

#: The shortest pause between two looks: 1,000 streams then take some 300 reads a minute, about a dollar a month.
LOOK_INTERVAL_S: Final = 300.0

#: A look may take this part of the time, so that a table with millions of streams is not read all the time.
SHARE_OF_TIME: Final = 0.01

#: The pause after the first look that failed; it doubles with each further one.
RETRY_S: Final = 5.0


class ResumableStore(Store, Resumable, Protocol):
    """A store whose own upkeep a killed process may have left undone."""


class FollowUp:
    """Looks at all streams of a store, and has the backlog deliver what some process left undelivered."""

    def __init__(
        self,
        store: ResumableStore,
        backlog: Backlog,
        streams_per_page: int = STREAMS_PER_PAGE,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`backlog` is this process's, and `pause` waits for some seconds. Nothing is read before `run`."""
        self._store, self._backlog = store, backlog
        self._streams_per_page, self._pause = streams_per_page, pause

    async def run(self) -> None:
        """Look now and again, until the task is cancelled."""
        clock, failures = asyncio.get_running_loop().time, 0
        while True:
            began = clock()
            try:
                found = await self.look()
            except StoreError as exc:
                log.warning("follow_up_failed", extra={"reason": str(exc.__cause__ or exc)})
                failures += 1
            except Exception:  # an unforeseen error ends this look; the next one may do better
                log.exception("follow_up_failed")
                failures += 1
            else:
                if found:
                    log.info("follow_up_found", extra={"count": found})
                failures = 0
            await self._pause(pause_after(clock() - began, failures))

    async def look(self) -> int:
        """Look at every stream once; how many sources were behind. Raises StoreUnavailable."""
        after, found = "", 0
        while names := await self._store.names("", after, self._streams_per_page):
            for name, head in zip(names, await self._store.resume_upkeep(names), strict=True):
                if head is not None and head.delivered is not None and head.delivered < head.tail:
                    await self._backlog.put(Source(name, head))
                    found += 1
            after = names[-1]
        return found


def pause_after(look_s: float, failures: int = 0) -> float:
    """How long to wait after a look that took `look_s` seconds; sooner after the first of `failures` in a row."""
    rest_s = look_s * (1 / SHARE_OF_TIME - 1)
    interval_s = min(LOOK_INTERVAL_S, RETRY_S * 2 ** min(failures - 1, 16)) if failures else LOOK_INTERVAL_S
    return max(interval_s, rest_s)
