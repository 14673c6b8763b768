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


class Objects:
    """One bucket. Every method raises StoreUnavailable; a write that does may have been carried out nevertheless."""

    def __init__(self, aws: Aws, bucket: str) -> None:
        """No request is sent before the first call."""
        self._aws, self._bucket = aws, bucket

    async def put(self, key: str, body: bytes, metadata: Mapping[str, str]) -> None:
        """Write an object."""
        client = self._aws.objects
        await self._aws.read(client.put_object, Bucket=self._bucket, Key=key, Body=body, Metadata=dict(metadata))

    async def get(self, key: str) -> bytes:
        """An object's bytes. Raises NotFound."""
        return await self._aws.read_body(self._aws.objects.get_object, Bucket=self._bucket, Key=key)

    async def get_range(self, key: str, first: int, end: int) -> bytes:
        """The bytes [first, end) of an object, fewer where it ends before. Raises NotFound."""
        span = f"bytes={first}-{end - 1}"
        return await self._aws.read_body(self._aws.objects.get_object, Bucket=self._bucket, Key=key, Range=span)

    async def metadata(self, key: str) -> Mapping[str, str]:
        """An object's metadata. Raises NotFound."""
        answer = await self._aws.read(self._aws.objects.head_object, Bucket=self._bucket, Key=key)
        found: Mapping[str, str] = answer["Metadata"]
        return found

    async def delete(self, key: str) -> None:
        """Delete an object, if it exists."""
        await self._aws.read(self._aws.objects.delete_object, Bucket=self._bucket, Key=key)

    async def list_after(self, prefix: str, after: str) -> list[ListedObject]:
        """Objects whose keys begin with `prefix` and come after `after`, in order; none when there are no more."""
        answer = await self._aws.read(
            self._aws.objects.list_objects_v2,
            Bucket=self._bucket,
            Prefix=prefix,
            StartAfter=after,
            MaxKeys=OBJECTS_PER_LISTING,
        )
        found = answer.get("Contents", [])
        return [ListedObject(one["Key"], int(one["LastModified"].timestamp() * 1_000)) for one in found]
