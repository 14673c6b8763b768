"""Segment files: that each is there with the bytes that were written, and that no other file is."""

from collections.abc import Callable
from pathlib import Path

from fluvial.model.errors import StorageDamaged
from fluvial.model.head import Incarnation
from fluvial.storage.findings import Findings, Place, place_in
from fluvial.storage.sqlite.segment_files import (
    SegmentLayout,
    parse_segment_name,
    segment_path,
    unpack_index,
)
from fluvial.storage.sqlite.verification.streams import OwnedSegment

#: Whether an incarnation has not ended, as of now.
IsLive = Callable[[Incarnation], bool]


def check_segments(folder: Path, segments: list[OwnedSegment], is_live: IsLive, findings: Findings) -> None:
    """Check the file of each segment. One that is gone because its stream was deleted meanwhile is no problem."""
    total, done = sum(owned.segment.byte_count for owned in segments), 0
    for owned in segments:
        path = segment_path(folder / "segments", owned.segment.key)
        name = str(path.relative_to(folder))
        try:
            content = path.read_bytes()
        except OSError as exc:
            if is_live(owned.segment.key.incarnation):
                place = place_in(name, owned.name, owned.head, owned.segment.key.start)
                findings.problem(place, f"cannot be read: {exc.strerror}")
        else:
            _check_content(name, content, owned, findings)
        done += owned.segment.byte_count
        findings.progress("segments", done, total)


def _check_content(file: str, content: bytes, owned: OwnedSegment, findings: Findings) -> None:
    segment, key = owned.segment, owned.segment.key
    findings.count("segments")
    findings.count("bytes", len(content))
    findings.count("batches", segment.batch_count)
    place = place_in(file, owned.name, owned.head, key.start)
    if len(content) != segment.byte_count:
        findings.problem(place, f"has {len(content)} bytes instead of {segment.byte_count}")
        return
    data = memoryview(content)[: key.end - key.start]
    try:
        index = unpack_index(segment, content[len(data) :])
    except StorageDamaged as exc:
        findings.problem(place, str(exc))
        return
    begins = (key.start, *index.ends[:-1])
    if any(begin >= end for begin, end in zip(begins, index.ends, strict=True)) or index.ends[-1] != key.end:
        findings.problem(place, "its batches do not fill it")
        return
    if segment.layout is SegmentLayout.ENDS:
        findings.count("segments without checksums")
        return
    damaged = [
        begin
        for begin, end in zip(begins, index.ends, strict=True)
        if not index.has_right_data(begin, end, bytes(data[begin - key.start : end - key.start]))
    ]
    if damaged:
        place = place_in(file, owned.name, owned.head, damaged[0])
        findings.problem(place, f"the checksum is wrong of {len(damaged)} of {len(begins)} batches")


def check_file_names(folder: Path, segments: list[OwnedSegment], findings: Findings) -> None:
    """Report files that no segment has: a killed process may leave some, and the next server removes them."""
    used = {segment_path(folder / "segments", owned.segment.key) for owned in segments}
    for path in sorted((folder / "segments").rglob("*")):
        if path in used or (path.is_dir() and path.parent == folder / "segments" and len(path.name) == 2):  # noqa: PLR2004  hexadecimal digits
            continue
        place = Place(str(path.relative_to(folder)))
        if path.suffix == ".partial":
            findings.note(place, "is not finished: a process was killed, or is writing it")
        elif parse_segment_name(path.name) is not None:
            findings.note(place, "is of no stream: a process was killed, or is writing or removing it")
        else:
            findings.note(place, "is not a file of fluvial")
