"""Recent: what a process saw last of each stream; old news costs a refused write or a read, never a wrong answer."""

from typing import Final

from cachetools import LRUCache

from fluvial.model.names import StreamName
from fluvial.storage.dynamodb.table.items import HeadItem, head_of_item
from fluvial.storage.dynamodb.table.keys import Item

#: Heads with their buffers, by what they take in memory.
RECENT_BYTES: Final = 32 * 1_048_576

_OVERHEAD_BYTES: Final = 1_024


class HeadCache:
    """Head items by stream name. What their buffers hold is immutable; their fence is the best guess there is."""

    def __init__(self) -> None:
        """Nothing was seen."""
        self._items: LRUCache[StreamName, HeadItem] = LRUCache(RECENT_BYTES, getsizeof=_memory_bytes)

    def get(self, name: StreamName) -> HeadItem | None:
        """The last head item that was seen."""
        return self._items.get(name)

    def note(self, name: StreamName, item: Item | None) -> HeadItem:
        """Remember an item as it came; where nothing is, that is a fence of 0."""
        stored = HeadItem(None, 0) if item is None else head_of_item(item)
        known = self._items.get(name)
        if known is None or _is_newer(stored, known):
            self._items[name] = stored
        return stored


def _is_newer(stored: HeadItem, known: HeadItem) -> bool:
    """Answers overtake each other; a life's fence and tail only grow."""
    if stored.head is None or known.head is None or stored.head.incarnation != known.head.incarnation:
        return True
    return (stored.fence, stored.head.tail, stored.base) >= (known.fence, known.head.tail, known.base)


def _memory_bytes(stored: HeadItem) -> int:
    return _OVERHEAD_BYTES + 2 * stored.item_bytes
