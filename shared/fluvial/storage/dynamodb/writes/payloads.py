"""Payloads: the bytes of batches that are too large for the head.

A payload is stored first; then the batch that points to it is committed. When the writer dies in between, no head or
segment points to the payload, and the sweep deletes it when it is a day old.
"""

import base64
import logging
from collections.abc import Iterable, Sequence
from functools import partial
from hashlib import sha256
from typing import Final, Literal

from fluvial.concurrency import map_bounded
from fluvial.model.commit import CommitId
from fluvial.model.errors import StorageDamaged, StoreError, StoreUnavailable
from fluvial.model.names import StreamName
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.aws_client import NotFound
from fluvial.storage.dynamodb.table.items import Placement, StoredBatch, number
from fluvial.storage.dynamodb.table.keys import Item, gathered_payload_key, payload_key, payload_of
from fluvial.storage.dynamodb.table.objects import Objects
from fluvial.storage.dynamodb.table.table import Table
from fluvial.storage.dynamodb.table.write_outcome import ConditionFailed, InDoubt, require_known

log = logging.getLogger(__name__)

#: A larger batch in the head would make every append after it pay for it again until the next spill; measured with
#: `make cost`, an item of its own is cheaper from here on.
INLINE_BYTES_MAX: Final = 448

STAGED_PREFIX: Final = "staged"

#: The name of the stream that a staged object is for, in base64, for its key has only a hash of it.
OWNER_METADATA: Final = "owner"

#: Payloads that are fetched from S3 at the same time, and payloads that are deleted at the same time.
OBJECTS_AT_ONCE: Final = 8
DELETIONS_AT_ONCE: Final = 8


class Payloads:
    """Stores, loads and deletes payloads: in the table or, when they are large, in the bucket.

    Processes with different bounds may share a table: where a payload is stands in the batch that points to it.
    """

    def __init__(self, table: Table, objects: Objects, item_bytes_max: int) -> None:
        """A payload of up to `item_bytes_max` bytes is stored in the table. No request is sent before the first one."""
        self._table, self._objects, self._item_bytes_max = table, objects, item_bytes_max

    async def store(
        self,
        owner: StreamName,
        commit_id: CommitId,
        data: bytes,
        now_ms: int,
        inline_bytes_max: int = INLINE_BYTES_MAX,
    ) -> StoredBatch:
        """Store the bytes of a batch of more than `inline_bytes_max` bytes; the batch to commit.

        Raises StoreUnavailable.
        """
        match placement_of(len(data), inline_bytes_max, self._item_bytes_max):
            case Placement.INLINE:
                return StoredBatch(commit_id, len(data), Placement.INLINE, data)
            case Placement.ITEM:
                await self.put_item(owner, commit_id, data, now_ms)
                return StoredBatch(commit_id, len(data), Placement.ITEM)
            case Placement.OBJECT:
                await self.put_object(owner, commit_id, data)
                return StoredBatch(commit_id, len(data), Placement.OBJECT)

    async def put_item(self, owner: StreamName, commit_id: CommitId, data: bytes, now_ms: int) -> None:
        """Put a payload into the table. Raises StoreUnavailable: it may be there, but no batch points to it."""
        item = {**payload_key(owner, commit_id), a.DATA: {"B": data}, a.WRITTEN_AT: number(now_ms)}
        outcome = await self._table.put(item)
        if isinstance(outcome, InDoubt):
            raise StoreUnavailable from outcome.cause

    async def put_object(self, owner: StreamName, commit_id: CommitId, data: bytes) -> None:
        """Put a payload into the bucket. Raises StoreUnavailable: it may be there, but no batch points to it."""
        metadata = {OWNER_METADATA: base64.urlsafe_b64encode(owner.encode()).decode()}
        await self._objects.put(object_key(owner, commit_id), data, metadata)

    async def load(self, owner: StreamName, batches: Sequence[StoredBatch]) -> list[bytes]:
        """The bytes of each batch. Raises StorageDamaged when some are missing, StoreUnavailable."""
        found: dict[CommitId, bytes] = {batch.commit_id: batch.data for batch in batches}
        found |= await self.load_items(owner, [one.commit_id for one in batches if one.placement is Placement.ITEM])
        objects = [batch.commit_id for batch in batches if batch.placement is Placement.OBJECT]
        loaded = await map_bounded(objects, partial(self._load_object, owner), OBJECTS_AT_ONCE)
        found |= dict(zip(objects, loaded, strict=True))
        if any(len(found[batch.commit_id]) != batch.byte_count for batch in batches):
            raise StorageDamaged("a payload is missing")
        return [found[batch.commit_id] for batch in batches]

    async def load_items(self, owner: StreamName, commit_ids: Sequence[CommitId]) -> dict[CommitId, bytes]:
        """The payloads in the table by their commit ids; those that are not there are left out.

        A payload never changes, so an eventually consistent read, at half the price, is as good as any. One that it
        lacks may have been put a moment ago, or where format 1 has put it. Raises StoreUnavailable.
        """
        found = _payloads_of(
            await self._table.get_many([payload_key(owner, one) for one in commit_ids], consistent=False)
        )
        missing = [commit_id for commit_id in commit_ids if commit_id not in found]
        keys = [key(owner, one) for one in missing for key in (payload_key, gathered_payload_key)]
        return found | _payloads_of(await self._table.get_many(keys))

    async def remove(self, owner: StreamName, batches: Sequence[StoredBatch]) -> None:
        """Delete the payloads of batches. Raises StoreUnavailable, StoreUncertain."""
        stored_apart = [batch for batch in batches if batch.placement is not Placement.INLINE]
        await map_bounded(stored_apart, partial(self._remove_one, owner), DELETIONS_AT_ONCE)

    async def remove_item(self, owner: StreamName, commit_id: CommitId) -> None:
        """Delete a payload from the table, also where format 1 has put it. Raises StoreUnavailable, StoreUncertain."""
        exists = f"attribute_exists({a.PK})"
        outcome = require_known(await self._table.delete(payload_key(owner, commit_id), ConditionExpression=exists))
        if isinstance(outcome, ConditionFailed):
            require_known(await self._table.delete(gathered_payload_key(owner, commit_id)))

    async def remove_object(self, owner: StreamName, commit_id: CommitId) -> None:
        """Delete a payload from the bucket. Raises StoreUnavailable."""
        await self._objects.delete(object_key(owner, commit_id))

    async def discard(self, owner: StreamName, batches: Sequence[StoredBatch]) -> None:
        """Delete the payloads of a rejected commit. A failure is logged; the sweep deletes what is left."""
        try:
            await self.remove(owner, batches)
        except StoreError as exc:
            log.warning("payload_left", extra={"stream": owner, "reason": str(exc.__cause__ or exc)})

    async def _load_object(self, owner: StreamName, commit_id: CommitId) -> bytes:
        try:
            return await self._objects.get(object_key(owner, commit_id))
        except NotFound as exc:
            raise StorageDamaged("a payload's object is missing") from exc

    async def _remove_one(self, owner: StreamName, batch: StoredBatch) -> None:
        if batch.placement is Placement.OBJECT:
            await self.remove_object(owner, batch.commit_id)
        else:
            await self.remove_item(owner, batch.commit_id)


def _payloads_of(items: Iterable[Item]) -> dict[CommitId, bytes]:
    return {payload_of(item)[1]: item[a.DATA]["B"] for item in items}


def placement_of(
    byte_count: int, inline_bytes_max: int, item_bytes_max: int
) -> Literal[Placement.INLINE, Placement.ITEM, Placement.OBJECT]:
    """Where a batch of so many bytes is stored, when the head and an item take up to so many of them."""
    if byte_count <= inline_bytes_max:
        return Placement.INLINE
    return Placement.ITEM if byte_count <= item_bytes_max else Placement.OBJECT


def object_key(owner: StreamName, commit_id: CommitId) -> str:
    """The key of a payload in S3; a name may be longer than a key, so its hash stands for it."""
    return f"{STAGED_PREFIX}/{sha256(owner.encode()).hexdigest()[:32]}/{commit_id.hex()}"
