"""A whole data folder, beside a server or without one, or a whole backup."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fluvial.model.head import Incarnation
from fluvial.storage.findings import Findings, Place
from fluvial.storage.sqlite.backup.manifest import MANIFEST, ManifestDamaged, decode_manifest, hash_file, is_backup
from fluvial.storage.sqlite.database import DATABASE
from fluvial.storage.sqlite.read_only import connect_read_only
from fluvial.storage.sqlite.verification.databases import UNREADABLE, DatabaseCheck
from fluvial.storage.sqlite.verification.projects import PROJECTS, check_projects
from fluvial.storage.sqlite.verification.segments import check_file_names, check_segments
from fluvial.storage.sqlite.verification.streams import StreamsCheck
from fluvial.storage.sqlite.verification.write_ahead_log import LOG_SUFFIX, check_logs

#: Files of a data folder besides its segments. `lost+found` belongs to a file system whose root is the folder.
_KNOWN: Final = {
    *(name + suffix for name in (DATABASE, PROJECTS) for suffix in ("", LOG_SUFFIX, "-shm")),
    *("lock", "segments", "lost+found"),
}


def check_folder(folder: Path, findings: Findings) -> None:
    """Check each byte that is used. Raises OSError when the folder itself cannot be read."""
    is_complete_backup = is_backup(folder)
    if is_complete_backup:
        _check_manifest(folder, findings)
    else:
        for path in sorted(folder.iterdir()):
            if path.name not in _KNOWN:
                findings.note(Place(path.name), "is not a file of fluvial")
        check_logs(folder, (DATABASE, PROJECTS), findings)
    with _open(folder, PROJECTS, findings, is_backup=is_complete_backup) as database:
        if database is not None:
            check_projects(database)
    with _open(folder, DATABASE, findings, is_backup=is_complete_backup) as database:
        if database is None:
            return
        streams = StreamsCheck(database)
        streams.run()
    check_segments(folder, streams.segments, lambda one: is_complete_backup or _is_live(folder, one), findings)
    if not is_complete_backup:
        check_file_names(folder, streams.segments, findings)


@contextmanager
def _open(folder: Path, name: str, findings: Findings, *, is_backup: bool) -> Iterator[DatabaseCheck | None]:
    if not (folder / name).exists():
        what = "is missing: without it everybody may use the streams" if name == PROJECTS else "is missing"
        findings.problem(Place(name), what)
        yield None
        return
    try:
        connection = connect_read_only(folder / name, is_backup=is_backup)
    except UNREADABLE as exc:
        findings.problem(Place(name), f"cannot be read: {exc}")
        yield None
        return
    with contextlib.closing(connection):
        yield DatabaseCheck(connection, name, findings)


def _is_live(folder: Path, incarnation: Incarnation) -> bool:
    """Whether an incarnation has not ended since the check of the database began."""
    try:
        with contextlib.closing(connect_read_only(folder / DATABASE)) as connection:
            found = connection.execute("SELECT 1 FROM stream WHERE incarnation = ?", (incarnation,))
            return found.fetchone() is not None
    except UNREADABLE:
        return True


def _check_manifest(folder: Path, findings: Findings) -> None:
    """Compare each file of a backup with the manifest; a file that it does not have is a problem, too."""
    try:
        _, files = decode_manifest((folder / MANIFEST).read_bytes())
    except (ManifestDamaged, OSError) as exc:
        findings.problem(Place(MANIFEST), str(exc))
        return
    total, done = sum(file.byte_count for file in files), 0
    for file in files:
        path = folder / file.path
        try:
            if hash_file(path) != (file.byte_count, file.sha256):
                findings.problem(Place(file.path), "is not what was backed up: its SHA-256 is another one")
        except OSError as exc:
            findings.problem(Place(file.path), f"cannot be read: {exc.strerror}")
        done += file.byte_count
        findings.count("files")
        findings.progress("manifest", done, total)
    known = {MANIFEST, *(file.path for file in files)}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_dir() and name not in known:
            findings.problem(Place(name), "is not in the manifest")
