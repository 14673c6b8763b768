"""The head cache: the last head item that this process has seen of each stream.

A cached head may be stale. That costs a failed condition or another read, never a wrong answer: every write is
conditioned on the head, and batches in a head's buffer never change.
"""

from typing import Final

from cachetools import LRUCache

from fluvial.model.names import StreamName
from fluvial.storage.dynamodb.table.items import HeadItem, decode_head_item
from fluvial.storage.dynamodb.table.keys import Item, head_key
from fluvial.storage.dynamodb.table.table import Table

#: Bounds the heads with their buffers, by what they take in memory.
CACHE_BYTES: Final = 32 * 1_048_576

_OVERHEAD_BYTES: Final = 1_024


class HeadCache:
    """Head items by stream name, loaded from one table. A cached item's fence is the best guess of the present one."""

    def __init__(self, table: Table) -> None:
        """The cache is empty."""
        self._table = table
        self._items: LRUCache[StreamName, HeadItem] = LRUCache(CACHE_BYTES, getsizeof=_memory_bytes)

    def get(self, name: StreamName) -> HeadItem | None:
        """The last head item that was seen."""
        return self._items.get(name)

    async def load(self, name: StreamName, *, consistent: bool = True) -> HeadItem:
        """Read the head item and cache it. Raises StoreUnavailable."""
        return self.store(name, await self._table.get(head_key(name), consistent=consistent))

    def store(self, name: StreamName, item: Item | None) -> HeadItem:
        """Cache and decode an item that DynamoDB has returned; None (no item) is a head item with a fence of 0."""
        stored = HeadItem(None, 0) if item is None else decode_head_item(item)
        known = self._items.get(name)
        if known is None or _is_newer(stored, known):
            self._items[name] = stored
        return stored


def _is_newer(stored: HeadItem, known: HeadItem) -> bool:
    """Whether an item is newer than the cached one: answers overtake each other, but fence and tail only grow."""
    if stored.head is None or known.head is None or stored.head.incarnation != known.head.incarnation:
        return True
    return (stored.fence, stored.head.tail, stored.base) >= (known.fence, known.head.tail, known.base)


def _memory_bytes(stored: HeadItem) -> int:
    return _OVERHEAD_BYTES + 2 * stored.item_bytes
