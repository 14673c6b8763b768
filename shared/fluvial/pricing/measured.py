"""What `make cost` measured on AWS's own engine, and counted in template.yaml: measured.json, which it writes."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.resources import files
from typing import Final, TypeVar

import msgspec

FILE_NAME: Final = "measured.json"


@dataclass(frozen=True, slots=True)
class AppendUnits:
    """What one append of so many bytes takes in its whole life; averages of one writer's many appends."""

    bytes: float
    write_units: float
    write_requests: float
    #: Of the write units, those of the partition that takes most of them: the head's.
    partition_write_units: float
    #: The same append as a transaction of the head and an item, for comparison.
    transaction_write_units: float
    append_s3_puts: float
    #: Moving it into a segment in S3, and deleting it from the table.
    rotation_write_units: float
    rotation_read_units: float
    rotation_s3_puts: float
    rotation_s3_gets: float
    #: A read of the newest batch by a process that knows nothing of the stream yet.
    tail_read_units: float
    tail_s3_gets: float
    #: A read of 1 MB in batches of this size that are not in S3 yet, and of 1 MB from segments in S3.
    hot_mb_read_units: float
    hot_mb_s3_gets: float
    cold_mb_read_units: float
    cold_mb_s3_gets: float

    @property
    def life_write_units(self) -> float:
        """From the append to the deletion."""
        return self.write_units + self.rotation_write_units

    @property
    def life_s3_puts(self) -> float:
        """From the append to the deletion, which is free in S3."""
        return self.append_s3_puts + self.rotation_s3_puts


@dataclass(frozen=True, slots=True)
class PollUnits:
    """What one process with live readers reads of a stream that gets so many writes a second."""

    writes_s: float
    read_units_s: float
    reads_s: float


@dataclass(frozen=True, slots=True)
class WriterUnits:
    """Write units of an append when so many processes append to one stream (`bench.writers`)."""

    writers: float
    #: Appends a second of all of them together.
    writes_s: float
    write_units: float


@dataclass(frozen=True, slots=True)
class CrowdUnits:
    """Appends of so many bytes, by the number of writers; it rises, and begins with one."""

    bytes: float
    writers: Sequence[WriterUnits]

    def surplus(self, writers: float, writes_s: float) -> float:
        """What each append takes more than a lone writer's: others append while one spills the head.

        Writers that append more rarely than those that were measured count as fewer of them.
        """
        alone, most = self.writers[0], self.writers[-1]
        count = min(writers, writes_s / (most.writes_s / most.writers), most.writers)
        return max(0.0, between(self.writers, count).write_units - alone.write_units)


@dataclass(frozen=True, slots=True)
class _Surplus:
    bytes: float
    write_units: float


@dataclass(frozen=True, slots=True)
class BroadcastUnits:
    """What sending a stream's news to its WebSockets takes of the table."""

    write_units: float
    read_units: float


@dataclass(frozen=True, slots=True)
class Stack:
    """What template.yaml creates and what costs by being there."""

    alarms: int
    dashboards: int
    secrets: int
    edge_memory_mb: int
    live_memory_mb: int
    changes_memory_mb: int
    #: How long the bucket keeps a deleted object's version.
    deleted_days: int


@dataclass(frozen=True, slots=True)
class Measured:
    """All of it. Each sequence rises by its first field."""

    appends: Sequence[AppendUnits]
    polls: Sequence[PollUnits]
    crowds: Sequence[CrowdUnits]
    broadcast: BroadcastUnits
    stack: Stack

    def append(self, byte_count: float) -> AppendUnits:
        """An append of so many bytes; between two measured sizes by a straight line."""
        return between(self.appends, byte_count)

    def poll(self, writes_s: float) -> PollUnits:
        """A process with live readers; more writes a second than were measured take no more reads."""
        return between(self.polls, min(writes_s, self.polls[-1].writes_s))

    def crowd(self, byte_count: int) -> CrowdUnits:
        """Writers of appends of a size that was measured."""
        return next(one for one in self.crowds if one.bytes == byte_count)

    def crowd_write_units(self, byte_count: float, writers: float, writes_s: float) -> float:
        """What each append takes more than a lone writer's.

        The last size is of batches that the head only points to, so larger ones take as much as they.
        """
        rows = [_Surplus(one.bytes, one.surplus(writers, writes_s)) for one in self.crowds]
        return between(rows, min(byte_count, rows[-1].bytes)).write_units


Row = TypeVar("Row", AppendUnits, PollUnits, WriterUnits, _Surplus)


def between(rows: Sequence[Row], at: float) -> Row:
    """The row at a value of the first field, on the straight line through its neighbours; the first row before it."""
    keys = [float(getattr(row, fields(row)[0].name)) for row in rows]
    place = min(max(bisect_right(keys, at), 1), len(rows) - 1)
    low, high = rows[place - 1], rows[place]
    share = max(0.0, (at - keys[place - 1]) / (keys[place] - keys[place - 1]))
    values: Mapping[str, float] = {
        one.name: getattr(low, one.name) + share * (getattr(high, one.name) - getattr(low, one.name))
        for one in fields(low)
    }
    return type(low)(**values)


def load_measured() -> Measured:
    """The package's own file."""
    return msgspec.json.decode(files("fluvial.pricing").joinpath(FILE_NAME).read_bytes(), type=Measured)
