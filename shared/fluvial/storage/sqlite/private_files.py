"""Private files: only the owner of a data folder can read and write it and the files in it."""

import logging
import os
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700

#: The permission bits of a file's group and of all others.
_GROUP_AND_OTHERS: Final = 0o077

#: Beginnings of the names in a data folder. `lost+found` belongs to a file system whose root is the folder.
_OWN_NAMES: Final = ("fluvial.db", "projects.db", "lock", "segments", "lost+found")


def open_privately(path: str, flags: int) -> int:
    """An opener for `open`, which creates a file for its owner alone."""
    return os.open(path, flags, FILE_MODE)


def create_private_file(path: Path) -> None:
    """Create an empty file for its owner alone, unless it exists. Raises OSError."""
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, FILE_MODE))


def remove_others_access(folder: Path) -> None:
    """Remove the permissions of other users on a data folder, which older versions, or an operator, have given.

    A folder that holds other files, too, keeps its own permissions, because it serves other purposes; Fluvial's files
    in it do not. Files of another user cannot be changed, and are logged. Raises OSError.
    """
    own_paths = [path for path in folder.iterdir() if path.name.startswith(_OWN_NAMES) and path.name != "lost+found"]
    if all(path.name.startswith(_OWN_NAMES) for path in folder.iterdir()):
        own_paths.append(folder)
    for path in own_paths:
        try:
            mode = path.stat().st_mode & 0o7777
            if mode & _GROUP_AND_OTHERS:
                path.chmod(mode & ~_GROUP_AND_OTHERS)
        except FileNotFoundError:  # the log of the projects, which another command has just closed
            continue
        except OSError as exc:
            log.warning("file_not_private", extra={"file": str(path), "reason": exc.strerror})
