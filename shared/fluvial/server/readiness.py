"""Readiness: whether an append would be stored now. `/ready` answers with it.

A probe is a real write, which waits for the disk as an append does. So probes are shared: all requests of about a
second are answered by one, and there is at most one at a time, however many ask.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from fluvial.model.errors import ErrorCode, RequestError, StoreError, StoreUnavailable
from fluvial.model.names import StreamName
from fluvial.storage.contract import Store
from fluvial.storage.failures import log_failure
from fluvial.storage.observer import WriteProbe

log = logging.getLogger(__name__)

#: How long a probe's result is good for.
FRESH_S: Final = 1.0

#: A store that takes longer is not ready. Appends may wait longer; probes of load balancers do not.
PATIENCE_S: Final = 2.0


def _never() -> bool:
    return False


@dataclass(slots=True)
class Readiness:
    """Probes a store, and remembers the result for a moment."""

    store: Store
    is_read_only: bool = False
    is_stopping: Callable[[], bool] = _never
    monotonic_s: Callable[[], float] = time.monotonic
    patience_s: float = PATIENCE_S
    _error: Exception | None = None
    _fresh_until: float = float("-inf")
    _probing: asyncio.Task[None] | None = field(default=None)

    async def check(self) -> None:
        """Raise StoreError or RequestError unless the store can be written to; a read-only server's, be read."""
        if self.is_stopping():
            raise RequestError(ErrorCode.STORE_UNAVAILABLE, "the server is stopping", 503)
        if self.monotonic_s() >= self._fresh_until:
            if self._probing is None:
                self._probing = asyncio.create_task(self._probe(), name="readiness")
            await asyncio.wait({self._probing}, timeout=self.patience_s)
            if self._probing is not None:
                message = f"the store has not answered for {self.patience_s:g} seconds"
                raise RequestError(ErrorCode.STORE_UNAVAILABLE, message, 503)
        if self._error is not None:
            raise self._error.with_traceback(None)  # or each raise would lengthen it

    async def _probe(self) -> None:
        was_ready, self._error = self._error is None, None
        try:
            if self.is_read_only or not isinstance(self.store, WriteProbe):
                await self.store.head(StreamName("fluvial"))
            else:
                await self.store.probe_write()
        except Exception as exc:  # noqa: BLE001  `check` raises it
            if was_ready:
                log_failure(log, "not_ready", exc)
            self._error = exc if isinstance(exc, StoreError) else StoreUnavailable()
        if not was_ready and self._error is None:
            log.info("ready_again")
        self._fresh_until = self.monotonic_s() + FRESH_S
        self._probing = None
