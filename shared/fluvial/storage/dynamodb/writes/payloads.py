"""Payloads: the bytes of batches that are too large for the head.

A payload is stored first; then the batch that points to it is committed. When the writer dies in between, no head or
segment points to the payload, and the sweep deletes it when it is a day old.
"""

import base64
import logging
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from typing import Final

from fluvial.concurrency import map_bounded
from fluvial.model.commit import CommitId
from fluvial.model.errors import StorageDamaged, StoreError, StoreUnavailable
from fluvial.model.names import StreamName
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.aws_client import NotFound
from fluvial.storage.dynamodb.table.items import Placement, StoredBatch, number
from fluvial.storage.dynamodb.table.keys import payload_key
from fluvial.storage.dynamodb.table.objects import Objects
from fluvial.storage.dynamodb.table.table import Table
from fluvial.storage.dynamodb.table.write_outcome import InDoubt, require_known

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
    """Stores, loads and deletes payloads: in the table or, above ITEM_BYTES_MAX, in the bucket."""

    def __init__(self, table: Table, objects: Objects) -> None:
        """No request is sent before the first payload."""
        self._table, self._objects = table, objects

    async def store(self, owner: StreamName, commit_id: CommitId, data: bytes, now_ms: int) -> StoredBatch:
        """Store a large batch's bytes; the batch to commit. Raises StoreUnavailable."""
        if len(data) <= INLINE_BYTES_MAX:
            return StoredBatch(commit_id, len(data), Placement.INLINE, data)
        if len(data) > ITEM_BYTES_MAX:
            metadata = {OWNER_METADATA: base64.urlsafe_b64encode(owner.encode()).decode()}
            await self._objects.put(object_key(owner, commit_id), data, metadata)
            return StoredBatch(commit_id, len(data), Placement.OBJECT)
        item = {**payload_key(owner, commit_id), a.DATA: {"B": data}, a.WRITTEN_AT: number(now_ms)}
        outcome = await self._table.put(item)
        if isinstance(outcome, InDoubt):  # the payload may be there, but no batch points to it
            raise StoreUnavailable from outcome.cause
        return StoredBatch(commit_id, len(data), Placement.ITEM)

    async def load(self, owner: StreamName, batches: Sequence[StoredBatch]) -> list[bytes]:
        """The bytes of each batch. Raises StorageDamaged when some are missing, StoreUnavailable."""
        items = [batch for batch in batches if batch.placement is Placement.ITEM]
        objects = [batch for batch in batches if batch.placement is Placement.OBJECT]
        found: dict[CommitId, bytes] = {batch.commit_id: batch.data for batch in batches}
        if items:
            for item in await self._table.get_many([payload_key(owner, batch.commit_id) for batch in items]):
                found[CommitId(bytes.fromhex(item[a.SK]["S"]))] = item[a.DATA]["B"]
        loaded = await map_bounded(objects, partial(self._load_object, owner), OBJECTS_AT_ONCE)
        found |= {batch.commit_id: data for batch, data in zip(objects, loaded, strict=True)}
        if any(len(found[batch.commit_id]) != batch.byte_count for batch in batches):
            raise StorageDamaged("a payload is missing")
        return [found[batch.commit_id] for batch in batches]

    async def remove(self, owner: StreamName, batches: Sequence[StoredBatch]) -> None:
        """Delete the payloads of batches. Raises StoreUnavailable, StoreUncertain."""
        for batch in batches:
            if batch.placement is Placement.ITEM:
                require_known(await self._table.delete(payload_key(owner, batch.commit_id)))
            elif batch.placement is Placement.OBJECT:
                await self._objects.delete(object_key(owner, batch.commit_id))

    async def discard(self, owner: StreamName, batches: Sequence[StoredBatch]) -> None:
        """Delete the payloads of a rejected commit. A failure is logged; the sweep deletes what is left."""
        try:
            await self.remove(owner, batches)
        except StoreError as exc:
            log.warning("payload_left", extra={"stream": owner, "reason": str(exc.__cause__ or exc)})

    async def _load_object(self, owner: StreamName, batch: StoredBatch) -> bytes:
        try:
            return await self._objects.get(object_key(owner, batch.commit_id))
        except NotFound as exc:
            raise StorageDamaged("a payload's object is missing") from exc


def object_key(owner: StreamName, commit_id: CommitId) -> str:
    """The key of a payload in S3; a name may be longer than a key, so its hash stands for it."""
    return f"{STAGED_PREFIX}/{sha256(owner.encode()).hexdigest()[:32]}/{commit_id.hex()}"
