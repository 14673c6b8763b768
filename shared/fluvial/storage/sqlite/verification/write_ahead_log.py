"""The write-ahead log of a database that no process has open: whether SQLite will read all of it.

Each frame's checksum continues that of the frame before (https://www.sqlite.org/fileformat.html#walformat). SQLite
reads the log up to the last commit before the first frame that is wrong, and says nothing: with a flipped bit in the
middle of the log, the newest transactions are silently gone, although they were acknowledged. So the frames behind that
place are looked at, too. The log is written from its beginning, and frames of its last round have other salts. A frame
of this round that ends a transaction, behind the first wrong frame, is only there because the log went on to it.

Frames of a transaction that was rolled back may be there as well; none of them ends a transaction.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from fluvial.storage.findings import Finding, Findings, Place
from fluvial.storage.sqlite.read_only import is_in_use

_HEADER: Final = struct.Struct(">8I")
_FRAME: Final = struct.Struct(">6I")
_LITTLE, _BIG = 0x377F0682, 0x377F0683
_WORD_BITS: Final = 32

_Sums = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Frame:
    """One frame of the log. `page_count` is the database's length after a commit, 0 within a transaction."""

    page_number: int
    page_count: int
    salts: _Sums
    sums: _Sums
    page: bytes


#: SQLite's name for the log is the database's name and this.
LOG_SUFFIX: Final = "-wal"


def check_logs(folder: Path, names: Iterable[str], findings: Findings) -> None:
    """Check the logs of a data folder's databases, unless a server uses them: they would change while they are read.

    What was found is forgotten if a server has started meanwhile. Raises OSError.
    """
    if is_in_use(folder):
        return
    found = list[Finding]()
    meanwhile = Findings(found.append, findings.progress)
    for name in names:
        check_log(folder / (name + LOG_SUFFIX), meanwhile)
    if not is_in_use(folder):
        findings.add(found, meanwhile.totals)


def check_log(file: Path, findings: Findings) -> None:
    """Check the log, if there is one. Raises OSError."""
    if not file.exists() or not file.stat().st_size:
        return
    with file.open("rb") as opened:
        header = opened.read(_HEADER.size)
        place = Place(file.name)
        if len(header) < _HEADER.size:
            findings.problem(place, "the log's header is cut short")
            return
        magic, _, page_bytes, _, *salts, first, second = _HEADER.unpack(header)
        if magic not in {_LITTLE, _BIG} or _sums(magic, (0, 0), header[:24]) != (first, second):
            findings.problem(place, "the log's header is damaged: the database is read without its newest changes")
            return
        total = file.stat().st_size
        frames = _read_frames(opened, page_bytes, total, findings)
        _check_frames(magic, (salts[0], salts[1]), (first, second), frames, _Finder(place, findings))


@dataclass(frozen=True, slots=True)
class _Finder:
    """Reports problems of one file."""

    place: Place
    findings: Findings


def _read_frames(opened: BinaryIO, page_bytes: int, total: int, findings: Findings) -> Iterator[_Frame]:
    """All whole frames of the file."""
    while True:
        header, page = opened.read(_FRAME.size), opened.read(page_bytes)
        if len(page) < page_bytes:
            return
        page_number, page_count, *rest = _FRAME.unpack(header)
        findings.count("log frames")
        findings.progress("write-ahead log", opened.tell(), total)
        yield _Frame(page_number, page_count, (rest[0], rest[1]), (rest[2], rest[3]), page)


def _check_frames(magic: int, salts: _Sums, sums: _Sums, frames: Iterator[_Frame], finder: _Finder) -> None:
    number = 0
    for frame in frames:
        number += 1
        expected = _frame_sums(magic, sums, frame, frame.page_count)
        if frame.salts != salts or frame.sums != expected:
            break
        sums = expected
    else:
        return
    if _is_damaged_last(magic, salts, sums, frame) or any(one.page_count and one.salts == salts for one in frames):
        finder.findings.problem(finder.place, f"frame {number} is damaged: the transactions from there on are lost")


def _is_damaged_last(magic: int, salts: _Sums, sums: _Sums, frame: _Frame) -> bool:
    """Whether the first frame that is wrong ended a transaction, before one of its bits flipped."""
    flipped = (frame.salts[0] ^ salts[0]).bit_count() + (frame.salts[1] ^ salts[1]).bit_count()
    if flipped > 1:
        return False
    if frame.page_count:
        return True
    ends = (1 << bit for bit in range(_WORD_BITS))
    return any(_frame_sums(magic, sums, frame, page_count) == frame.sums for page_count in ends)


def _frame_sums(magic: int, before: _Sums, frame: _Frame, page_count: int) -> _Sums:
    return _sums(magic, before, struct.pack(">2I", frame.page_number, page_count) + frame.page)


def _sums(magic: int, before: _Sums, data: bytes) -> _Sums:
    """SQLite's checksum of whole 64-bit words, after the checksum of what is before them."""
    words = struct.unpack(f"{'<' if magic == _LITTLE else '>'}{len(data) // 4}I", data)
    first, second = before
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second
