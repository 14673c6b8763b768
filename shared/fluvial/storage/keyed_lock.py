"""KeyedLock: a lock for each key. Tasks hold a key's lock one after the other, in the order in which they asked."""

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Lock:
    """One key's lock, and how many tasks hold it or wait for it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    count: int = 0


class KeyedLock:
    """Keeps a lock only while a task holds it or waits for it, so the number of open calls bounds the locks."""

    def __init__(self) -> None:
        """Start without locks; `hold` makes them."""
        self._locks: dict[Hashable, _Lock] = {}

    @asynccontextmanager
    async def hold(self, key: Hashable) -> AsyncIterator[None]:
        """Hold the key's lock until the `async with` block ends."""
        keyed = self._locks.setdefault(key, _Lock())
        keyed.count += 1
        try:
            async with keyed.lock:
                yield
        finally:
            keyed.count -= 1
            if not keyed.count:
                del self._locks[key]
