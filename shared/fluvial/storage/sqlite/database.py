"""The data folder: its lock, its database file, and the schema's migrations."""

import contextlib
import errno
import logging
import os
import re
import sqlite3
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import Final

from fluvial.model.errors import StartupError
from fluvial.storage.sqlite.backup.manifest import is_backup
from fluvial.storage.sqlite.checkpoints import LOG_BYTES_MAX, LOG_PAGES, PAGE_BYTES
from fluvial.storage.sqlite.checksums import add_checksum_function
from fluvial.storage.sqlite.private_files import FOLDER_MODE, create_private_file, open_privately, remove_others_access
from fluvial.storage.sqlite.segment_files import fsync_folder

if sys.platform != "win32":
    import fcntl

log = logging.getLogger(__name__)

#: Windows has neither the lock of a folder nor fsync of one.
NOT_ON_WINDOWS: Final = "fluvial keeps data on Linux and macOS; on Windows use WSL"

#: The streams' database, in the data folder.
DATABASE: Final = "fluvial.db"

#: A folder that Fluvial has used has at least one of these files.
_DATA: Final = (DATABASE, "projects.db")

_MIGRATION: Final = re.compile(r"(\d{4})_\w+\.sql")
_CACHE_KIB: Final = 16_384
_LOCK_TRIES: Final = 10
_LOCK_WAIT_S: Final = 0.02


class FolderLock:
    """Holds a data folder for this process. The kernel releases it when the process ends, also when it is killed."""

    def __init__(self, folder: Path) -> None:
        """Take the lock. Raises StartupError when another process holds it."""
        self._file = open(folder / "lock", "a+", opener=open_privately)  # noqa: SIM115  held as long as the lock
        try:
            self._take()
        except BlockingIOError as exc:
            self._file.seek(0)
            owner = self._file.read().strip() or "unknown"
            self._file.close()
            message = f"the data folder {folder} is in use by another fluvial (process {owner})"
            raise StartupError(message) from exc
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def _take(self) -> None:
        """A command that asks whether the folder is in use holds the lock for a moment; so try again a few times."""
        for _ in range(_LOCK_TRIES):
            with contextlib.suppress(BlockingIOError):
                return fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            time.sleep(_LOCK_WAIT_S)
        return fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        """Release the lock, so that another process can take it."""
        self._file.close()


def migrations() -> list[tuple[int, str]]:
    """The versions of the schema in order, each with the script that leads to it from the version before."""
    folder = files("fluvial.storage.sqlite") / "schema"
    found = [(match, entry) for entry in folder.iterdir() if (match := _MIGRATION.fullmatch(entry.name))]
    return sorted((int(match[1]), entry.read_text("utf-8")) for match, entry in found)


def connect(file: Path) -> sqlite3.Connection:
    """A connection in autocommit mode that never waits for a lock. Every COMMIT fsyncs before it returns.

    SQLite's own checkpoints are off; see `checkpoints`.
    """
    connection = sqlite3.connect(file, timeout=0, isolation_level=None, check_same_thread=False)
    add_checksum_function(connection)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA fullfsync = ON")  # macOS: through the drive's own cache, too
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES_MAX}")
    return connection


def preallocate_log(connection: sqlite3.Connection) -> None:
    """Give the write-ahead log its full size now, because an fsync that grows a file takes half as long again.

    A large transaction is begun and rolled back; the small cache makes SQLite write its pages to the log. On a full
    disk that fails, and the server starts all the same, for readers.
    """
    connection.execute("PRAGMA cache_size = 10")
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("CREATE TABLE filler (data BLOB)")
        connection.execute("INSERT INTO filler VALUES (zeroblob(?))", (LOG_PAGES * PAGE_BYTES,))
    except sqlite3.OperationalError as exc:
        log.warning("log_not_preallocated", extra={"reason": str(exc)})
    if connection.in_transaction:
        connection.execute("ROLLBACK")
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")


def migrate(connection: sqlite3.Connection) -> None:
    """Migrate the schema to the newest version, one transaction a step. Raises StartupError for a newer schema."""
    known = migrations()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    newest = known[-1][0]
    if version > newest:
        message = f"the data was written by a newer fluvial (schema {version}; this one knows up to {newest})"
        raise StartupError(message)
    for step, script in known:
        if step > version:
            connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {step};\nCOMMIT;")
    if 0 < version < newest:
        log.info("data_migrated", extra={"from_schema": version, "to_schema": newest})


def has_data(folder: Path) -> bool:
    """Whether a server has used the folder. Raises StartupError when it cannot be looked into, e.g. another user's."""
    try:
        return any((folder / name).exists() for name in _DATA)
    except OSError as exc:
        raise _unusable(folder, exc) from exc


def open_folder(folder: Path) -> FolderLock:
    """Make the data folder if it does not exist, take its lock and make its files private. Raises StartupError."""
    if sys.platform == "win32":
        raise StartupError(NOT_ON_WINDOWS)
    try:
        if is_backup(folder):
            raise StartupError(f"{folder} is a backup: fluvial restore makes a data folder of it")
        _make_durably(folder.absolute(), FOLDER_MODE)
        lock = FolderLock(folder)
        try:
            remove_others_access(folder)
        except OSError:
            lock.release()
            raise
    except OSError as exc:
        raise _unusable(folder, exc) from exc
    return lock


def _unusable(folder: Path, error: OSError) -> StartupError:
    return StartupError(f"cannot use {folder} as the data folder: {error.strerror or error}")


def _make_durably(folder: Path, mode: int = 0o777) -> None:
    """Make a folder and its missing parents durably: a power cut does not remove them again."""
    if not folder.parent.exists():
        _make_durably(folder.parent)
    if not folder.exists():
        folder.mkdir(mode, exist_ok=True)
        fsync_folder(folder.parent)
    elif not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))


def open_database(file: Path) -> sqlite3.Connection:
    """Open the database, and migrate its schema to the newest version. Raises StartupError."""
    try:
        create_private_file(file)
        connection = connect(file)
        migrate(connection)
        preallocate_log(connection)
    except (OSError, sqlite3.Error) as exc:
        message = f"cannot open {file}: {exc}"
        raise StartupError(message) from exc
    return connection
