"""Cold segments: immutable S3 objects. Each has the bytes of contiguous batches, then the batches' commit ids."""

from collections.abc import Sequence
from typing import Final

from fluvial.model.commit import COMMIT_ID_BYTES, CommitId
from fluvial.model.errors import StorageDamaged
from fluvial.model.head import Incarnation
from fluvial.storage.dynamodb.table.aws_client import NotFound
from fluvial.storage.dynamodb.table.items import ColdSegment
from fluvial.storage.dynamodb.table.objects import Objects

SEGMENT_PREFIX: Final = "segments"


class ColdSegments:
    """The segments in one bucket."""

    def __init__(self, objects: Objects) -> None:
        """No request is sent before the first segment."""
        self._objects = objects

    async def put(self, key: str, data: bytes, commit_ids: Sequence[CommitId]) -> None:
        """Store a segment under a key of its own. Raises StoreUnavailable: the object may exist nevertheless."""
        await self._objects.put(key, data + b"".join(commit_ids), {})

    async def read(self, segment: ColdSegment, start: int, end: int) -> bytes:
        """The stream's bytes [start, end) of a segment. Raises StorageDamaged, StoreUnavailable."""
        return await self._read_range(segment, start - segment.start, end - segment.start)

    async def commit_ids(self, segment: ColdSegment) -> list[CommitId]:
        """The ids of a segment's batches, in their order. Raises StorageDamaged, StoreUnavailable."""
        size = segment.end - segment.start
        packed = await self._read_range(segment, size, size + len(segment.ends) * COMMIT_ID_BYTES)
        return [CommitId(packed[at : at + COMMIT_ID_BYTES]) for at in range(0, len(packed), COMMIT_ID_BYTES)]

    async def remove(self, key: str) -> None:
        """Delete a segment's object."""
        await self._objects.delete(key)

    async def _read_range(self, segment: ColdSegment, first: int, end: int) -> bytes:
        try:
            body = await self._objects.get_range(segment.object_key, first, end)
        except NotFound as exc:
            raise StorageDamaged("a segment's object is missing") from exc
        if len(body) != end - first:
            raise StorageDamaged("a segment's object is too short")
        return body


def segment_object_key(incarnation: Incarnation, start: int, end: int, writer: CommitId) -> str:
    """A key for one writer's object: two that rotate the same segments write two objects."""
    return f"{SEGMENT_PREFIX}/{incarnation:016x}/{start:016d}-{end:016d}-{writer.hex()}"
