"""Private files: a data folder, and all that is in it, is for its owner alone."""

import logging
import os
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700

#: What others on the machine may do with a file.
_OTHERS: Final = 0o077

#: What is in a data folder, by the beginning of its name; the last one is a file system's own.
_OURS: Final = ("fluvial.db", "projects.db", "lock", "segments", "lost+found")


def open_privately(path: str, flags: int) -> int:
    """An opener for `open`: a file that is made by it is its owner's alone."""
    return os.open(path, flags, FILE_MODE)


def make_file(path: Path) -> None:
    """Make an empty file, unless it is there. Raises OSError."""
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, FILE_MODE))


def tighten(folder: Path) -> None:
    """Take away from others what older versions, or another hand, have let them do with a data folder.

    A folder that holds anything else is somebody's who did not mean it for Fluvial alone, and stays as it is; our
    files in it do not. What belongs to another user cannot be changed, and is logged. Raises OSError.
    """
    ours = [path for path in folder.iterdir() if path.name.startswith(_OURS) and path.name != "lost+found"]
    if all(path.name.startswith(_OURS) for path in folder.iterdir()):
        ours.append(folder)
    for path in ours:
        try:
            mode = path.stat().st_mode & 0o7777
            if mode & _OTHERS:
                path.chmod(mode & ~_OTHERS)
        except FileNotFoundError:  # of the projects, which another command has just closed
            continue
        except OSError as exc:
            log.warning("file_not_private", extra={"file": str(path), "reason": exc.strerror})
