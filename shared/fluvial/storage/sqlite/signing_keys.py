"""The SQLite store of signing keys: one row in the projects' database."""

import logging
from typing import Final

import msgspec

from fluvial.model.errors import StorageDamaged
from fluvial.model.signing_keys import KeyRing
from fluvial.storage.sqlite.checksums import check_row
from fluvial.storage.sqlite.projects_database import ProjectsDatabase
from fluvial.storage.sqlite.queries import PROJECT_SQL

log = logging.getLogger(__name__)

_RING: Final = msgspec.json.Decoder(KeyRing)


class SqliteSigningKeys:
    """The keys of a data folder."""

    def __init__(self, database: ProjectsDatabase) -> None:
        """The database stays open as long as its owner wants."""
        self._database = database

    async def get(self) -> KeyRing | None:
        """See SigningKeys.get."""
        rows = await self._database.fetch(PROJECT_SQL.signing_keys, ())
        if not rows:
            return None
        try:
            check_row(rows[0], "the signing keys")
            return _RING.decode(rows[0][2])
        except (StorageDamaged, msgspec.DecodeError) as exc:
            log.error("signing_keys_unreadable")  # noqa: TRY400  the error may quote a key
            raise StorageDamaged from exc

    async def put(self, ring: KeyRing) -> bool:
        """See SigningKeys.put."""
        row = {"version": ring.version, "ring": msgspec.json.encode(ring)}
        return await self._database.write(PROJECT_SQL.put_signing_keys, row)
