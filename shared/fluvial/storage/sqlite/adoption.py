"""Adoption: rename streams of a data folder into a project, so that the project's tokens are valid for them.

Only the rows that hold a stream's name change, all in one transaction: its own, those of its forks, those of the
estuaries (fan-in streams) that follow it, and the lists of followers. Its bytes, producers and segments are stored by
its incarnation.
"""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any, Final

import msgspec

from fluvial.model.errors import ErrorCode, RequestError, StorageDamaged, StoreUnavailable
from fluvial.model.limits import STREAM_NAME_BYTES_MAX
from fluvial.model.project import ProjectName
from fluvial.storage.projects import Projects
from fluvial.storage.sqlite.database import DATABASE, open_database, open_folder
from fluvial.storage.sqlite.queries import ADOPTION_SQL

_PROJECTS_PER_PAGE: Final = 1_000


class AdoptableStreams(msgspec.Struct, frozen=True):
    """How many streams an adoption renames, and the first of their names."""

    count: int
    first: tuple[str, ...]


class Adoption:
    """One renaming of streams into a project. It holds the folder's lock until `close`."""

    def __init__(self, folder: Path) -> None:
        """Lock the folder and open its database. Raises StartupError, e.g. when another process has the lock."""
        self._lock = open_folder(folder)
        try:
            self._connection = open_database(folder / DATABASE)
        except BaseException:
            self._lock.release()
            raise
        self._connection.execute(ADOPTION_SQL.begin_adoption)

    def close(self) -> None:
        """Close the database and release the lock."""
        self._connection.close()
        self._lock.release()

    async def find(
        self, prefixes: tuple[str, ...], project: ProjectName, projects: Projects, shown_max: int
    ) -> AdoptableStreams:
        """Find the streams whose names begin with one of the prefixes, and that belong to no project.

        Raises RequestError if one of them cannot have its new name.
        """
        owners, after = [project], ""
        while page := await projects.list_after(after, _PROJECTS_PER_PAGE):
            owners += [one.name for one in page]
            after = page[-1].name
        return await asyncio.to_thread(self._find, prefixes, owners, shown_max)

    async def rename(self) -> None:
        """Rename the streams that `find` found, in one transaction.

        Raises StoreUnavailable, StorageDamaged: nothing was changed.
        """
        try:
            await asyncio.to_thread(self._rename)
        except (sqlite3.Error, msgspec.DecodeError) as exc:
            raise StoreUnavailable from exc

    def _find(self, prefixes: tuple[str, ...], owners: list[ProjectName], shown_max: int) -> AdoptableStreams:
        for prefix in prefixes:
            self._connection.execute(ADOPTION_SQL.adopt_names, {"project": owners[0], "prefix": prefix})
        for owner in owners:
            self._connection.execute(ADOPTION_SQL.spare_project, {"project": owner})
        taken = self._connection.execute(ADOPTION_SQL.taken_name).fetchone()
        if taken is not None:
            raise RequestError(ErrorCode.STREAM_EXISTS, f"there is already a stream {taken[0]}", 409)
        long = self._connection.execute(ADOPTION_SQL.long_name, (STREAM_NAME_BYTES_MAX,)).fetchone()
        if long is not None:
            message = f"the name of {long[0]} would be over {STREAM_NAME_BYTES_MAX} bytes long"
            raise RequestError(ErrorCode.PATH_TOO_LONG, message, 409)
        rows = self._connection.execute(ADOPTION_SQL.adopted_names, (shown_max,)).fetchall()
        return AdoptableStreams(rows[0][0] if rows else 0, tuple(row[1] for row in rows))

    def _rename(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            damaged = self._connection.execute(ADOPTION_SQL.damaged_row).fetchone()
            if damaged is not None:
                raise StorageDamaged(f"a row of {damaged[0]} is damaged; see fluvial verify")
            for name, config, cursors in self._connection.execute(ADOPTION_SQL.references_by_name).fetchall():
                renamed = (self._rename_fork_source(config), self._rename_sources(cursors))
                if renamed != (config, cursors):
                    self._connection.execute(ADOPTION_SQL.save_references, (*renamed, name))
            self._connection.execute(ADOPTION_SQL.rename_followers)
            self._connection.execute(ADOPTION_SQL.rename_streams)
            self._connection.execute(ADOPTION_SQL.save_stream_checksums)
            self._connection.execute(ADOPTION_SQL.save_follower_checksums)
            self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _rename_fork_source(self, config: bytes) -> bytes:
        fields: dict[str, Any] = msgspec.json.decode(config)
        if "origin" not in fields:
            return config
        source = fields["origin"]["source"]
        renamed = self._new_name(source)
        if renamed == source:
            return config
        return msgspec.json.encode({**fields, "origin": {**fields["origin"], "source": renamed}})

    def _rename_sources(self, cursors: bytes | None) -> bytes | None:
        if cursors is None:
            return None
        positions: dict[str, Any] = msgspec.json.decode(cursors)
        new_names = {source: self._new_name(source) for source in positions}
        moved = {new: positions[source] for source, new in new_names.items() if new != source}
        if not moved:
            return cursors
        # A cursor that already has a new name is of a deleted stream, or that name would be taken: it is replaced.
        kept = {source: position for source, position in positions.items() if new_names[source] == source}
        return msgspec.json.encode({**kept, **moved})

    def _new_name(self, name: str) -> str:
        row = self._connection.execute(ADOPTION_SQL.new_name, (name,)).fetchone()
        return name if row is None else str(row[0])
