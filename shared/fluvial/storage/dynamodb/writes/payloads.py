"""Payloads: batches too large for the head, stored first and then committed by a batch that points to them.

What no head or segment points to, because its writer died in between, is swept when it is a day old.
"""

import asyncio
import base64
import logging
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from fluvial.model.commit import CommitId
from fluvial.model.errors import StorageDamaged, StoreUnavailable
from fluvial.model.names import StreamName
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.aws_client import NotFound, OutcomeUnknown
from fluvial.storage.dynamodb.table.items import Placement, StoredBatch, number
from fluvial.storage.dynamodb.table.keys import payload_key
from fluvial.storage.dynamodb.table.objects import Objects
from fluvial.storage.dynamodb.table.table import Table

log = logging.getLogger(__name__)

#: A larger batch in the head would make every append after it pay for it again until the next spill; measured with
#: `make cost`, an item of its own is cheaper from here on.
INLINE_BYTES_MAX: Final = 448

#: DynamoDB takes items of 400 KB, names and keys included; S3 takes the rest.
ITEM_BYTES_MAX: Final = 300_000

STAGED_PREFIX: Final = "staged"

#: The name of the stream that a staged object is for, in base64, for its key has only a hash of it.
OWNER_METADATA: Final = "owner"

#: Payloads of one page that are fetched at the same time.
OBJECTS_AT_ONCE: Final = 8


class Payloads:
    """Where large batches are."""

    def __init__(self, table: Table, objects: Objects) -> None:
        """Nothing is asked before the first payload."""
        self._table, self._objects = table, objects

    async def laid_out(self, owner: StreamName, commit_id: CommitId, data: bytes, now_ms: int) -> StoredBatch:
        """The batch to commit; a large one's bytes are stored by then. Raises StoreUnavailable."""
        if len(data) <= INLINE_BYTES_MAX:
            return StoredBatch(commit_id, len(data), Placement.INLINE, data)
        if len(data) > ITEM_BYTES_MAX:
            metadata = {OWNER_METADATA: base64.urlsafe_b64encode(owner.encode()).decode()}
            await self._objects.put(object_key(owner, commit_id), data, metadata)
            return StoredBatch(commit_id, len(data), Placement.OBJECT)
        item = {**payload_key(owner, commit_id), a.DATA: {"B": data}, a.WRITTEN_AT: number(now_ms)}
        try:
            await self._table.put(item)
        except OutcomeUnknown as exc:  # it may be there; nothing points to it
            raise StoreUnavailable from exc
        return StoredBatch(commit_id, len(data), Placement.ITEM)

    async def loaded(self, owner: StreamName, batches: Sequence[StoredBatch]) -> list[bytes]:
        """The bytes of each batch. Raises StorageDamaged when some are not there, StoreUnavailable."""
        items = [batch for batch in batches if batch.placement is Placement.ITEM]
        objects = [batch for batch in batches if batch.placement is Placement.OBJECT]
        found: dict[CommitId, bytes] = {batch.commit_id: batch.data for batch in batches}
        if items:
            for item in await self._table.get_many([payload_key(owner, batch.commit_id) for batch in items]):
                found[CommitId(bytes.fromhex(item[a.SK]["S"]))] = item[a.DATA]["B"]
        for start in range(0, len(objects), OBJECTS_AT_ONCE):
            some = objects[start : start + OBJECTS_AT_ONCE]
            loaded = await asyncio.gather(*(self._object(owner, batch) for batch in some))
            found |= {batch.commit_id: data for batch, data in zip(some, loaded, strict=True)}
        if any(len(found[batch.commit_id]) != batch.byte_count for batch in batches):
            raise StorageDamaged("a payload is missing")
        return [found[batch.commit_id] for batch in batches]

    async def remove(self, owner: StreamName, batches: Sequence[StoredBatch]) -> None:
        """Delete what no segment points to any more."""
        for batch in batches:
            if batch.placement is Placement.ITEM:
                await self._table.delete(payload_key(owner, batch.commit_id))
            elif batch.placement is Placement.OBJECT:
                await self._objects.delete(object_key(owner, batch.commit_id))

    async def discard(self, owner: StreamName, batches: Sequence[StoredBatch]) -> None:
        """Delete what was stored for a commit that was refused; what that fails for is left to a sweep."""
        try:
            await self.remove(owner, batches)
        except (StoreUnavailable, OutcomeUnknown) as exc:
            log.warning("payload_left", extra={"stream": owner, "reason": str(exc.__cause__ or exc)})

    async def _object(self, owner: StreamName, batch: StoredBatch) -> bytes:
        try:
            return await self._objects.get(object_key(owner, batch.commit_id))
        except NotFound as exc:
            raise StorageDamaged("a payload's object is missing") from exc


def object_key(owner: StreamName, commit_id: CommitId) -> str:
    """The key of a payload in S3; a name may be longer than a key, so its hash stands for it."""
    return f"{STAGED_PREFIX}/{sha256(owner.encode()).hexdigest()[:32]}/{commit_id.hex()}"
