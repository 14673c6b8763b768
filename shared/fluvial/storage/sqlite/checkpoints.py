"""Checkpoints: the write-ahead log is copied into the database in the background, and then begun anew.

SQLite would do so by itself, inside of some COMMIT. Here it is a job of the commit thread's own, between two
transactions, so that no COMMIT takes longer for it, and the event loop never waits for the copying.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

PAGE_BYTES: Final = 4_096
_FRAME_BYTES: Final = PAGE_BYTES + 24

#: What the log's file has room for from the start. https://www.sqlite.org/walformat.html
LOG_PAGES: Final = 2_048

#: After about so many pages a checkpoint is due. They are counted by estimate, so it is half of what there is room for.
CHECKPOINT_PAGES: Final = LOG_PAGES // 2

#: A file that has grown past this is cut back to it when the log begins anew; below it keeps its size, for an fsync
#: that grows a file takes half as long again.
LOG_BYTES_MAX: Final = (LOG_PAGES + LOG_PAGES // 4) * _FRAME_BYTES

#: How long to wait when somebody still reads what the log holds, or the disk does not do.
RETRY_S: Final = 5.0


class Checkpoints:
    """When the next checkpoint is due, and what it does."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """One is due, for the last process may have left a log behind. `wake` is called when one is due by time."""
        self._wake = wake
        self._page_count = CHECKPOINT_PAGES
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_due(self) -> bool:
        """Whether to run one before the next transaction."""
        return self._page_count >= CHECKPOINT_PAGES

    def add(self, page_count: int) -> None:
        """A transaction is about to add so many pages to the log."""
        self._page_count += page_count

    def begin(self) -> None:
        """One is about to run: from here on pages count to the next one."""
        self._page_count = 0
        self.close()

    def finish(self, *, is_complete: bool) -> None:
        """One has run; after one that was not complete there is another one soon, though nobody writes."""
        if not is_complete:
            self._timer = asyncio.get_running_loop().call_later(RETRY_S, self._become_due)

    def close(self) -> None:
        """Do not come back by time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _become_due(self) -> None:
        self._page_count = CHECKPOINT_PAGES
        self._wake()


def copy_log(connection: sqlite3.Connection) -> bool:
    """Copy the log into the database as far as its readers allow; whether nothing is left to be done.

    Waits for no reader. The next transaction begins a log anew that has been copied whole.
    """
    try:
        busy, frame_count, copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if busy or copied < frame_count:
            return False
        if frame_count * _FRAME_BYTES <= LOG_BYTES_MAX:
            return True
        overwrite_log(connection)  # nobody may write for hours, and the file would keep its size
    except sqlite3.Error as exc:
        log.warning("log_not_copied", extra={"reason": str(exc)})
    return False


def overwrite_log(connection: sqlite3.Connection) -> None:
    """A transaction that changes nothing: it takes the next place in the log. Raises sqlite3.Error."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute(f"PRAGMA user_version = {version}")
