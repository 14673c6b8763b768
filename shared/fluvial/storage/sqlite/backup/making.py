"""Making a backup of a data folder, beside a server that writes to it or without one.

What would go wrong in another order (docs/decisions/0014 has the whole list):

1. SQLite's online backup in small steps begins anew whenever another process writes, so beside a busy server it never
   ends. Within one read transaction it reads one state, and no write disturbs it. Meanwhile the server's log grows.
2. The streams' transaction begins before the projects'. The other way round: the projects are read, the first project
   is made, streams are written for its tokens alone, the streams are read; and the backup is an open server's.
3. The database names segments. Garbage collection deletes a segment's file after its stream's deletion is committed.
   So the files come first, and a file that is gone means that its stream has ended: a new transaction does not name it.
   The databases are copied in a transaction all of whose segments are in the backup already.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fluvial.model.errors import StartupError
from fluvial.model.head import Incarnation
from fluvial.storage.findings import Finding, Findings, Progress
from fluvial.storage.sqlite.backup.files import Segments, link_or_copy, new_folder, reason_of
from fluvial.storage.sqlite.backup.manifest import (
    MANIFEST,
    BackupDescription,
    BackupFile,
    encode_manifest,
    hash_file,
    is_backup,
)
from fluvial.storage.sqlite.database import DATABASE
from fluvial.storage.sqlite.private_files import FOLDER_MODE, create_private_file, open_privately
from fluvial.storage.sqlite.read_only import connect_read_only
from fluvial.storage.sqlite.segment_files import SegmentKey, segment_path
from fluvial.storage.sqlite.verification.projects import PROJECTS
from fluvial.storage.sqlite.verification.write_ahead_log import check_logs

#: The pages that SQLite copies before progress is shown: 16 MiB.
_PAGES_PER_STEP: Final = 4_096

#: Transactions that were begun because a stream was deleted just then; each leaves fewer segments to link.
SNAPSHOTS_MAX: Final = 1_000

#: The segments of streams that have not ended. Those of ended ones are never read again.
_SEGMENTS: Final = """
SELECT segment.incarnation, start_offset, end_offset FROM segment JOIN stream USING (incarnation)"""


@dataclass(slots=True)
class Backup:
    """One backup while it is made. `source` is a data folder."""

    source: Path
    description: BackupDescription
    how: Segments
    progress: Progress
    _linked: set[SegmentKey] = field(default_factory=set)

    def make(self, target: Path) -> list[BackupFile]:
        """Make the backup; the folder `target` appears when it is complete. Raises StartupError."""
        if target.exists():
            raise StartupError(f"{target} exists: give a new folder")
        if target.absolute().resolve().is_relative_to(self.source.resolve()):
            raise StartupError(f"{target} is in the data folder: give a folder elsewhere")
        if any(is_backup(parent) for parent in target.absolute().resolve().parents):
            raise StartupError(f"{target} is in another backup: give a folder elsewhere")
        try:
            check_logs(self.source, (DATABASE, PROJECTS), Findings(_refuse, self.progress))
            with new_folder(target) as folder:
                (folder / "segments").mkdir(FOLDER_MODE)
                self._copy_data(folder)
                files = self._describe(folder)
                with open(folder / MANIFEST, "xb", opener=open_privately) as file:
                    file.write(encode_manifest(self.description, files))
                    file.flush()
                    os.fsync(file.fileno())
        except (OSError, sqlite3.Error) as exc:
            raise StartupError(f"cannot back up {self.source} to {target}: {reason_of(exc)}") from exc
        return files

    def _copy_data(self, folder: Path) -> None:
        """Link the segments and copy the databases, all of one moment."""
        with self._snapshot() as snapshot:
            keys = snapshot.segments()
        self._link(keys, folder)  # outside of a transaction, because copies may take long
        for _ in range(SNAPSHOTS_MAX):
            with self._snapshot() as snapshot:
                keys = snapshot.segments()
                if self._link(keys, folder):
                    snapshot.copy_to(folder, self.progress)
                    break
        else:
            raise StartupError("streams are deleted faster than their segments can be copied: try again")
        for key in self._linked - set(keys):
            segment_path(folder / "segments", key).unlink()

    @contextmanager
    def _snapshot(self) -> Iterator["_Snapshot"]:
        """The databases' states of one moment, the streams' first."""
        with contextlib.ExitStack() as opened:
            connections = dict[str, sqlite3.Connection]()
            for name in (DATABASE, PROJECTS):
                if (self.source / name).exists():
                    connections[name] = connection = connect_read_only(self.source / name)
                    opened.callback(connection.close)
                    connection.execute("BEGIN")
                    connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            yield _Snapshot(connections)

    def _link(self, keys: list[SegmentKey], folder: Path) -> bool:
        """Put segments into the backup that are not in it yet; whether all were there."""
        is_complete = True
        for done, key in enumerate(keys):
            if key in self._linked:
                continue
            source, target = (segment_path(one / "segments", key) for one in (self.source, folder))
            target.parent.mkdir(FOLDER_MODE, exist_ok=True)
            try:
                link_or_copy(source, target, self.how)
            except FileNotFoundError as exc:
                is_complete = False
                self._check_stream_ended(key, exc)
            else:
                self._linked.add(key)
            self.progress("segments", done + 1, len(keys))
        return is_complete

    def _check_stream_ended(self, key: SegmentKey, error: OSError) -> None:
        """A file that is gone although its stream is there is damage. Raises StartupError."""
        with self._snapshot() as now:
            if now.is_live(key.incarnation):
                raise StartupError(f"a segment is missing ({error}): see fluvial verify") from error

    def _describe(self, folder: Path) -> list[BackupFile]:
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        total, done, files = sum(path.stat().st_size for path in paths), 0, list[BackupFile]()
        for path in paths:
            byte_count, digest = hash_file(path)
            files.append(BackupFile(str(path.relative_to(folder)), byte_count, digest))
            done += byte_count
            self.progress("checksums", done, total)
        return files


def _refuse(finding: Finding) -> None:
    """Without its log, SQLite would read an older state, and say nothing. Raises StartupError."""
    raise StartupError(f"{finding}. Starting a server gives these transactions up")


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """Open read transactions."""

    connections: dict[str, sqlite3.Connection]

    def segments(self) -> list[SegmentKey]:
        """The segments of all streams."""
        streams = self.connections.get(DATABASE)
        if streams is None:
            return []
        return [SegmentKey(Incarnation(row[0]), row[1], row[2]) for row in streams.execute(_SEGMENTS)]

    def is_live(self, incarnation: Incarnation) -> bool:
        """Whether an incarnation has not ended."""
        found = self.connections[DATABASE].execute("SELECT 1 FROM stream WHERE incarnation = ?", (incarnation,))
        return found.fetchone() is not None

    def copy_to(self, folder: Path, progress: Progress) -> None:
        """Copy the databases, each as one durable file without a log."""
        for name, source in self.connections.items():
            create_private_file(folder / name)
            with contextlib.closing(sqlite3.connect(folder / name, isolation_level=None)) as target:
                source.backup(
                    target,
                    pages=_PAGES_PER_STEP,
                    progress=lambda _, left, total, name=name: progress(name, total - left, total),  # type: ignore[misc]
                )
            with (folder / name).open("rb") as file:
                os.fsync(file.fileno())
