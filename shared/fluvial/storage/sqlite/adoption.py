"""Adoption: streams of a folder that no server uses get names below a project's, so that its tokens reach them.

A stream's bytes, producers and segments are kept by its incarnation; its name is in its own row, in those of its forks
and of the estuaries that it flows into, and among the followers of what it follows. All of them change in one
transaction.
"""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any, Final

import msgspec

from fluvial.model.errors import ErrorCode, RequestError, StoreUnavailable
from fluvial.model.limits import STREAM_NAME_BYTES_MAX
from fluvial.model.project import ProjectName
from fluvial.storage.projects import Projects
from fluvial.storage.sqlite.database import DATABASE, open_database, open_folder
from fluvial.storage.sqlite.queries import ADOPTION_SQL

_PROJECTS_AT_ONCE: Final = 1_000


class Found(msgspec.Struct, frozen=True):
    """How many streams there are to adopt, and the names of the first."""

    count: int
    first: tuple[str, ...]


class Adoption:
    """Some streams on their way into a project; the folder's lock is held until `close`."""

    def __init__(self, folder: Path) -> None:
        """Take the folder. Raises StartupError when another process has it."""
        self._lock = open_folder(folder)
        try:
            self._connection = open_database(folder / DATABASE)
        except BaseException:
            self._lock.release()
            raise
        self._connection.execute(ADOPTION_SQL.begin_adoption)

    def close(self) -> None:
        """Let go of the folder."""
        self._connection.close()
        self._lock.release()

    async def find(self, prefixes: tuple[str, ...], project: ProjectName, projects: Projects, shown_max: int) -> Found:
        """What there is to adopt: all whose names begin with one of the prefixes and that are no project's yet.

        Raises RequestError when one of them cannot have its new name.
        """
        owners, after = [project], ""
        while listed := await projects.listed(after, _PROJECTS_AT_ONCE):
            owners += [one.name for one in listed]
            after = listed[-1].name
        return await asyncio.to_thread(self._found, prefixes, owners, shown_max)

    async def rename(self) -> None:
        """Give what was found its new names, as one step. Raises StoreUnavailable: nothing was changed."""
        try:
            await asyncio.to_thread(self._rename)
        except (sqlite3.Error, msgspec.DecodeError) as exc:
            raise StoreUnavailable from exc

    def _found(self, prefixes: tuple[str, ...], owners: list[ProjectName], shown_max: int) -> Found:
        for prefix in prefixes:
            self._connection.execute(ADOPTION_SQL.adopt_names, {"project": owners[0], "prefix": prefix})
        for owner in owners:
            self._connection.execute(ADOPTION_SQL.spare_project, {"project": owner})
        taken = self._connection.execute(ADOPTION_SQL.taken_name).fetchone()
        if taken is not None:
            raise RequestError(ErrorCode.STREAM_EXISTS, f"there is a stream {taken[0]} already", 409)
        long = self._connection.execute(ADOPTION_SQL.long_name, (STREAM_NAME_BYTES_MAX,)).fetchone()
        if long is not None:
            message = f"the name of {long[0]} would be over {STREAM_NAME_BYTES_MAX} bytes long"
            raise RequestError(ErrorCode.PATH_TOO_LONG, message, 409)
        rows = self._connection.execute(ADOPTION_SQL.adopted_names, (shown_max,)).fetchall()
        return Found(rows[0][0] if rows else 0, tuple(row[1] for row in rows))

    def _rename(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            for name, config, cursors in self._connection.execute(ADOPTION_SQL.references_by_name).fetchall():
                renamed = (self._with_new_origin(config), self._with_new_sources(cursors))
                if renamed != (config, cursors):
                    self._connection.execute(ADOPTION_SQL.save_references, (*renamed, name))
            self._connection.execute(ADOPTION_SQL.rename_followers)
            self._connection.execute(ADOPTION_SQL.rename_streams)
            self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _with_new_origin(self, config: bytes) -> bytes:
        fields: dict[str, Any] = msgspec.json.decode(config)
        if "origin" not in fields:
            return config
        source = fields["origin"]["source"]
        renamed = self._new_name(source)
        if renamed == source:
            return config
        return msgspec.json.encode({**fields, "origin": {**fields["origin"], "source": renamed}})

    def _with_new_sources(self, cursors: bytes | None) -> bytes | None:
        if cursors is None:
            return None
        positions: dict[str, Any] = msgspec.json.decode(cursors)
        new_names = {source: self._new_name(source) for source in positions}
        moved = {new: positions[source] for source, new in new_names.items() if new != source}
        if not moved:
            return cursors
        # What has a new name already is no stream any more, or the new name would be taken: its cursor makes way.
        kept = {source: position for source, position in positions.items() if new_names[source] == source}
        return msgspec.json.encode({**kept, **moved})

    def _new_name(self, name: str) -> str:
        row = self._connection.execute(ADOPTION_SQL.new_name, (name,)).fetchone()
        return name if row is None else str(row[0])
