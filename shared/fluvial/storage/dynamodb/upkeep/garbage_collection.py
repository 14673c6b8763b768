"""Garbage collection: delete the data of incarnations that have ended."""

from typing import Final

from fluvial.storage.dynamodb.backend import Backend
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.items import ColdSegment, decode_segment
from fluvial.storage.dynamodb.table.keys import Item, followers_partition, incarnation_partition, producers_partition
from fluvial.storage.dynamodb.table.write_outcome import require_known
from fluvial.storage.dynamodb.writes.lifecycle import DroppedIncarnation

ITEMS_PER_STEP: Final = 100


class GarbageCollector:
    """Deletes the data of dropped incarnations. Each call may be repeated from the start at any time."""

    def __init__(self, backend: Backend) -> None:
        """The data is in `backend`."""
        self._table, self._cold, self._payloads = backend.table, backend.cold, backend.payloads
        self._owner = backend.owner

    async def collect(self, dropped: DroppedIncarnation) -> None:
        """Delete an incarnation's payloads, objects, segments, producers and followers.

        Nothing if the bucket belongs to another table, which may point to the objects. Raises StoreUnavailable,
        StoreUncertain.
        """
        if not await self._owner.is_own():
            return
        await self._payloads.remove(dropped.name, dropped.buffer)
        while items := await self._table.query(incarnation_partition(dropped.incarnation), limit=ITEMS_PER_STEP):
            for item in items:
                await self._delete_segment(item)
        for partition in (producers_partition(dropped.incarnation), followers_partition(dropped.incarnation)):
            while items := await self._table.query(partition, limit=ITEMS_PER_STEP):
                for item in items:
                    require_known(await self._table.delete({a.PK: item[a.PK], a.SK: item[a.SK]}))

    async def _delete_segment(self, item: Item) -> None:
        segment = decode_segment(item)
        if isinstance(segment, ColdSegment):
            await self._cold.remove(segment.object_key)
        else:
            await self._payloads.remove(segment.owner, segment.batches)
        require_known(await self._table.delete({a.PK: item[a.PK], a.SK: item[a.SK]}))
