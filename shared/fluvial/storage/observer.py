"""What a store tells about its own work: an observer is called as it happens, and sizes are measured when asked.

An observer's methods are called on the event loop, must be quick, and must not raise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol, runtime_checkable


class AwsOutcome(StrEnum):
    """How a request to AWS ended."""

    ANSWERED = "answered"  # also with a condition that did not hold
    BUSY = "busy"  # the service was throttled or failed, and nothing was done
    IN_DOUBT = "in_doubt"  # it may have been carried out
    FAILED = "failed"


#: boto3's names of DynamoDB's operations whose capacity units are read units; those of all others are write units.
READS: Final = frozenset({"batch_get_item", "get_item", "query", "scan"})


class StoreObserver(Protocol):
    """Takes note of what a store does."""

    def on_group(self, commit_count: int, seconds: float) -> None:
        """A group of commits became durable, so long after its transaction began."""
        ...

    def on_fsync(self, seconds: float) -> None:
        """A COMMIT returned, with or without an error."""
        ...

    def on_checkpoint(self, seconds: float, *, is_complete: bool) -> None:
        """The write-ahead log was copied into the database, as far as its readers allowed."""
        ...

    def on_rotation(self, byte_count: int) -> None:
        """So many bytes moved from a hot log into a segment."""
        ...

    def on_aws_request(self, operation: str, outcome: AwsOutcome) -> None:
        """A request to DynamoDB or S3 ended. The operation is boto3's name, e.g. `update_item`."""
        ...

    def on_units(self, operation: str, units: float) -> None:
        """DynamoDB has billed so many capacity units for a request that it carried out."""
        ...


class _Unobserved:
    """Takes note of nothing."""

    def on_group(self, commit_count: int, seconds: float) -> None:
        """Do nothing."""

    def on_fsync(self, seconds: float) -> None:
        """Do nothing."""

    def on_checkpoint(self, seconds: float, *, is_complete: bool) -> None:
        """Do nothing."""

    def on_rotation(self, byte_count: int) -> None:
        """Do nothing."""

    def on_aws_request(self, operation: str, outcome: AwsOutcome) -> None:
        """Do nothing."""

    def on_units(self, operation: str, units: float) -> None:
        """Do nothing."""


#: The observer of a store whose work is not measured.
UNOBSERVED: Final[StoreObserver] = _Unobserved()


@dataclass(frozen=True, slots=True)
class StoreSize:
    """How much a store holds: its streams, its bytes by part, and the free bytes of its disk."""

    stream_count: int
    part_bytes: Mapping[str, int]
    free_bytes: int | None = None


@runtime_checkable
class MeasuredStore(Protocol):
    """The capability to measure itself. A store that pays for every item that it counts does not have it."""

    async def measure(self) -> StoreSize:
        """Count everything, off the event loop: it may take a second for a million streams. Raises StoreUnavailable."""
        ...


@runtime_checkable
class WriteProbe(Protocol):
    """The capability to find out whether an append would be stored now."""

    async def probe_write(self) -> None:
        """Make a write durable that changes nothing. Raises StoreUnavailable, StoreUncertain."""
        ...
