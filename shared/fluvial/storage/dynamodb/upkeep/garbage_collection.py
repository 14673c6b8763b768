"""Collection: what a life that has ended leaves behind is deleted; nobody reads it any more."""

from typing import Final

from fluvial.storage.dynamodb.storage_parts import Backend
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.items import ColdSegment, segment_of_item
from fluvial.storage.dynamodb.table.keys import Item, followers_partition, life_partition, producers_partition
from fluvial.storage.dynamodb.writes.lifecycle import DroppedIncarnation

ITEMS_PER_STEP: Final = 100


class GarbageCollector:
    """Deletes what dropped lives leave behind; it may be done again from the start at any time."""

    def __init__(self, backend: Backend) -> None:
        """Nothing is deleted yet."""
        self._table, self._cold, self._payloads = backend.table, backend.cold, backend.payloads

    async def collect(self, life: DroppedIncarnation) -> None:
        """Delete a life's payloads, objects, segments, producers and followers. Raises StoreUnavailable."""
        await self._payloads.remove(life.name, life.buffer)
        while items := await self._table.query(life_partition(life.incarnation), limit=ITEMS_PER_STEP):
            for item in items:
                await self._delete_segment(item)
        for partition in (producers_partition(life.incarnation), followers_partition(life.incarnation)):
            while items := await self._table.query(partition, limit=ITEMS_PER_STEP):
                for item in items:
                    await self._table.delete({a.PK: item[a.PK], a.SK: item[a.SK]})

    async def _delete_segment(self, item: Item) -> None:
        segment = segment_of_item(item)
        if isinstance(segment, ColdSegment):
            await self._cold.remove(segment.object_key)
        else:
            await self._payloads.remove(segment.owner, segment.batches)
        await self._table.delete({a.PK: item[a.PK], a.SK: item[a.SK]})
