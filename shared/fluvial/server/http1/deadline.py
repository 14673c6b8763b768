"""A connection's one deadline, on a timer that outlives it.

Rules:
1. A connection waits for one thing at a time, so it has one deadline; setting it replaces the one before.
2. Setting or clearing the deadline leaves a running timer alone, unless the timer is due too late. A kept-alive
   connection moves its deadline twice a request, and hardly any deadline passes: a timer that was started and cancelled
   each time would cost more than the timer that wakes up, finds a later deadline and starts again.
"""

import asyncio
from collections.abc import Callable


class Deadline:
    """Calls `on_expiry` once when the moment that was set last has come."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_expiry: Callable[[], None]) -> None:
        """No deadline is set."""
        self._loop = loop
        self._on_expiry: Callable[[], None] | None = on_expiry
        self._ends_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def set(self, seconds: float) -> None:
        """Let the deadline be that many seconds from now."""
        self._ends_at = self._loop.time() + seconds
        if self._timer is not None and self._timer_at > self._ends_at:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._start_timer(self._ends_at)

    def clear(self) -> None:
        """Have no deadline; the timer is kept for the next one."""
        self._ends_at = None

    def cancel(self) -> None:
        """Have no deadline and no timer."""
        self.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Cancel for good, and let go of the connection.

        A connection and its deadline refer to each other: both would wait for the garbage collector, which runs seldom.
        """
        self.cancel()
        self._on_expiry = None

    def _start_timer(self, at: float) -> None:
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._check)

    def _check(self) -> None:
        """Expire, or start the timer again when the deadline was moved since."""
        self._timer = None
        if self._ends_at is None:
            return
        if self._loop.time() < self._ends_at:
            self._start_timer(self._ends_at)
            return
        self._ends_at = None
        if self._on_expiry is not None:
            self._on_expiry()
