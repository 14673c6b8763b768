"""The format of items: the version that this program writes, and the refusal of items of a newer one.

A deployment replaces one function after the other, so two releases work on one table at the same time. Rules:

1. Every item that is put says its format; one that does not say it has format 1. An update that adds to a head what
   only this format has, raises the head's format, too.
2. A release reads, updates and deletes items of all formats up to its own.
3. It neither uses nor changes an item of a newer format: that is a 503 and a line `item_too_new` in the log, and the
   same request succeeds once the newer release answers it. An update says so in its condition, because it is sent
   before anything was read.

Formats:

1. All payloads of a stream are in one partition (`gathered_payload_key`).
2. Each payload has a partition of its own (`payload_key`), and may hold a group of batches (`Placement.GROUP`). Heads
   and segments are otherwise as before.
"""

import logging
from typing import Final

from fluvial.model.errors import StoreUnavailable
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.keys import Item

log = logging.getLogger(__name__)

#: The format of the items that this program writes, and the newest that it understands.
FORMAT: Final = 2

_FIRST_FORMAT: Final = 1


class ItemTooNew(StoreUnavailable):
    """A newer release has written the item: nothing was read of it, and nothing written."""


def with_format(item: Item) -> Item:
    """The item as it is put, with the format that it is in."""
    return {**item, a.FORMAT: {"N": str(FORMAT)}}


def format_of(item: Item) -> int:
    """The format that an item says it is in."""
    return int(item[a.FORMAT]["N"]) if a.FORMAT in item else _FIRST_FORMAT


def require_understood(*items: Item | None) -> None:
    """Raise ItemTooNew when one of the items has a newer format than this program understands."""
    for item in items:
        if item is not None and format_of(item) > FORMAT:
            found = {"partition": item.get(a.PK, {}).get("S"), "format": format_of(item), "understood": FORMAT}
            log.error("item_too_new", extra=found)
            raise ItemTooNew(f"a newer release has written the item (format {format_of(item)})")
