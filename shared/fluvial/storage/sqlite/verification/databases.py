"""What both databases have: pages and indexes that SQLite checks itself, a schema, and rows with checksums."""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from fluvial.model.errors import StorageDamaged
from fluvial.storage.findings import Findings, Place
from fluvial.storage.sqlite.checksums import add_checksum_function, check_row
from fluvial.storage.sqlite.rows import Row

#: What reading a damaged database raises; the second is for a message that quotes damaged text.
UNREADABLE: Final = (sqlite3.Error, UnicodeDecodeError)

#: Messages of SQLite's own check; a damaged page may have very many.
_MESSAGES_MAX: Final = 20

#: SQLite's virtual machine reports progress after so many of its steps.
_STEPS: Final = 100_000

_SCHEMA: Final = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name"


@dataclass(frozen=True, slots=True)
class DatabaseCheck:
    """A database that is read in one transaction, so that it does not change meanwhile."""

    connection: sqlite3.Connection
    file: str
    findings: Findings

    def begin(self, versions: list[tuple[int, str]]) -> int | None:
        """Begin the transaction, and check the pages and the schema; the schema's version, None for an unknown one.

        `versions` has each version of the schema, with the script that leads to it from the one before.
        """
        try:
            self.connection.execute("BEGIN")
            (version,) = self.connection.execute("PRAGMA user_version").fetchone()
            known = self._is_schema_right(version, versions)
            self._check_pages()
        except UNREADABLE as exc:
            self.findings.problem(Place(self.file), f"cannot be read: {exc}")
            return None
        return version if known else None

    def rows(self, table: str, columns: str, order: str) -> Iterator[Row]:
        """All rows of a table whose checksums are right; the others are problems. The checksum is the last column."""
        for row in self.fetch(f"SELECT {columns}, checksum FROM {table} ORDER BY {order}"):  # noqa: S608  names of ours
            self.findings.count("rows")
            if self.has_right_checksum(row, table):
                yield row

    def fetch(self, statement: str, *parameters: object) -> Iterator[Row]:
        """Rows of the database, up to the first that SQLite cannot read, which is a problem."""
        try:
            yield from self.connection.execute(statement, parameters)
        except UNREADABLE as exc:
            self.findings.problem(Place(self.file), f"rows cannot be read: {exc}")

    def has_right_checksum(self, row: Row, table: str, place: Place | None = None) -> bool:
        """Whether a row's last column is the checksum of the others; if not, that is a problem."""
        key = " ".join(f"{part:x}" if isinstance(part, int) else str(part) for part in row[:2])
        try:
            check_row(row, f"a row of {table} ({key})")
        except (StorageDamaged, OverflowError) as exc:
            self.findings.problem(place or Place(self.file), str(exc))
            return False
        return True

    def _is_schema_right(self, version: int, versions: list[tuple[int, str]]) -> bool:
        if version not in dict(versions):
            self.findings.problem(
                Place(self.file), f"has schema {version}, which this version of fluvial does not know"
            )
            return False
        expected = sqlite3.connect(":memory:")
        add_checksum_function(expected)
        for step, script in versions:
            if step <= version:
                expected.executescript(script)
        found = self.connection.execute(_SCHEMA).fetchall()
        is_right = found == expected.execute(_SCHEMA).fetchall()
        expected.close()
        if not is_right:
            self.findings.problem(Place(self.file), f"its tables are not those of schema {version}")
        return is_right

    def _check_pages(self) -> None:
        (page_count,) = self.connection.execute("PRAGMA page_count").fetchone()
        (page_bytes,) = self.connection.execute("PRAGMA page_size").fetchone()
        self.findings.count("bytes", page_count * page_bytes)
        steps = 0

        def on_steps() -> None:
            nonlocal steps
            steps += 1
            self.findings.progress(f"{self.file}: pages", steps, 0)

        self.connection.set_progress_handler(on_steps, _STEPS)
        try:
            for (message,) in self.connection.execute(f"PRAGMA integrity_check({_MESSAGES_MAX})"):
                if message != "ok":
                    self.findings.problem(Place(self.file), " ".join(message.split()))
        finally:
            self.connection.set_progress_handler(None, 0)
