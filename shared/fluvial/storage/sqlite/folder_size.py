"""How much a data folder holds, and how much more it can hold: for a thread, because it waits for the disk."""

import contextlib
import errno
import os
import sqlite3
from pathlib import Path

from fluvial.model.errors import StoreUnavailable
from fluvial.storage.observer import StoreSize
from fluvial.storage.sqlite.database import DATABASE
from fluvial.storage.sqlite.queries import SQL


def measure_folder(folder: Path) -> StoreSize:
    """Count a folder's streams and bytes; those of the segments without their indexes. Raises StoreUnavailable.

    Everything is counted, on a connection of its own. The event loop goes on meanwhile: SQLite
    lets go of the interpreter.
    """
    database = folder / DATABASE
    try:
        with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            (stream_count,) = connection.execute(SQL.stream_count).fetchone()
            (segment_bytes,) = connection.execute(SQL.segment_bytes).fetchone()
        parts = {"db": _file_bytes(database), "wal": _file_bytes(database.with_name(f"{DATABASE}-wal"))}
        return StoreSize(stream_count, {**parts, "segments": segment_bytes}, _free_bytes(folder))
    except (OSError, sqlite3.Error) as exc:
        raise StoreUnavailable from exc


def check_free_bytes(folder: Path, free_bytes_min: int) -> None:
    """Raise StoreUnavailable if the folder's disk has less free than that."""
    try:
        free_bytes = _free_bytes(folder)
    except OSError as exc:
        raise StoreUnavailable from exc
    if free_bytes < free_bytes_min:
        raise StoreUnavailable from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _free_bytes(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def _file_bytes(file: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return file.stat().st_size
    return 0
