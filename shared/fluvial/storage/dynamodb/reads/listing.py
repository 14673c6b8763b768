"""Listing: the names of streams, from a sparse index that only a beginning or an end of a stream touches, and heads."""

import asyncio
import heapq
from binascii import crc32
from collections.abc import Sequence
from typing import Final

from fluvial.concurrency import map_bounded
from fluvial.model.head import Head
from fluvial.model.limits import STREAM_NAME_BYTES_MAX
from fluvial.model.names import HIGHEST, StreamName
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.items import HeadItem, decode_head_item
from fluvial.storage.dynamodb.table.keys import Item, head_key, name_of
from fluvial.storage.dynamodb.table.table import BATCH_GET_MAX, Table

#: Partitions of the index. Each takes 1,000 creations and deletions a second, and every page queries each of them.
LISTING_SHARDS: Final = 8

#: Requests for heads at the same time, of a hundred heads each.
HEAD_REQUESTS_AT_ONCE: Final = 4

_NO_HEAD: Final = HeadItem(None, 0)


def listing_shard(name: StreamName) -> int:
    """The index's partition of a stream."""
    return crc32(name.encode()) % LISTING_SHARDS


async def list_names(table: Table, prefix: str, after: str, count_max: int) -> list[StreamName]:
    """See Store.names; the index is a moment behind. Raises StoreUnavailable."""
    if (
        not prefix.isascii() or len(prefix) > STREAM_NAME_BYTES_MAX
    ):  # no name begins with it, and it may be no valid key
        return []
    after = after[:STREAM_NAME_BYTES_MAX] if after.isascii() else _place_among_names(after)
    low, high = _partition(max(prefix, after)), _partition(prefix + HIGHEST)

    async def shard_names(shard: int) -> list[StreamName]:
        found, start = list[StreamName](), low
        while len(found) < count_max:
            wanted = count_max - len(found) + 1  # one of them may be `after` itself
            items: list[Item] = await table.list_heads(shard, start, high, wanted)
            names = [name_of(item) for item in items]
            found += [name for name in names if name > (found[-1] if found else after)]
            if len(items) < wanted:
                break
            start = items[-1][a.PK]["S"]
        return found

    if low > high:
        return []
    shards = await asyncio.gather(*(shard_names(shard) for shard in range(LISTING_SHARDS)))
    return list(heapq.merge(*shards))[:count_max]


async def load_heads(table: Table, names: Sequence[StreamName]) -> list[Head | None]:
    """See Store.heads: a read unit for each head, or for each 4 KB of it. Raises StoreUnavailable."""
    return [stored.head for stored in await load_head_items(table, names)]


async def load_head_items(table: Table, names: Sequence[StreamName]) -> list[HeadItem]:
    """The head items of these names, in their order, as `load_heads` reads them. Raises StoreUnavailable."""

    async def load(part: Sequence[StreamName]) -> list[Item]:
        return await table.get_many([head_key(name) for name in part])

    distinct = list(dict.fromkeys(names))  # DynamoDB refuses a request that has a key twice
    parts = [distinct[first : first + BATCH_GET_MAX] for first in range(0, len(distinct), BATCH_GET_MAX)]
    pages = await map_bounded(parts, load, HEAD_REQUESTS_AT_ONCE)
    found = {name_of(item): decode_head_item(item) for page in pages for item in page}
    return [found.get(name, _NO_HEAD) for name in names]


def _place_among_names(text: str) -> str:
    """The place of a text that is no valid name among the names, which are ASCII."""
    ascii_part = next((text[:at] for at, letter in enumerate(text) if not letter.isascii()), text)
    return (ascii_part + HIGHEST)[:STREAM_NAME_BYTES_MAX]


def _partition(name: str) -> str:
    return str(head_key(StreamName(name))[a.PK]["S"])
