"""KeyedLock: those who want the same thing get it one after the other, in the order in which they asked."""

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Queue:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    count: int = 0


class KeyedLock:
    """A queue for each key that somebody has or waits for; bounded by the calls that are open."""

    def __init__(self) -> None:
        """Nobody waits."""
        self._queues: dict[Hashable, _Queue] = {}

    @asynccontextmanager
    async def hold(self, key: Hashable) -> AsyncIterator[None]:
        """Wait until everybody who asked for the key before is done."""
        queue = self._queues.setdefault(key, _Queue())
        queue.count += 1
        try:
            async with queue.lock:
                yield
        finally:
            queue.count -= 1
            if not queue.count:
                del self._queues[key]
