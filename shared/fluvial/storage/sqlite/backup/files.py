"""Files of backups: durable copies and links, and a folder that appears whole or not at all."""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto
from pathlib import Path
from typing import Final

from fluvial.model.errors import StartupError
from fluvial.storage.sqlite.private_files import FOLDER_MODE, open_privately
from fluvial.storage.sqlite.segment_files import fsync_folder

PARTIAL: Final = ".partial"

_BLOCK_BYTES: Final = 1_048_576


def reason_of(error: Exception) -> str:
    """An error for a person: `No space left on device: /backups/monday.partial/fluvial.db`."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    path = error.filename2 or error.filename
    return error.strerror if path is None else f"{error.strerror}: {path}"


class Segments(Enum):
    """How segments get into a backup."""

    LINKED = auto()  # hard links where the file system can, copies elsewhere
    COPIED = auto()


def copy_file(source: Path, target: Path) -> str:
    """Copy a file durably, for its owner alone; the SHA-256 of what was copied. Raises OSError."""
    digest = hashlib.sha256()
    with source.open("rb") as read, open(target, "wb", opener=open_privately) as written:
        while block := read.read(_BLOCK_BYTES):
            digest.update(block)
            written.write(block)
        written.flush()
        os.fsync(written.fileno())
    return digest.hexdigest()


def link_or_copy(source: Path, target: Path, how: Segments) -> None:
    """Put a segment into a backup. Raises FileNotFoundError when it is gone, OSError."""
    if how is Segments.LINKED:
        try:
            target.hardlink_to(source)
        except FileNotFoundError:
            raise
        except OSError:  # another file system, or one without links
            copy_file(source, target)
    else:
        copy_file(source, target)


def fsync_folders(folder: Path) -> None:
    """Make all names below a folder durable. Raises OSError."""
    for path in folder.rglob("*"):
        if path.is_dir():
            fsync_folder(path)
    fsync_folder(folder)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `target` at the end of the block: `target` is never half full.

    It is removed when the block fails. One that a killed process left is removed first; one that a process is filling
    is not. Raises StartupError, OSError.
    """
    partial = target.with_name(target.name + PARTIAL)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial.mkdir(FOLDER_MODE, exist_ok=True)
    descriptor = os.open(partial, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise StartupError(f"another process is writing {partial}") from exc
        _empty(partial)
        try:
            yield partial
            fsync_folders(partial)
            partial.rename(target)
            fsync_folder(target.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                shutil.rmtree(partial)
            raise
    finally:
        os.close(descriptor)


def _empty(partial: Path) -> None:
    """Remove what a killed process left. Raises StartupError for a folder that has other files."""
    paths = list(partial.iterdir())
    foreign = [
        path.name for path in paths if not path.name.startswith(("fluvial.db", "projects.db", "segments", "mani"))
    ]
    if foreign:
        raise StartupError(f"{partial} is in the way, and has files of others: {foreign[0]}")
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
