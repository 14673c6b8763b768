"""The backend: a table and a bucket, and the two stores of bytes that are built on them."""

from dataclasses import dataclass

from fluvial.storage.dynamodb.reads.cold_segments import ColdSegments
from fluvial.storage.dynamodb.table.objects import Objects
from fluvial.storage.dynamodb.table.table import Table
from fluvial.storage.dynamodb.writes.payloads import Payloads


@dataclass(frozen=True, slots=True)
class Backend:
    """The table has heads and hot segments, the bucket cold segments; payloads are in either."""

    table: Table
    objects: Objects
    cold: ColdSegments
    payloads: Payloads


def build_backend(table: Table, objects: Objects) -> Backend:
    """The backend on a table and a bucket."""
    return Backend(table, objects, ColdSegments(objects), Payloads(table, objects))
