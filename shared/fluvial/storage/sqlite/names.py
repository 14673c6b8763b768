"""The names of a data folder's streams, read beside a running server, which holds the folder's lock."""

import asyncio
import contextlib
import sqlite3
from pathlib import Path
from typing import Final

from fluvial.model.errors import StoreUnavailable
from fluvial.model.names import HIGHEST, StreamName
from fluvial.storage.sqlite.database import DATABASE
from fluvial.storage.sqlite.queries import SQL

#: How long to wait for a server's checkpoint.
BUSY_TIMEOUT_S: Final = 5.0


class SqliteStreamNames:
    """Lists streams from a read-only connection. Each call opens its own, so that no reader blocks a checkpoint."""

    def __init__(self, folder: Path) -> None:
        """`folder` is the data folder; its database may not exist yet."""
        self._file = folder / DATABASE

    async def names(self, prefix: str, after: str, count_max: int) -> list[StreamName]:
        """See StreamNames.names."""
        rows = await asyncio.to_thread(self._fetch, prefix, after, prefix + HIGHEST, count_max)
        return [StreamName(row[0]) for row in rows]

    def _fetch(self, *parameters: object) -> list[tuple[str]]:
        if not self._file.exists():  # projects were created before a server has run
            return []
        try:
            uri = f"{self._file.absolute().as_uri()}?mode=ro"
            with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S)) as connection:
                return connection.execute(SQL.names_after, parameters).fetchall()
        except sqlite3.Error as exc:
            raise StoreUnavailable from exc
