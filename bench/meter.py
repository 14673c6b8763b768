"""What calls take of DynamoDB, and its prices."""

from dataclasses import dataclass, field
from typing import Any, Final

#: us-east-1, on demand. https://aws.amazon.com/dynamodb/pricing/on-demand/ and https://aws.amazon.com/s3/pricing/
WRITE_UNIT_DOLLARS: Final = 0.625 / 1e6
READ_UNIT_DOLLARS: Final = 0.125 / 1e6
S3_PUT_DOLLARS: Final = 0.005 / 1e3
S3_GET_DOLLARS: Final = 0.0004 / 1e3

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
    _registered: list[Any] = field(default_factory=list)

    def watch(self, *clients: Any) -> None:  # noqa: ANN401  boto3 makes its clients' classes at run time
        """Count what these ask for."""
        for client in clients:
            client.meta.events.register("provide-client-params.dynamodb.*", self._ask)
            client.meta.events.register("after-call.dynamodb.*", self._count)
            client.meta.events.register("after-call.s3.PutObject", self._count_put)
            client.meta.events.register("after-call.s3.GetObject", self._count_get)

    def _ask(self, params: dict[str, Any], **_: object) -> None:
        params["ReturnConsumedCapacity"] = "TOTAL"

    def _count(self, model: Any, parsed: dict[str, Any], **_: object) -> None:  # noqa: ANN401  botocore's own
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

    def _count_put(self, **_: object) -> None:
        self.s3_puts += 1

    def _count_get(self, **_: object) -> None:
        self.s3_gets += 1
