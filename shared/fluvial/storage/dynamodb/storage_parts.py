"""Places: where a stream's bytes can be."""

from dataclasses import dataclass

from fluvial.storage.dynamodb.reads.cold_segments import ColdSegments
from fluvial.storage.dynamodb.table.objects import Objects
from fluvial.storage.dynamodb.table.table import Table
from fluvial.storage.dynamodb.writes.payloads import Payloads


@dataclass(frozen=True, slots=True)
class Backend:
    """One table with heads and hot segments, one bucket with cold ones, and payloads in either."""

    table: Table
    objects: Objects
    cold: ColdSegments
    payloads: Payloads


def backend(table: Table, objects: Objects) -> Backend:
    """The places in a table and a bucket."""
    return Backend(table, objects, ColdSegments(objects), Payloads(table, objects))
