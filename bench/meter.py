"""What calls take of DynamoDB and S3."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

WRITES: Final = {"PutItem", "UpdateItem", "DeleteItem"}


@dataclass
class Meter:
    """What a client's calls took."""

    units: float = 0.0
    requests: int = 0
    refused: int = 0
    reads: float = 0.0
    read_requests: int = 0
    s3_puts: int = 0
    s3_gets: int = 0
    #: Write units by partition key.
    partitions: dict[str, float] = field(default_factory=dict)
    _registered: list[Any] = field(default_factory=list)

    def watch(self, *clients: Any) -> None:  # noqa: ANN401  boto3 makes its clients' classes at run time
        """Count what these ask for."""
        for client in clients:
            for event, count in self._counts().items():
                client.meta.events.register(event, count)
            self._registered.append(client)

    def unwatch(self) -> None:
        """Count no more."""
        while self._registered:
            client = self._registered.pop()
            for event, count in self._counts().items():
                client.meta.events.unregister(event, count)

    def _counts(self) -> dict[str, Callable[..., None]]:
        return {
            "provide-client-params.dynamodb.*": self._ask,
            "after-call.dynamodb.*": self._count,
            "after-call.s3.PutObject": self._count_put,
            "after-call.s3.GetObject": self._count_get,
        }

    @property
    def partition_units(self) -> float:
        """Write units of the partition that took most of them."""
        return max(self.partitions.values(), default=0.0)

    def _ask(self, params: dict[str, Any], context: dict[str, Any], **_: object) -> None:
        params["ReturnConsumedCapacity"] = "TOTAL"
        context["partition"] = params.get("Key", params.get("Item", {})).get("pk", {}).get("S", "")

    def _count(self, model: Any, parsed: dict[str, Any], context: dict[str, Any], **_: object) -> None:  # noqa: ANN401
        consumed = parsed.get("ConsumedCapacity", [])
        units = sum(one["CapacityUnits"] for one in (consumed if isinstance(consumed, list) else [consumed]))
        if model.name not in WRITES:
            self.reads, self.read_requests = self.reads + units, self.read_requests + 1
            return
        self.requests += 1
        if "Error" in parsed:  # the engine on one machine does not say; AWS bills the item that refused
            self.refused += 1
            units = 1
        self.units += units
        partition = context["partition"]
        self.partitions[partition] = self.partitions.get(partition, 0.0) + units

    def _count_put(self, **_: object) -> None:
        self.s3_puts += 1

    def _count_get(self, **_: object) -> None:
        self.s3_gets += 1
