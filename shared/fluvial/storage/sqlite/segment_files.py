"""Segment files: immutable, each one batch range of an incarnation.

A file is written whole, fsynced and renamed, and its folder is fsynced, before the database refers to it. So a crash
leaves files that the database does not know, never references to files that do not exist.

Layout: the range's bytes, then its batch ends as 64-bit little-endian integers. The file's name has the incarnation and
both positions, and the database the number of batches, so nothing else needs storing.
"""

import contextlib
import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fluvial.model.errors import StorageDamaged
from fluvial.model.head import Incarnation
from fluvial.storage.batch_range import BatchRange, pack_ends, unpack_ends
from fluvial.storage.sqlite.private_files import FOLDER_MODE, open_privately

log = logging.getLogger(__name__)

_END_BYTES: Final = 8
_PARTIAL: Final = ".partial"
_NAME: Final = re.compile(r"([0-9a-f]{16})-(\d{16})-(\d{16})\.segment")


@dataclass(frozen=True, slots=True)
class SegmentKey:
    """Which bytes of which incarnation a segment holds."""

    incarnation: Incarnation
    start: int
    end: int


class SegmentFiles:
    """The folder of segment files. Every method blocks on the disk, so it is called on a worker thread."""

    def __init__(self, folder: Path) -> None:
        """Make the folder. Raises OSError."""
        self._folder = folder
        self._durable_folders: set[Path] = set()
        folder.mkdir(FOLDER_MODE, exist_ok=True)
        fsync_folder(folder.parent)

    def path_of(self, key: SegmentKey) -> Path:
        """The path of a segment's file. Files are spread over 256 folders."""
        name = f"{key.incarnation:016x}-{key.start:016d}-{key.end:016d}.segment"
        return self._folder / f"{key.incarnation & 0xFF:02x}" / name

    def write(self, incarnation: Incarnation, content: BatchRange) -> SegmentKey:
        """Make a batch range durable as a file. Raises OSError; then at most an orphan is left."""
        key = SegmentKey(incarnation, content.start, content.end)
        path = self.path_of(key)
        if path.parent not in self._durable_folders:
            path.parent.mkdir(FOLDER_MODE, exist_ok=True)
            fsync_folder(self._folder)
            self._durable_folders.add(path.parent)
        partial = path.with_suffix(_PARTIAL)
        try:
            with open(partial, "wb", opener=open_privately) as file:
                file.write(content.data)
                file.write(pack_ends(content.ends))
                file.flush()
                os.fsync(file.fileno())
            partial.rename(path)
        except OSError:
            with contextlib.suppress(OSError):  # the disk may be full: leave it no fuller than it was
                partial.unlink(missing_ok=True)
            raise
        fsync_folder(path.parent)
        return key

    def read(self, key: SegmentKey, batch_count: int, position: int, byte_count_max: int) -> BatchRange:
        """The segment's batches from `position`, as BatchRange.cut returns them. Reads only those from the disk.

        Raises StorageDamaged when the file is missing, too short or unreadable.
        """
        data_bytes = key.end - key.start
        try:
            descriptor = os.open(self.path_of(key), os.O_RDONLY)
            try:
                packed = os.pread(descriptor, batch_count * _END_BYTES, data_bytes)
                if len(packed) != batch_count * _END_BYTES:
                    raise StorageDamaged(f"{self.path_of(key).name} is cut short")
                index = BatchRange(key.start, unpack_ends(packed), b"").cut(position, key.end, byte_count_max)
                data = os.pread(descriptor, index.end - index.start, index.start - key.start)
            finally:
                os.close(descriptor)
        except OSError as exc:
            raise StorageDamaged(f"{self.path_of(key).name} cannot be read: {exc.strerror}") from exc
        if len(data) != index.end - index.start:
            raise StorageDamaged(f"{self.path_of(key).name} is cut short")
        return BatchRange(index.start, index.ends, data)

    def remove_all(self, keys: Iterable[SegmentKey]) -> None:
        """Delete the files; missing ones are no error. Raises OSError."""
        for key in keys:
            self.path_of(key).unlink(missing_ok=True)

    def folders(self) -> list[Path]:
        """The folders that have segments. Raises OSError."""
        return sorted(path for path in self._folder.glob("??") if path.is_dir())

    def keys_in(self, folder: Path) -> list[SegmentKey]:
        """The keys of all segment files in a folder; unfinished files are deleted. Raises OSError."""
        keys = []
        for path in folder.iterdir():
            if path.suffix == _PARTIAL:
                _remove_if_possible(path)
            elif found := _NAME.fullmatch(path.name):
                keys.append(SegmentKey(Incarnation(int(found[1], 16)), int(found[2]), int(found[3])))
        return keys

    def remove_orphans(self, keys: Iterable[SegmentKey]) -> None:
        """Delete files that the database does not refer to; one that cannot be deleted does no harm and is logged."""
        for key in keys:
            _remove_if_possible(self.path_of(key))


def _remove_if_possible(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as exc:
        log.warning("file_left", extra={"file": path.name, "reason": str(exc)})


def fsync_folder(folder: Path) -> None:
    """Make the file names in a folder durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
