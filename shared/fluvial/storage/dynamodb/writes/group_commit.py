"""Group commit: appends of this process that wait for the same stream are written by one update of its head.

One update of a stream is under way at a time. The sequence:

1. An append comes while none is: it is written at once, alone (see `commit_writer`). In a function, which serves one
   request at a time, every append is.
2. Others come meanwhile, and wait in the queue. When the answer is there, the waiting ones become the next group, up to
   a limit (see `group_writer`).

docs/decisions/0017 has the reasons.
"""

import asyncio
import logging
from collections import deque
from typing import Final

from fluvial.clock import Clock
from fluvial.model.commit import Outcome, UpdateCommit
from fluvial.model.errors import StoreBusy, StoreError, StoreUnavailable, StoreUncertain
from fluvial.model.names import StreamName
from fluvial.storage.dynamodb.writes.commit_writer import CommitWriter
from fluvial.storage.dynamodb.writes.group_plan import is_groupable
from fluvial.storage.dynamodb.writes.group_writer import GROUP_LARGE_MAX, GroupWriter, QueuedAppend
from fluvial.storage.dynamodb.writes.stream_load import StreamLoads
from fluvial.storage.limits import STORE_LIMITS, StoreLimits

log = logging.getLogger(__name__)

#: The appends of one group.
GROUP_COMMITS_MAX: Final = 256

#: The bytes of a group's small batches: so few that their payload is written nearly as fast as a small one.
GROUP_BYTES_MAX: Final = 65_536

#: The appends that may wait for one stream; more are answered with a 503 at once.
PENDING_COMMITS_MAX: Final = 4_096


class GroupCommit:
    """The queues in front of the commit writer, one for each stream of which an append is under way."""

    def __init__(
        self,
        writer: CommitWriter,
        group_writer: GroupWriter,
        loads: StreamLoads,
        clock: Clock,
        limits: StoreLimits = STORE_LIMITS,
    ) -> None:
        """`writer` writes what no group carries; `loads` tells what a stream takes no more."""
        self._writer, self._group_writer, self._loads = writer, group_writer, loads
        self._clock, self._limits = clock, limits
        self._queues: dict[StreamName, deque[QueuedAppend]] = {}
        self._pending_bytes = 0
        self._tasks = set[asyncio.Task[None]]()
        self._is_closed = self._is_full = False

    async def write(self, name: StreamName, commit: UpdateCommit) -> Outcome:
        """Apply a commit; those of one producer in the order of their calls.

        Raises StoreUnavailable, also when the queue is full or closed, and StoreUncertain.
        """
        if self._is_closed:
            raise StoreUnavailable
        if commit.producer_id is None and not is_groupable(commit):
            return await self._writer.write(name, commit, self._clock)
        if name not in self._queues:
            return await self._write_alone(name, commit)
        queue, byte_count = self._queues[name], len(commit.data or b"")
        was_full, self._is_full = self._is_full, False
        if len(queue) >= PENDING_COMMITS_MAX or self._pending_bytes + byte_count > self._limits.pending_bytes_max:
            self._is_full = True
            if not was_full:
                log.warning("queue_full", extra={"stream": name, "waiting": len(queue), "bytes": self._pending_bytes})
            raise StoreUnavailable
        loop = asyncio.get_running_loop()
        append = QueuedAppend(commit, byte_count, loop.time(), loop.create_future())
        queue.append(append)
        self._pending_bytes += byte_count
        try:
            return await append.answer
        finally:
            self._pending_bytes -= byte_count

    async def close(self) -> None:
        """Stop. What still waits raises StoreUnavailable, or StoreUncertain if its group is under way."""
        self._is_closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for queue in self._queues.values():  # of a task that was cancelled before it began
            for append in queue:
                append.fail(StoreUnavailable())

    async def _write_alone(self, name: StreamName, commit: UpdateCommit) -> Outcome:
        if not self._loads.admits(name):
            raise StoreBusy
        queue = self._queues[name] = deque()
        try:
            return await self._writer.write(name, commit, self._clock)
        finally:
            if queue:
                task = asyncio.get_running_loop().create_task(self._write_waiting(name, queue), name=f"append {name}")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                del self._queues[name]

    async def _write_waiting(self, name: StreamName, queue: deque[QueuedAppend]) -> None:
        """Write group after group until none waits."""
        try:
            while queue:
                group = take_group(queue, asyncio.get_running_loop().time() - self._limits.group_wait_s)
                queue.extendleft(reversed(await self._write_group(name, group)))
                await asyncio.sleep(0)  # let those that were answered come again, before the next group is taken
        finally:
            del self._queues[name]
            for append in queue:
                append.fail(StoreUnavailable())

    async def _write_group(self, name: StreamName, group: list[QueuedAppend]) -> list[QueuedAppend]:
        """Write a group and answer its appends; those that must come again."""
        error: BaseException = StoreUncertain()
        try:
            if len(group) == 1:
                [alone] = group
                alone.succeed(await self._writer.write(name, alone.commit, self._clock))
            elif group:
                again = await self._group_writer.write(name, group)
                group = [append for append in group if append not in again]
                return again
        except StoreError as exc:
            error = exc
        except Exception as exc:  # the groups after this one are written all the same
            log.exception("group_failed", extra={"stream": name})
            error.__cause__ = exc
        finally:
            for append in group:
                append.fail(error)
        return []


def take_group(queue: deque[QueuedAppend], since_s_min: float) -> list[QueuedAppend]:
    """Take the next group off a queue. A commit that no group can carry is a group of its own.

    A commit that was queued before `since_s_min` is refused.
    """
    group, large_count, small_bytes, refused_count = list[QueuedAppend](), 0, 0, 0
    while queue and len(group) < GROUP_COMMITS_MAX:
        append = queue[0]
        if append.answer.done():  # the call was cancelled
            queue.popleft()
            continue
        if append.since_s < since_s_min:
            queue.popleft().fail(StoreUnavailable())
            refused_count += 1
            continue
        large_count += append.is_large
        small_bytes += 0 if append.is_large else append.byte_count
        is_groupable_here = is_groupable(append.commit) and large_count <= GROUP_LARGE_MAX
        if group and not (is_groupable_here and small_bytes <= GROUP_BYTES_MAX):
            break
        group.append(queue.popleft())
        if not is_groupable(append.commit):
            break
    if refused_count:
        log.warning("queue_too_slow", extra={"refused": refused_count, "waiting": len(queue)})
    return group
