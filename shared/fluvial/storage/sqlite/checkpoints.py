"""Checkpoints: the write-ahead log is copied into the database in the background, then the log starts anew.

SQLite would run a checkpoint inside some COMMIT. That COMMIT takes many times longer, and when it runs on the event
loop, every request waits for the copying. So SQLite's own checkpoints are off. The commit thread runs a checkpoint as a
job of its own between two transactions: no transaction runs meanwhile, but the event loop does.

A checkpoint copies only what no reader needs in the log. While another process reads the file, a backup for example,
the log grows; a checkpoint comes back every RETRY_S until it has copied the whole log.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

PAGE_BYTES: Final = 4_096
_FRAME_BYTES: Final = PAGE_BYTES + 24

#: The size of the log's file from the start, in pages. https://www.sqlite.org/walformat.html
LOG_PAGES: Final = 2_048

#: A checkpoint is due after about this many pages. They are counted by estimate, so it is half of the file's size.
CHECKPOINT_PAGES: Final = LOG_PAGES // 2

#: SQLite cuts a file that is longer than this back to it when the log starts anew. Up to here the file keeps its size,
#: because an fsync that grows a file takes half as long again.
LOG_BYTES_MAX: Final = (LOG_PAGES + LOG_PAGES // 4) * _FRAME_BYTES

#: The pause before another checkpoint, when a reader still needs the log or the disk fails.
RETRY_S: Final = 5.0


class Checkpoints:
    """Decides when a checkpoint is due: by the pages written since the last one, or by time after an incomplete one."""

    def __init__(self, on_due: Callable[[], None]) -> None:
        """The first one is due now: the last process may have left a log. `on_due` is called for one due by time."""
        self._on_due = on_due
        self._page_count = CHECKPOINT_PAGES
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_due(self) -> bool:
        """Whether to run one before the next transaction."""
        return self._page_count >= CHECKPOINT_PAGES

    def add(self, page_count: int) -> None:
        """Count the pages that a transaction added to the log."""
        self._page_count += page_count

    def begin(self) -> None:
        """Start the count of the next one, just before one runs."""
        self._page_count = 0
        self.close()

    def finish(self, *, is_complete: bool) -> None:
        """Make another one due after RETRY_S unless this one was complete; there may be no write that would do so."""
        if not is_complete:
            self._timer = asyncio.get_running_loop().call_later(RETRY_S, self._mark_due)

    def close(self) -> None:
        """Cancel the one that would become due by time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _mark_due(self) -> None:
        self._page_count = CHECKPOINT_PAGES
        self._on_due()


def copy_log(connection: sqlite3.Connection) -> bool:
    """Copy the log into the database as far as readers allow, without waiting for them; whether it is complete.

    Once the whole log is copied, the next transaction starts it anew at its beginning.
    """
    try:
        busy, frame_count, copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if busy or copied < frame_count:
            return False
        if frame_count * _FRAME_BYTES <= LOG_BYTES_MAX:
            return True
        # SQLite shortens the file when a transaction starts the log anew, and the next write may be hours away. Not
        # complete yet: the checkpoint after this one finds a short log.
        overwrite_log(connection)
    except sqlite3.Error as exc:
        log.warning("log_not_copied", extra={"reason": str(exc)})
    return False


def overwrite_log(connection: sqlite3.Connection) -> None:
    """Commit a transaction that changes nothing; it is written at the log's next place. Raises sqlite3.Error."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute(f"PRAGMA user_version = {version}")
