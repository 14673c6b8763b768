"""Renewals: the sliding deadlines that reads move. A read is not held up by a store that cannot write just now."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from fluvial.model.commit import Commit, Outcome
from fluvial.model.errors import StoreError
from fluvial.model.names import StreamName
from fluvial.model.plan import plan_renewal

log = logging.getLogger(__name__)

#: How long a read waits for its renewal, in a process that lasts. It takes a few milliseconds, unless another process
#: holds the database.
WAIT_S: Final = 0.25

#: How often a renewal is tried, with pauses that double: half a minute for a disk that is full, and up to a minute more
#: for another process that holds the database. After that the next read tries again.
TRIES_MAX: Final = 6
PAUSE_S: Final = 1.0

#: Streams that are being renewed; a read of one more renews nothing, and leaves that to the next one.
RENEWALS_MAX: Final = 10_000

Apply = Callable[[StreamName, Commit], Awaitable[Outcome]]


class Renewals:
    """At most one renewal of each stream is under way, however many read it; it counts its last use."""

    def __init__(
        self, apply: Apply, wait_s: float = WAIT_S, pause_s: float = PAUSE_S, count_max: int = RENEWALS_MAX
    ) -> None:
        """Nothing is being renewed."""
        self._apply, self._wait_s, self._pause_s, self._count_max = apply, wait_s, pause_s, count_max
        self._is_full = False
        self._used_at_ms: dict[StreamName, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = asyncio.Event()

    @property
    def count(self) -> int:
        """How many streams are being renewed."""
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
        self._used_at_ms[name], tried = now_ms, asyncio.Event()
        task = asyncio.get_running_loop().create_task(self._renew(name, tried), name=f"renewal of {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(tried.wait(), self._wait_s)

    async def close(self) -> None:
        """Try none again; those that are being tried come to their end."""
        self._is_closed.set()
        await asyncio.gather(*self._tasks)

    async def _renew(self, name: StreamName, tried: asyncio.Event) -> None:
        try:
            failure_count = 0
            while not self._is_closed.is_set():
                used_at_ms = self._used_at_ms[name]
                is_done = await self._try(name, used_at_ms)
                tried.set()
                if is_done and used_at_ms == self._used_at_ms[name]:
                    return  # nobody has read it since
                if not is_done:
                    failure_count += 1
                    if failure_count == TRIES_MAX:
                        return
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._is_closed.wait(), self._pause_s * 2 ** (failure_count - 1))
        finally:
            tried.set()
            del self._used_at_ms[name]
            self._is_full = self._is_full and bool(self._used_at_ms)

    async def _try(self, name: StreamName, used_at_ms: int) -> bool:
        """Whether there is nothing left to be done for this use: the deadline has moved, or the stream has ended."""
        try:
            await self._apply(name, plan_renewal(used_at_ms))
        except StoreError as exc:  # a full disk, say, keeps nobody from reading
            log.warning("not_renewed", extra={"stream": name, "reason": str(exc.__cause__ or exc)})
            return False
        except Exception:
            log.exception("not_renewed", extra={"stream": name})
            return True
        return True
