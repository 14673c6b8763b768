"""Batch groups: small batches that one update commits, stored apart as one payload.

The head has one pointer to them, so that the next updates do not pay for their bytes again. A group is known by the
commit id of its last batch. So a writer in doubt finds where it ends by that id, both in the head and in a cold
segment, which has the batches one by one.
"""

from collections.abc import Sequence
from typing import Final

from fluvial.model.commit import CommitId
from fluvial.model.errors import StorageDamaged, StoreUnavailable
from fluvial.model.names import StreamName
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.items import Placement, StoredBatch, decode_batches, encode_batches, number
from fluvial.storage.dynamodb.table.keys import payload_key
from fluvial.storage.dynamodb.table.table import Table
from fluvial.storage.dynamodb.table.write_outcome import InDoubt

#: Tries of a put whose answer is lost. A repeat puts the same bytes under the same key, and many appends wait for it.
PUT_TRIES_MAX: Final = 3


class BatchGroups:
    """Stores and loads groups, in payload items; fluvial.storage.dynamodb.writes.payloads deletes them."""

    def __init__(self, table: Table) -> None:
        """No request is sent before the first group."""
        self._table = table

    async def store(self, owner: StreamName, batches: Sequence[StoredBatch], now_ms: int) -> StoredBatch:
        """Store batches, whose bytes are inline, as a group; what to commit. Raises StoreUnavailable."""
        commit_id = batches[-1].commit_id
        item = {**payload_key(owner, commit_id), **encode_batches(batches), a.WRITTEN_AT: number(now_ms)}
        byte_count = sum(batch.byte_count for batch in batches)
        for tries in range(1, PUT_TRIES_MAX + 1):
            outcome = await self._table.put(item)
            if isinstance(outcome, InDoubt) and tries == PUT_TRIES_MAX:
                raise StoreUnavailable from outcome.cause  # it may be there, but nothing points to it
            if not isinstance(outcome, InDoubt):
                break
        return StoredBatch(commit_id, byte_count, Placement.GROUP, batch_count=len(batches))

    async def expand(self, owner: StreamName, batches: Sequence[StoredBatch]) -> list[StoredBatch]:
        """The batches, in the place of each group its own. Raises StorageDamaged when some are missing."""
        groups = [batch for batch in batches if batch.placement is Placement.GROUP]
        if not groups:
            return list(batches)
        found = await self._load(owner, [group.commit_id for group in groups])
        if any(sum(one.byte_count for one in found.get(group.commit_id, ())) != group.byte_count for group in groups):
            raise StorageDamaged("a group of batches is missing")
        expanded = list[StoredBatch]()
        for batch in batches:
            expanded += found[batch.commit_id] if batch.placement is Placement.GROUP else (batch,)
        return expanded

    async def _load(self, owner: StreamName, commit_ids: Sequence[CommitId]) -> dict[CommitId, tuple[StoredBatch, ...]]:
        """The groups that are there. They never change, so the first read is the cheaper one (see Payloads)."""
        found = dict[CommitId, tuple[StoredBatch, ...]]()
        for consistent in (False, True):
            keys = [payload_key(owner, one) for one in commit_ids if one not in found]
            items = await self._table.get_many(keys, consistent=consistent)
            found |= {(inside := decode_batches(item))[-1].commit_id: inside for item in items}
        return found
