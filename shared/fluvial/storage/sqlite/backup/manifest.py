"""The manifest of a backup: the length and the SHA-256 of each of its files, and of the manifest itself.

A file of JSON lines. The first says what the backup is, the last has the SHA-256 of all lines before it, and each line
between them is one file. A backup is complete when it has this file: it is written last.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from fluvial.model.errors import FluvialError

MANIFEST: Final = "manifest.jsonl"

_FORMAT: Final = "fluvial-backup-1"
_BLOCK_BYTES: Final = 1_048_576


class ManifestDamaged(FluvialError):
    """The manifest is not what was written."""


class BackupDescription(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a backup is: who made it, and the time of the state that it has."""

    format: str = _FORMAT
    version: str
    made_at: str


class BackupFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a backup. The path begins at the backup's folder."""

    path: str
    byte_count: int
    sha256: str


class _Seal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sha256: str


def is_backup(folder: Path) -> bool:
    """Whether a folder is a complete backup. Raises OSError."""
    return (folder / MANIFEST).exists()


def encode_manifest(description: BackupDescription, files: Iterable[BackupFile]) -> bytes:
    """The content of the manifest."""
    lines = b"".join(msgspec.json.encode(line) + b"\n" for line in (description, *files))
    return lines + msgspec.json.encode(_Seal(hashlib.sha256(lines).hexdigest())) + b"\n"


def decode_manifest(content: bytes) -> tuple[BackupDescription, list[BackupFile]]:
    """Decode the result of `encode_manifest`. Raises ManifestDamaged for any other bytes."""
    try:
        first, *lines, _, rest = content.split(b"\n")
        description = msgspec.json.decode(first, type=BackupDescription)
        files = [msgspec.json.decode(line, type=BackupFile) for line in lines]
    except (ValueError, msgspec.DecodeError) as exc:
        raise ManifestDamaged("the manifest is damaged") from exc
    if rest or description.format != _FORMAT or encode_manifest(description, files) != content:
        raise ManifestDamaged("the manifest is damaged")
    return description, files


def hash_file(path: Path) -> tuple[int, str]:
    """The length and the SHA-256 of a file. Raises OSError."""
    digest, byte_count = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            byte_count += len(block)
    return byte_count, digest.hexdigest()
