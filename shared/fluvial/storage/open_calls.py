"""Calls under way: a store that closes waits for them, and takes no more."""

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import contextmanager

from fluvial.model.errors import StoreUnavailable


class OpenCalls:
    """Counts what has been begun and not yet answered."""

    def __init__(self) -> None:
        """Nothing is under way."""
        self._count = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_closed = False

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Count a call as long as it lasts. Raises StoreUnavailable once the store is closing."""
        if self._is_closed:
            raise StoreUnavailable
        self._count += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._count -= 1
            if not self._count:
                self._idle.set()

    async def close(self, within_s: float) -> None:
        """Take no more, and wait for those that are under way, within reason."""
        self._is_closed = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), within_s)
