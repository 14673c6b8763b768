"""A limiter in front of a DynamoDB engine that has no limits: it throttles each partition as DynamoDB does.

A partition takes so many write units a second, and has what was not used for `burst_s`. Past that a request is answered
with a ThrottlingException, costs nothing, and does not reach the engine. The engine tells what a request has cost; a
failed condition costs what the size of the returned item tells.
https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html
"""

import threading
import time
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Final

from bench.simulated import WRITE_UNIT_BYTES, Bucket
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.item_size import item_bytes

#: What a request takes within a region besides what it takes here.
LATENCY_S: Final = 0.004

_PARTITION: Final = "partition"
_BUSY: Final = {"Error": {"Code": "ThrottlingException", "Message": "the limiter's"}, "ResponseMetadata": {}}


@dataclass(frozen=True)
class _Refusal:
    """What botocore looks at of an HTTP answer."""

    status_code: int = 400


@dataclass
class Limiter:
    """The limits of all partitions, whichever client asks; `units` are all that were billed."""

    units_s: float
    burst_s: float = 0.1
    units: float = 0.0
    throttled: int = 0
    _buckets: dict[str, Bucket] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def watch(self, writes: Any) -> None:  # noqa: ANN401  boto3 makes its clients' classes at run time
        """Stand in front of a client that writes."""
        events = writes.meta.events
        events.register("provide-client-params.dynamodb.*", self._note_partition)
        events.register("before-call.dynamodb.*", self._throttle)
        events.register("after-call.dynamodb.*", self._bill)

    def _note_partition(self, params: dict[str, Any], context: dict[str, Any], **_: object) -> None:
        context[_PARTITION] = (params["Key"] if "Key" in params else params["Item"])[a.PK]["S"]

    def _throttle(self, context: dict[str, Any], **_: object) -> tuple[_Refusal, dict[str, Any]] | None:
        time.sleep(LATENCY_S)
        with self._lock:
            if self._bucket(context[_PARTITION]).has_units(time.monotonic()):
                return None
            self.throttled += 1
            return _Refusal(), _BUSY

    def _bill(self, parsed: dict[str, Any], context: dict[str, Any], **_: object) -> None:
        if parsed.get("Error", {}).get("Code") == "ThrottlingException":
            return
        refused = ceil(item_bytes(parsed.get("Item", {})) / WRITE_UNIT_BYTES) or 1
        units = parsed.get("ConsumedCapacity", {}).get("CapacityUnits", refused)
        with self._lock:
            self.units += units
            self._bucket(context[_PARTITION]).units -= units

    def _bucket(self, partition: str) -> Bucket:
        if partition not in self._buckets:
            self._buckets[partition] = Bucket(self.units_s, self.burst_s, time.monotonic())
        return self._buckets[partition]
