"""Places: where a stream's bytes can be."""

from dataclasses import dataclass

from fluvial.stores.dynamodb.cold_segments import ColdSegments
from fluvial.stores.dynamodb.objects import Objects
from fluvial.stores.dynamodb.payloads import Payloads
from fluvial.stores.dynamodb.table import Table


@dataclass(frozen=True, slots=True)
class Places:
    """One table with heads and hot segments, one bucket with cold ones, and payloads in either."""

    table: Table
    objects: Objects
    cold: ColdSegments
    payloads: Payloads


def places(table: Table, objects: Objects) -> Places:
    """The places in a table and a bucket."""
    return Places(table, objects, ColdSegments(objects), Payloads(table, objects))
