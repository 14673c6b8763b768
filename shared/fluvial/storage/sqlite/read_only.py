"""Read-only connections to a data folder's databases, beside a server or without one. They change no file's content."""

import fcntl
import sqlite3
from pathlib import Path
from typing import Final

from fluvial.storage.sqlite.checksums import add_checksum_function

#: How long to wait for another process's checkpoint or recovery.
BUSY_TIMEOUT_S: Final = 10.0


def connect_read_only(file: Path, *, is_backup: bool = False) -> sqlite3.Connection:
    """A connection that only reads, in autocommit mode. Raises sqlite3.Error.

    A backup's database is read as it is: SQLite would make files beside it, in order to share it with a writer. Text
    that is no UTF-8 is read with other characters, so that its row has a wrong checksum rather than none.
    """
    uri = f"{file.absolute().as_uri()}?mode=ro{'&immutable=1' if is_backup else ''}"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.text_factory = lambda stored: stored.decode("utf-8", "replace")
    add_checksum_function(connection)
    return connection


def is_in_use(folder: Path) -> bool:
    """Whether a server, or an adoption, holds the folder's lock now. Raises OSError."""
    lock = folder / "lock"
    if not lock.exists():
        return False
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
