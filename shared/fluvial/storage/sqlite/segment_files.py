"""Segment files: immutable, each one batch range of an incarnation.

A file is written whole, fsynced and renamed, and its folder is fsynced, before the database refers to it. So a crash
leaves files that the database does not know, never references to files that do not exist.

Layout: the range's bytes; its batch ends as 64-bit little-endian integers; a checksum for each batch as a 32-bit
integer; the checksum of these ends and checksums. The file's name has the incarnation and both positions, and the
database the number of batches and the layout, so nothing else needs storing. Files of older servers (layout 1) have no
checksums.

A batch's checksum is the CRC-32 of the key and of all bytes from the file's start to the batch's end. So any run of
batches is checked without the others: its bytes lead from the checksum before it to its last one.
"""

import contextlib
import logging
import os
import re
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

from fluvial.model.errors import StorageDamaged
from fluvial.model.head import Incarnation
from fluvial.storage.batch_range import BatchRange, pack_ends, unpack_ends
from fluvial.storage.sqlite.private_files import FOLDER_MODE, open_privately

log = logging.getLogger(__name__)

_END_BYTES: Final = 8
_CHECKSUM_BYTES: Final = 4
_PARTIAL: Final = ".partial"
_NAME: Final = re.compile(r"([0-9a-f]{16})-(\d{16})-(\d{16})\.segment")


@dataclass(frozen=True, slots=True)
class SegmentKey:
    """Which bytes of which incarnation a segment holds."""

    incarnation: Incarnation
    start: int
    end: int

    @property
    def seed(self) -> int:
        """The checksum before the first batch: bytes of another segment never lead to this one's checksums."""
        return zlib.crc32(struct.pack("<3q", self.incarnation, self.start, self.end))


class SegmentLayout(IntEnum):
    """What a segment's file has behind the bytes."""

    ENDS = 1
    ENDS_AND_CHECKSUMS = 2


@dataclass(frozen=True, slots=True)
class StoredSegment:
    """What the database knows of a segment."""

    key: SegmentKey
    batch_count: int
    layout: SegmentLayout

    @property
    def index_bytes(self) -> int:
        """The length of what is behind the bytes."""
        if self.layout is SegmentLayout.ENDS:
            return self.batch_count * _END_BYTES
        return self.batch_count * (_END_BYTES + _CHECKSUM_BYTES) + _CHECKSUM_BYTES

    @property
    def byte_count(self) -> int:
        """The length of the file."""
        return self.key.end - self.key.start + self.index_bytes


@dataclass(frozen=True, slots=True)
class SegmentIndex:
    """The ends of a segment's batches, and their checksums; without these in the older layout."""

    key: SegmentKey
    ends: tuple[int, ...]
    checksums: tuple[int, ...]

    def has_right_data(self, start: int, end: int, data: bytes) -> bool:
        """Whether the bytes of the batches from `start` to `end` are those that were written."""
        if not self.checksums:
            return True
        first, after = bisect_right(self.ends, start), bisect_right(self.ends, end)
        before = self.checksums[first - 1] if first else self.key.seed
        return zlib.crc32(data, before) == self.checksums[after - 1]


def pack_index(key: SegmentKey, content: BatchRange) -> bytes:
    """What is behind the bytes in the file of a batch range."""
    checksums, checksum, begin, data = list[int](), key.seed, content.start, memoryview(content.data)
    for end in content.ends:
        checksum = zlib.crc32(data[begin - content.start : end - content.start], checksum)
        checksums.append(checksum)
        begin = end
    packed = pack_ends(content.ends) + struct.pack(f"<{len(checksums)}I", *checksums)
    return packed + struct.pack("<I", zlib.crc32(packed, key.seed))


def unpack_index(segment: StoredSegment, packed: bytes) -> SegmentIndex:
    """Decode the result of `pack_index`. Raises StorageDamaged."""
    name = segment_name(segment.key)
    if len(packed) != segment.index_bytes:
        raise StorageDamaged(f"{name} is cut short")
    if segment.layout is SegmentLayout.ENDS:
        return SegmentIndex(segment.key, unpack_ends(packed), ())
    if zlib.crc32(packed[:-_CHECKSUM_BYTES], segment.key.seed) != struct.unpack("<I", packed[-_CHECKSUM_BYTES:])[0]:
        raise StorageDamaged(f"the checksum of the batch ends of {name} is wrong")
    split = segment.batch_count * _END_BYTES
    checksums = struct.unpack(f"<{segment.batch_count}I", packed[split:-_CHECKSUM_BYTES])
    return SegmentIndex(segment.key, unpack_ends(packed[:split]), checksums)


def segment_name(key: SegmentKey) -> str:
    """The name of a segment's file."""
    return f"{key.incarnation:016x}-{key.start:016d}-{key.end:016d}.segment"


def segment_path(folder: Path, key: SegmentKey) -> Path:
    """The path of a segment's file in the folder of segments. Files are spread over 256 folders."""
    return folder / f"{key.incarnation & 0xFF:02x}" / segment_name(key)


def parse_segment_name(name: str) -> SegmentKey | None:
    """The key of the segment whose file has the name; None for another file."""
    found = _NAME.fullmatch(name)
    return None if found is None else SegmentKey(Incarnation(int(found[1], 16)), int(found[2]), int(found[3]))


class SegmentFiles:
    """The folder of segment files. Every method blocks on the disk, so it is called on a worker thread."""

    def __init__(self, folder: Path) -> None:
        """Make the folder. Raises OSError."""
        self._folder = folder
        self._durable_folders: set[Path] = set()
        folder.mkdir(FOLDER_MODE, exist_ok=True)
        fsync_folder(folder.parent)

    def path_of(self, key: SegmentKey) -> Path:
        """The path of a segment's file."""
        return segment_path(self._folder, key)

    def write(self, incarnation: Incarnation, content: BatchRange) -> StoredSegment:
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
                file.write(pack_index(key, content))
                file.flush()
                os.fsync(file.fileno())
            partial.rename(path)
        except OSError:
            with contextlib.suppress(OSError):  # the disk may be full: leave it no fuller than it was
                partial.unlink(missing_ok=True)
            raise
        fsync_folder(path.parent)
        return StoredSegment(key, len(content.ends), SegmentLayout.ENDS_AND_CHECKSUMS)

    def read(self, segment: StoredSegment, position: int, byte_count_max: int) -> BatchRange:
        """The segment's batches from `position`, as BatchRange.cut returns them. Reads only those from the disk.

        Raises StorageDamaged when the file is missing, too short, unreadable or has a wrong checksum.
        """
        key, name = segment.key, segment_name(segment.key)
        try:
            descriptor = os.open(self.path_of(key), os.O_RDONLY)
            try:
                index = unpack_index(segment, os.pread(descriptor, segment.index_bytes, key.end - key.start))
                found = BatchRange(key.start, index.ends, b"").cut(position, key.end, byte_count_max)
                data = os.pread(descriptor, found.end - found.start, found.start - key.start)
            finally:
                os.close(descriptor)
        except OSError as exc:
            raise StorageDamaged(f"{name} cannot be read: {exc.strerror}") from exc
        if len(data) != found.end - found.start:
            raise StorageDamaged(f"{name} is cut short")
        if not index.has_right_data(found.start, found.end, data):
            raise StorageDamaged(f"the checksum of {name} is wrong from {found.start} to {found.end}")
        return BatchRange(found.start, found.ends, data)

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
            elif (key := parse_segment_name(path.name)) is not None:
                keys.append(key)
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
