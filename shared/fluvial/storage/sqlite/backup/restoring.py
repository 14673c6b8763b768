"""Restoring a backup: a data folder that a server can start on, in a place that has no data."""

from pathlib import Path

from fluvial.model.errors import StartupError
from fluvial.storage.findings import Progress
from fluvial.storage.sqlite.backup.files import copy_file, new_folder, reason_of
from fluvial.storage.sqlite.backup.manifest import (
    MANIFEST,
    BackupDescription,
    ManifestDamaged,
    decode_manifest,
    is_backup,
)
from fluvial.storage.sqlite.private_files import FOLDER_MODE


def restore(backup: Path, target: Path, progress: Progress) -> tuple[BackupDescription, int]:
    """Copy a backup into a new data folder, checking each byte; what it is, and its bytes. Raises StartupError.

    The files are copied and never linked: a server writes to its databases, and the backup stays what it is.
    """
    try:
        if target.exists() and any(target.iterdir()):
            raise StartupError(f"{target} is not empty: restore into a new folder")
        if target.is_mount():
            raise StartupError(f"{target} is a mount point, which cannot be replaced: restore into a folder in it")
        content = _read_manifest(backup)
        description, files = decode_manifest(content)
        total, done = sum(file.byte_count for file in files), 0
        with new_folder(target) as folder:
            (folder / "segments").mkdir(FOLDER_MODE)
            for file in files:
                path = folder / file.path
                if not path.resolve().is_relative_to(folder.resolve()):
                    raise StartupError(f"the backup has a file outside of its folder: {file.path}")
                path.parent.mkdir(FOLDER_MODE, exist_ok=True)
                if copy_file(backup / file.path, path) != file.sha256:
                    raise StartupError(f"{backup / file.path} is not what was backed up: see fluvial verify {backup}")
                done += file.byte_count
                progress("restore", done, total)
    except ManifestDamaged as exc:
        raise StartupError(f"{backup / MANIFEST}: {exc}") from exc
    except OSError as exc:
        raise StartupError(f"cannot restore {backup} to {target}: {reason_of(exc)}") from exc
    return description, done


def _read_manifest(backup: Path) -> bytes:
    if not is_backup(backup):
        raise StartupError(f"{backup} is not a backup: it has no {MANIFEST}")
    return (backup / MANIFEST).read_bytes()
