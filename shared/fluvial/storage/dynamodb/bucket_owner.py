"""The owner of a bucket: a bucket belongs to one table, which the bucket's object `owner` names.

Suppose that a table is restored beside its original, and both use one bucket. The sweep of either would delete the
objects to which only the other has pointers, and so would rotations and collections. So each of them first checks that
the bucket belongs to its table. The first table to check an empty or older bucket becomes its owner.

A restored table has all items of its original, also the id by which the table knows itself. So the owner is the id
together with the table's name and region.
"""

import logging
from typing import Final

import msgspec

from fluvial.clock import Clock
from fluvial.model.errors import StartupError, StoreUnavailable
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.aws_client import NotFound
from fluvial.storage.dynamodb.table.keys import table_key
from fluvial.storage.dynamodb.table.objects import Objects
from fluvial.storage.dynamodb.table.table import Table
from fluvial.storage.dynamodb.table.write_outcome import ConditionFailed, require_known

log = logging.getLogger(__name__)

OWNER_KEY: Final = "owner"

#: How long a process remembers that the bucket belongs to another table: rotations ask again and again.
DENIAL_MS: Final = 60_000


class Owner(msgspec.Struct, frozen=True):
    """A table, as the object `owner` names it; `id` is in the table's own item, too."""

    table: str
    region: str
    id: str


_OWNER: Final = msgspec.json.Decoder(Owner)


class BucketOfAnotherTable(StartupError):
    """The bucket belongs to another table: nothing in it may be deleted for this one."""


class BucketOwner:
    """The owner of one bucket, as one table sees it."""

    def __init__(self, table: Table, objects: Objects, clock: Clock) -> None:
        """No request is sent before the first call. The clock makes the id of a table that has none yet."""
        self._table, self._objects, self._clock = table, objects, clock
        self._denied_until_ms = 0
        self._own: Owner | None = None

    async def check(self) -> None:
        """Check that no other table owns the bucket. Raises BucketOfAnotherTable, StoreUnavailable."""
        found = await self._load()
        if found is not None:
            await self._compare(found)

    async def claim(self) -> None:
        """Check that this table owns the bucket, and make it the owner of one that has none.

        Each call asks S3 anew, since the bucket may have been taken over meanwhile. Raises BucketOfAnotherTable,
        StoreUnavailable, StoreUncertain.
        """
        found = await self._load()
        if found is None:
            await self._objects.put_if_absent(OWNER_KEY, msgspec.json.encode(await self._load_own()))
            found = await self._load()
        if found is None:
            raise StoreUnavailable
        await self._compare(found)

    async def is_own(self) -> bool:
        """Whether `claim` succeeds; an error in the log says why not. Raises StoreUnavailable, StoreUncertain.

        A no is remembered for DENIAL_MS.
        """
        if self._clock.now_ms() < self._denied_until_ms:
            return False
        try:
            await self.claim()
        except BucketOfAnotherTable as exc:
            self._denied_until_ms = self._clock.now_ms() + DENIAL_MS
            log.error("bucket_of_another_table", extra={"reason": str(exc)})  # noqa: TRY400  expected: no traceback
            return False
        return True

    async def take_over(self) -> None:
        """Make this table the owner, whichever was it before. Raises StoreUnavailable, StoreUncertain."""
        await self._objects.put(OWNER_KEY, msgspec.json.encode(await self._load_own()), {})
        self._denied_until_ms = 0

    async def _load(self) -> Owner | None:
        try:
            return _OWNER.decode(await self._objects.get(OWNER_KEY))
        except NotFound:
            return None
        except msgspec.DecodeError as exc:
            message = f"the object {OWNER_KEY} of the bucket {self._objects.bucket} is not Fluvial's: {exc}"
            raise BucketOfAnotherTable(message) from exc

    async def _load_own(self) -> Owner:
        """This table as an owner; its id is made and stored when it is first needed."""
        if self._own is None:
            item = await self._table.get(table_key())
            if item is None:
                item = {**table_key(), a.TABLE_ID: {"S": self._clock.new_commit_id().hex()}}
                condition = f"attribute_not_exists({a.PK})"
                outcome = require_known(await self._table.put(item, ConditionExpression=condition))
                if isinstance(outcome, ConditionFailed) and outcome.item is not None:
                    item = outcome.item  # another process was quicker
            self._own = Owner(self._table.name, self._table.region, item[a.TABLE_ID]["S"])
        return self._own

    async def _compare(self, found: Owner) -> None:
        own = await self._load_own()
        if found == own:
            return
        other = f"{found.table} ({found.region}, {found.id})"
        message = (
            f"the bucket {self._objects.bucket} belongs to the table {other}, and not to {own.table} ({own.region},"
            f" {own.id}): a table that was restored takes it over with fluvial undelete --take-over"
        )
        raise BucketOfAnotherTable(message)
