"""The form of an export: lines of JSON. One stream after another, each with a first line, its parts, and a last line.

    {"export":1,"stream":"a","contentType":"text/plain","closed":false,"ttlSeconds":null,"expiresAt":null}
    {"offset":"…","data":"some text"}
    {"end":{"parts":1,"sha256":"…"}}

`offset` is the one after the part. `data` is text or, of a JSON stream, a list of messages; bytes other than UTF-8 are
in `base64`. The checksum is of all lines of the stream before the last one, so an export that was cut off or changed is
noticed.
"""

import hashlib
from base64 import b64decode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import msgspec

from fluvial.client.errors import ClientError
from fluvial.client.streams import NewStream, StreamState
from fluvial.model.content_type import is_json

VERSION: Final = 1

#: A JSON message has at least two bytes with its comma, and a server takes only so many with one request.
_MESSAGES_PER_APPEND_MAX: Final = 10_000

#: Small enough for a server with default settings; only a single message may be larger.
_APPEND_BYTES_MAX: Final = 1_048_576


class DamagedExport(ClientError):
    """The file is no export, or was cut off or changed."""


class Header(msgspec.Struct, frozen=True, rename="camel"):
    """The first line of a stream's export."""

    export: int
    stream: str
    content_type: str
    closed: bool
    ttl_seconds: int | None = None
    expires_at: str | None = None

    @property
    def new_stream(self) -> NewStream:
        """The stream to create for an import. It is closed only after its contents are there."""
        return NewStream(self.content_type, self.ttl_seconds, self.expires_at)


class _Ending(msgspec.Struct, frozen=True):
    parts: int
    sha256: str


class _Line(msgspec.Struct, frozen=True):
    """Any line after the first."""

    offset: str | None = None
    data: msgspec.Raw = msgspec.Raw()
    base64: str | None = None
    end: _Ending | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """One stream in a file: its header, where its parts begin and end, how many they are, and the checksum."""

    header: Header
    start: int
    end: int
    part_count: int
    sha256: str


class ExportWriter:
    """Makes the lines of one stream."""

    def __init__(self, name: str, state: StreamState) -> None:
        """For a stream in this state."""
        self._hash = hashlib.sha256()
        self._parts = 0
        header = Header(VERSION, name, state.content_type, state.closed, state.ttl_seconds, state.expires_at)
        self.first = msgspec.json.encode(header) + b"\n"
        self._hash.update(self.first)

    def add(self, line: bytes) -> bytes:
        """Count a part's line."""
        self._hash.update(line)
        self._parts += 1
        return line

    @property
    def last(self) -> bytes:
        """The last line."""
        return msgspec.json.encode({"end": _Ending(self._parts, self._hash.hexdigest())}) + b"\n"


def check_sections(file: BinaryIO) -> list[Section]:
    """The streams of a file, read once to its end. Raises DamagedExport."""
    sections, number = list[Section](), 0
    lines = iter(file.readline, b"")
    for first in lines:
        number += 1
        header = _decode(first, Header, number)
        if header.export != VERSION:
            message = f"line {number:,}: the export is of a version that this program does not know"
            raise DamagedExport(message)
        start = end = file.tell()
        digest, parts = hashlib.sha256(first), 0
        for text in lines:
            number += 1
            line = _decode(text, _Line, number)
            if line.end is not None:
                if (line.end.parts, line.end.sha256) != (parts, digest.hexdigest()):
                    message = f"line {number:,}: the checksum of {header.stream} is wrong: the export was changed"
                    raise DamagedExport(message)
                break
            digest.update(text)
            end += len(text)
            parts += 1
        else:
            message = f"the export of {header.stream} was cut off after {parts:,} parts"
            raise DamagedExport(message)
        sections.append(Section(header, start, end, parts, digest.hexdigest()))
    if not sections:
        message = "the file is empty"
        raise DamagedExport(message)
    return sections


def _decode(text: bytes, kind: type[Any], number: int) -> Any:  # noqa: ANN401  a `kind`
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        message = f"line {number:,} is not one of an export, or was cut off: {exc}"
        raise DamagedExport(message) from exc


def bodies_of(file: BinaryIO, section: Section) -> Iterator[bytes]:
    """The bodies to append, in order and each time the same, none larger than a server takes."""
    file.seek(section.start)
    for number in range(section.part_count):
        line: _Line = _decode(file.readline(), _Line, number)
        if line.base64 is not None:
            yield from _pieces(b64decode(line.base64))
        elif not bytes(line.data):
            message = f"a part of {section.header.stream} has no data"
            raise DamagedExport(message)
        elif is_json(section.header.content_type):
            yield from _arrays(msgspec.json.decode(line.data, type=list[msgspec.Raw]))
        else:
            yield from _pieces(msgspec.json.decode(line.data, type=str).encode())


def _pieces(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), _APPEND_BYTES_MAX):
        yield body[start : start + _APPEND_BYTES_MAX]


def _arrays(messages: Iterable[msgspec.Raw]) -> Iterator[bytes]:
    found, found_bytes = list[bytes](), 0
    for message in map(bytes, messages):
        if found and (len(found) == _MESSAGES_PER_APPEND_MAX or found_bytes + len(message) > _APPEND_BYTES_MAX):
            yield b"[" + b",".join(found) + b"]"
            found, found_bytes = [], 0
        found.append(message)
        found_bytes += len(message)
    if found:
        yield b"[" + b",".join(found) + b"]"
