"""Undeletion: bring back the objects that a restored table points to and that were deleted since.

The bucket has versions: a deletion puts a delete marker on top of an object, and the object's bytes stay below it for
as long as the bucket's lifecycle says. Removing the markers makes them readable again:
https://docs.aws.amazon.com/AmazonS3/latest/userguide/ManagingDelMarkers.html

1. Only delete markers are removed, never a version with bytes.
2. Each step may be repeated, and an undeletion that is interrupted starts again from the beginning.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from fluvial.concurrency import map_bounded
from fluvial.model.errors import FluvialError
from fluvial.model.names import StreamName
from fluvial.storage.dynamodb.backend import Backend
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.aws_client import NotFound
from fluvial.storage.dynamodb.table.format import require_understood
from fluvial.storage.dynamodb.table.items import (
    ColdSegment,
    Placement,
    StoredBatch,
    decode_head_item,
    decode_segment,
)
from fluvial.storage.dynamodb.table.keys import Item, Key, name_of
from fluvial.storage.dynamodb.writes.payloads import object_key

log = logging.getLogger(__name__)

#: Objects that are looked at at the same time.
OBJECTS_AT_ONCE: Final = 16


class UndeletionReport(msgspec.Struct, rename="camel"):
    """Counts of the items that were inspected and of the objects that they point to.

    `lost` objects have no version left; what cannot be inspected is a failure.
    """

    items: int = 0
    present: int = 0
    undeleted: int = 0
    lost: int = 0
    failures: int = 0


@dataclass(frozen=True, slots=True)
class _Pointer:
    """An object that an item of a stream points to."""

    key: str
    owner: StreamName


class Undeleter:
    """Brings back objects, page by page of the table's items."""

    def __init__(self, backend: Backend, *, dry_run: bool) -> None:
        """With `dry_run` nothing is changed; the report counts what would be."""
        self._backend, self._dry_run = backend, dry_run
        self.report = UndeletionReport()

    async def undelete_page(self, start: Key | None) -> Key | None:
        """Bring back what the items after a key point to; the last item's key, None at the end.

        Raises StoreUnavailable when the table cannot be read.
        """
        items, last = await self._backend.table.scan(start)
        pointers = dict[str, _Pointer]()
        for item in items:
            self.report.items += 1
            try:
                pointers |= {pointer.key: pointer for pointer in _pointers(item)}
            except Exception:  # an item that cannot be decoded does not keep the others' objects deleted
                self.report.failures += 1
                log.exception("not_undeleted", extra={"what": item[a.PK]["S"]})
        await map_bounded(list(pointers.values()), self._undelete, OBJECTS_AT_ONCE)
        return last

    async def _undelete(self, pointer: _Pointer) -> None:
        try:
            await self._bring_back(pointer)
        except FluvialError as exc:
            self.report.failures += 1
            log.warning("not_undeleted", extra={"what": pointer.key, "reason": str(exc.__cause__ or exc)})

    async def _bring_back(self, pointer: _Pointer) -> None:
        try:
            await self._backend.objects.metadata(pointer.key)
        except NotFound:
            history = await self._backend.objects.load_history(pointer.key)
            if not history.version_count or not history.delete_markers:
                self.report.lost += 1
                log.error("object_lost", extra={"key": pointer.key, "stream": pointer.owner})  # noqa: TRY400
                return
            if not self._dry_run:
                for version_id in history.delete_markers:
                    await self._backend.objects.remove_delete_marker(pointer.key, version_id)
            self.report.undeleted += 1
        else:
            self.report.present += 1


def _pointers(item: Item) -> Iterator[_Pointer]:
    """The objects that a head, a segment, or the pointer to a cold segment points to. Raises ItemTooNew."""
    require_understood(item)
    kind = item[a.PK]["S"].partition("#")[0]
    if kind == "S" and item[a.SK]["S"] == a.HEAD_SK:
        yield from _of_batches(name_of(item), decode_head_item(item).buffer)
    elif kind == "SEG":
        segment = decode_segment(item)
        if isinstance(segment, ColdSegment):
            yield _Pointer(segment.object_key, segment.owner)
        else:
            yield from _of_batches(segment.owner, segment.batches)


def _of_batches(owner: StreamName, batches: Sequence[StoredBatch]) -> Iterator[_Pointer]:
    for batch in batches:
        if batch.placement is Placement.OBJECT:
            yield _Pointer(object_key(owner, batch.commit_id), owner)
