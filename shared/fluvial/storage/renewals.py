"""Renewals: reads move the sliding deadlines of streams, without waiting for a store that cannot write just now.

1. One renewal of a stream is under way at a time. A read that comes meanwhile only updates the time of the last use.
2. A read waits a short time for its renewal. After that the renewal goes on in the background.
3. A renewal that fails is tried again some times. Then it is given up, and the stream's next read begins another one.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from fluvial.concurrency import backoff_s
from fluvial.model.commit import Commit, Outcome
from fluvial.model.errors import StoreError
from fluvial.model.names import StreamName
from fluvial.model.plan import plan_renewal

log = logging.getLogger(__name__)

#: How long a read waits for its renewal, in a process that can go on with it after the answer. A renewal takes a few
#: milliseconds, unless another process holds the database.
WAIT_S: Final = 0.25

#: The tries of a renewal, and the pause after the first one; the pauses double. Together they last half a minute while
#: the disk is full, and up to a minute more while another process holds the database.
TRIES_MAX: Final = 6
PAUSE_S: Final = 1.0

#: Renewals under way. Past it a read renews nothing; a later read does.
RENEWALS_MAX: Final = 10_000

Apply = Callable[[StreamName, Commit], Awaitable[Outcome]]


class Renewals:
    """At most one renewal of each stream, for the last of its uses, however many reads there are."""

    def __init__(
        self, apply: Apply, wait_s: float = WAIT_S, pause_s: float = PAUSE_S, count_max: int = RENEWALS_MAX
    ) -> None:
        """`apply` is the store's. The defaults of the other arguments are the constants above, with their meanings."""
        self._apply, self._wait_s, self._pause_s, self._count_max = apply, wait_s, pause_s, count_max
        self._is_full = False
        self._used_at_ms: dict[StreamName, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = asyncio.Event()

    @property
    def count(self) -> int:
        """The number of streams whose renewal is under way."""
        return len(self._used_at_ms)

    async def renew(self, name: StreamName, now_ms: int) -> None:
        """See Store.renew."""
        under_way = self._used_at_ms.get(name)
        if under_way is not None:
            self._used_at_ms[name] = max(under_way, now_ms)
            return
        if self._is_closed.is_set():
            return
        if len(self._used_at_ms) >= self._count_max:
            if not self._is_full:  # a line for all of them: there may be thousands of reads a second
                log.warning("not_renewed", extra={"stream": name, "reason": "too many renewals wait"})
            self._is_full = True
            return
        self._used_at_ms[name], first_try_ended = now_ms, asyncio.Event()
        renewal = self._renew(name, first_try_ended)
        task = asyncio.get_running_loop().create_task(renewal, name=f"renewal of {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(first_try_ended.wait(), self._wait_s)

    async def close(self) -> None:
        """Begin no further try, and wait for the tries that are under way."""
        self._is_closed.set()
        await asyncio.gather(*self._tasks)

    async def _renew(self, name: StreamName, first_try_ended: asyncio.Event) -> None:
        """Renew until the deadline is that of the last use, or until TRIES_MAX tries have failed."""
        try:
            failure_count = 0
            while not self._is_closed.is_set():
                used_at_ms = self._used_at_ms[name]
                is_done = await self._try(name, used_at_ms)
                first_try_ended.set()
                if is_done and used_at_ms == self._used_at_ms[name]:
                    return  # there was no later use meanwhile
                if not is_done:
                    failure_count += 1
                    if failure_count == TRIES_MAX:
                        return
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._is_closed.wait(), self._pause_after(failure_count))
        finally:
            first_try_ended.set()
            del self._used_at_ms[name]
            self._is_full = self._is_full and bool(self._used_at_ms)

    def _pause_after(self, failure_count: int) -> float:
        """The pause in seconds. It is not spread: no other process competes for what a renewal waits for."""
        return backoff_s(self._pause_s, failure_count - 1, jitter=1.0)

    async def _try(self, name: StreamName, used_at_ms: int) -> bool:
        """Move the deadline; False when that must be tried again. True also when the stream has ended."""
        try:
            await self._apply(name, plan_renewal(used_at_ms))
        except StoreError as exc:  # reads go on all the same, e.g. on a full disk
            log.warning("not_renewed", extra={"stream": name, "reason": str(exc.__cause__ or exc)})
            return False
        except Exception:
            log.exception("not_renewed", extra={"stream": name})
            return True
        return True
