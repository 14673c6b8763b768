"""OpenCalls: a closing store waits for the calls that are open, and accepts no new ones."""

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import contextmanager

from fluvial.model.errors import StoreUnavailable


class OpenCalls:
    """Counts the calls that have begun and have not returned."""

    def __init__(self) -> None:
        """Start open, without calls."""
        self._count = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_closed = False

    @contextmanager
    def track(self) -> Iterator[None]:
        """Count a call until the `with` block ends. Raises StoreUnavailable once `close` was called."""
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
        """Accept no more calls, and wait for the open ones, at most `within_s` seconds."""
        self._is_closed = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), within_s)
