"""The bucket: the requests that the store sends to S3, one method each. An object is written once and never changed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fluvial.storage.dynamodb.table.aws_client import Aws

#: What one answer to a listing carries.
#: https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html
OBJECTS_PER_LISTING: Final = 1_000


@dataclass(frozen=True, slots=True)
class ListedObject:
    """An object's key, and when it was written by S3's clock."""

    key: str
    written_at_ms: int


@dataclass(frozen=True, slots=True)
class ObjectHistory:
    """The versions with bytes that a bucket keeps of an object, and the ids of its delete markers."""

    version_count: int
    delete_markers: tuple[str, ...]


class Objects:
    """One bucket. Every method raises StoreUnavailable; a write that does may have been carried out nevertheless."""

    def __init__(self, aws: Aws, bucket: str) -> None:
        """No request is sent before the first call."""
        self._aws, self.bucket = aws, bucket

    async def put(self, key: str, body: bytes, metadata: Mapping[str, str]) -> None:
        """Write an object."""
        client = self._aws.objects
        await self._aws.read(client.put_object, Bucket=self.bucket, Key=key, Body=body, Metadata=dict(metadata))

    async def put_if_absent(self, key: str, body: bytes) -> None:
        """Write an object unless there is one: the next read tells which it is."""
        client = self._aws.objects
        await self._aws.write(client.put_object, Bucket=self.bucket, Key=key, Body=body, IfNoneMatch="*")

    async def get(self, key: str) -> bytes:
        """An object's bytes. Raises NotFound."""
        return await self._aws.read_body(self._aws.objects.get_object, Bucket=self.bucket, Key=key)

    async def get_range(self, key: str, first: int, end: int) -> bytes:
        """The bytes [first, end) of an object, fewer where it ends before. Raises NotFound."""
        span = f"bytes={first}-{end - 1}"
        return await self._aws.read_body(self._aws.objects.get_object, Bucket=self.bucket, Key=key, Range=span)

    async def metadata(self, key: str) -> Mapping[str, str]:
        """An object's metadata. Raises NotFound."""
        answer = await self._aws.read(self._aws.objects.head_object, Bucket=self.bucket, Key=key)
        found: Mapping[str, str] = answer["Metadata"]
        return found

    async def delete(self, key: str) -> None:
        """Delete an object, if it exists."""
        await self._aws.read(self._aws.objects.delete_object, Bucket=self.bucket, Key=key)

    async def load_history(self, key: str) -> ObjectHistory:
        """The versions and delete markers of an object; none of either if it never existed."""
        client = self._aws.objects
        answer = await self._aws.read(client.list_object_versions, Bucket=self.bucket, Prefix=key)
        markers = [one["VersionId"] for one in answer.get("DeleteMarkers", []) if one["Key"] == key]
        return ObjectHistory(sum(one["Key"] == key for one in answer.get("Versions", [])), tuple(markers))

    async def remove_delete_marker(self, key: str, version_id: str) -> None:
        """Remove a delete marker, so that the version below it is the object again."""
        client = self._aws.objects
        await self._aws.read(client.delete_object, Bucket=self.bucket, Key=key, VersionId=version_id)

    async def list_after(self, prefix: str, after: str) -> list[ListedObject]:
        """Objects whose keys begin with `prefix` and come after `after`, in order; none when there are no more."""
        answer = await self._aws.read(
            self._aws.objects.list_objects_v2,
            Bucket=self.bucket,
            Prefix=prefix,
            StartAfter=after,
            MaxKeys=OBJECTS_PER_LISTING,
        )
        found = answer.get("Contents", [])
        return [ListedObject(one["Key"], int(one["LastModified"].timestamp() * 1_000)) for one in found]
