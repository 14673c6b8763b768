"""The backend: a table and a bucket, and the two stores of bytes that are built on them."""

from dataclasses import dataclass

from fluvial.clock import Clock
from fluvial.storage.dynamodb.bucket_owner import BucketOwner
from fluvial.storage.dynamodb.reads.cold_segments import ColdSegments
from fluvial.storage.dynamodb.table.objects import Objects
from fluvial.storage.dynamodb.table.table import Table
from fluvial.storage.dynamodb.writes.batch_groups import BatchGroups
from fluvial.storage.dynamodb.writes.payloads import Payloads


@dataclass(frozen=True, slots=True)
class Backend:
    """The table has heads, hot segments and groups, the bucket cold segments; payloads are in either.

    `owner` is asked before anything in the bucket is deleted that another table might point to.
    """

    table: Table
    objects: Objects
    cold: ColdSegments
    payloads: Payloads
    groups: BatchGroups
    owner: BucketOwner


def build_backend(table: Table, objects: Objects, clock: Clock, payload_item_bytes_max: int) -> Backend:
    """The backend on a table and a bucket; a payload of more than `payload_item_bytes_max` bytes is in the bucket."""
    payloads, groups = Payloads(table, objects, payload_item_bytes_max), BatchGroups(table)
    return Backend(table, objects, ColdSegments(objects), payloads, groups, BucketOwner(table, objects, clock))
