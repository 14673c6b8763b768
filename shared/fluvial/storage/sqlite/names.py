"""The names of a data folder's streams, for who looks at them beside a server: it has the folder's lock, not they."""

import asyncio
import contextlib
import sqlite3
from pathlib import Path
from typing import Final

from fluvial.model.errors import StoreUnavailable
from fluvial.model.names import HIGHEST, StreamName
from fluvial.storage.sqlite.database import DATABASE
from fluvial.storage.sqlite.queries import SQL

#: How long a server's checkpoint is waited for.
BUSY_TIMEOUT_S: Final = 5.0


class SqliteNames:
    """Reads the streams' database and changes nothing in it; each call opens it anew, so that no reader stays."""

    def __init__(self, folder: Path) -> None:
        """Nothing is opened yet."""
        self._file = folder / DATABASE

    async def names(self, prefix: str, after: str, count_max: int) -> list[StreamName]:
        """See StreamNames.names."""
        rows = await asyncio.to_thread(self._rows, prefix, after, prefix + HIGHEST, count_max)
        return [StreamName(row[0]) for row in rows]

    def _rows(self, *parameters: object) -> list[tuple[str]]:
        if not self._file.exists():  # projects were made before the first stream could be
            return []
        try:
            uri = f"{self._file.absolute().as_uri()}?mode=ro"
            with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S)) as connection:
                return connection.execute(SQL.names_after, parameters).fetchall()
        except sqlite3.Error as exc:
            raise StoreUnavailable from exc
