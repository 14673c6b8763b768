"""The streams' database: each row, and that the rows agree with each other.

Each stream's bytes are contiguous from its own start to its tail, in segments and then in the hot log. Forks' lineages,
producers' numbers, cursors and references to sources are what the heads say. Every row belongs to a stream, or to an
ended incarnation that garbage collection has not deleted yet; the bytes of those are not looked at.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import msgspec

from fluvial.model.errors import StorageDamaged
from fluvial.model.head import Head, Incarnation
from fluvial.storage.batch_range import unpack_ends
from fluvial.storage.findings import Place, place_in
from fluvial.storage.sqlite.database import DATABASE, migrations
from fluvial.storage.sqlite.rows import Row, head_of_row, segment_of_row
from fluvial.storage.sqlite.segment_files import StoredSegment
from fluvial.storage.sqlite.verification.databases import DatabaseCheck
from fluvial.storage.sqlite.verification.subscriptions import check_subscriptions

_HEADS: Final = """
SELECT name, incarnation, config, tail, closed, closed_by, stream_seq, live_until_ms, references_, soft_deleted,
       producer_count, delivered, cursors, reader_key, appended_ms, checksum,
       (SELECT max(end_offset) FROM hot_run WHERE hot_run.incarnation = stream.incarnation), NULL
  FROM stream ORDER BY name"""

_HOT_LOG: Final = """
SELECT incarnation, end_offset, start_offset, batch_count, ends, data, appended_ms, checksum
  FROM hot_run ORDER BY incarnation, end_offset"""


@dataclass(slots=True)
class OwnedSegment:
    """A segment of a stream, and the stream's name and head."""

    segment: StoredSegment
    name: str
    head: Head | None


@dataclass(slots=True)
class _Owner:
    """A stream, and how far its bytes were found. Its head is None if the row is damaged."""

    name: str
    head: Head | None
    end: int | None
    producer_count: int = 0


@dataclass(slots=True)
class StreamsCheck:
    """One check of the database, in one read transaction. `segments` are those whose files must be there."""

    database: DatabaseCheck
    segments: list[OwnedSegment] = field(default_factory=list)
    _owners: dict[int, _Owner] = field(default_factory=dict)
    _ended: set[int] = field(default_factory=set)

    def run(self) -> None:
        """Check everything that can be read."""
        versions = migrations()
        version = self.database.begin(versions)
        if version is None:
            return
        if version != versions[-1][0]:
            what = f"not checked: rows of schema {version} have no checksums; a server of this version adds them"
            self.database.findings.note(Place(DATABASE), what)
            return
        self._check_heads()
        for incarnation, _ in self.database.rows("ended_life", "incarnation", "incarnation"):
            self._ended.add(incarnation)
        self._check_segments()
        self._check_hot_log()
        for owner in self._owners.values():
            self._check_end(owner)
        self._check_producers()
        for source, estuary, *_ in self.database.rows("follower", "source, estuary, mode, subscription", "source"):
            self._owner_of(source, f"the follower {estuary}")
        self._check_relations()
        self._check_newest_birth()
        check_subscriptions(self.database)

    def _problem(self, owner: _Owner, what: str, position: int | None = None) -> None:
        self.database.findings.problem(place_in(DATABASE, owner.name, owner.head, position), what)

    def _check_heads(self) -> None:
        for row in self.database.fetch(_HEADS):
            self.database.findings.count("streams")
            self.database.findings.count("rows")
            name, incarnation, head = str(row[0]), row[1], None
            if self.database.has_right_checksum(row[:-2], "stream", Place(DATABASE, name)):
                try:
                    head = head_of_row(row)
                except (StorageDamaged, msgspec.DecodeError) as exc:
                    self.database.findings.problem(Place(DATABASE, name), f"the head cannot be decoded: {exc}")
            self._owners[incarnation] = _Owner(name, head, None if head is None else head.own_start)

    def _owner_of(self, incarnation: int, what: str) -> _Owner | None:
        """The stream that owns a row; a row without an owner is a problem."""
        owner = self._owners.get(incarnation)
        if owner is None and incarnation not in self._ended:
            self.database.findings.problem(Place(DATABASE), f"{what} belongs to no stream ({incarnation})")
        return owner

    def _continue(self, owner: _Owner, start: int, end: int) -> None:
        """Count bytes of a stream that begin where those before them end."""
        if any(not isinstance(place, int) for place in (start, end)):  # a damaged row, which is reported
            return
        if owner.end is not None and start > owner.end:
            self._problem(owner, f"the bytes from position {owner.end} to {start} are missing", owner.end)
        elif owner.end is not None and start < owner.end:
            self._problem(owner, f"the bytes from position {start} to {owner.end} are there twice", start)
        owner.end = end

    def _check_segments(self) -> None:
        columns = "incarnation, end_offset, start_offset, batch_count, layout"
        for row in self.database.rows("segment", columns, "incarnation, end_offset"):
            owner = self._owner_of(row[0], f"the segment at {row[2]}")
            if owner is not None:
                self._continue(owner, row[2], row[1])
                self.segments.append(OwnedSegment(segment_of_row(row), owner.name, owner.head))

    def _check_hot_log(self) -> None:
        for row in self.database.fetch(_HOT_LOG):
            self.database.findings.count("rows")
            owner = self._owner_of(row[0], f"the hot log at {row[2]}")
            if owner is None:
                continue
            if self.database.has_right_checksum(row, "hot_run", place_in(DATABASE, owner.name, owner.head, row[2])):
                self._check_batches(owner, row)
            self._continue(owner, row[2], row[1])

    def _check_batches(self, owner: _Owner, row: Row) -> None:
        _, end, start, batch_count, packed, data, *_ = row
        ends = (end,) if packed is None else unpack_ends(packed)
        self.database.findings.count("batches", len(ends))
        is_ordered = all(before < after for before, after in zip((start, *ends), ends, strict=False))
        if not is_ordered or ends[-1] != end or len(ends) != batch_count or len(data) != end - start:
            self._problem(owner, "the batches do not fill their row", start)

    def _check_end(self, owner: _Owner) -> None:
        if owner.head is None or owner.end is None:
            return
        if owner.end < owner.head.tail:
            self._problem(owner, f"the bytes from position {owner.end} to the tail are missing", owner.end)
        elif owner.end > owner.head.tail:
            self._problem(owner, f"there are bytes after the tail, up to position {owner.end}", owner.head.tail)

    def _check_producers(self) -> None:
        for row in self.database.rows("producer", "incarnation, producer_id, epoch, seq", "incarnation, producer_id"):
            owner = self._owner_of(row[0], "a producer")
            if owner is not None:
                owner.producer_count += 1
        for owner in self._owners.values():
            if owner.head is not None and owner.head.producer_count != owner.producer_count:
                count = owner.head.producer_count
                self._problem(owner, f"has {owner.producer_count} producers, and its head says {count}")

    def _check_relations(self) -> None:
        """What heads say of other streams: sources of forks, lineages, and how far estuaries were filled."""
        heads = [owner.head for owner in self._owners.values() if owner.head is not None]
        forks = Counter(head.forked_from.incarnation for head in heads if head.forked_from is not None)
        for owner in self._owners.values():
            head = owner.head
            if head is None:
                continue
            if len(heads) == len(self._owners) and head.references != forks[head.incarnation]:
                self._problem(owner, f"has {forks[head.incarnation]} forks, and its head says {head.references}")
            for span in head.lineage:
                if not self._has_bytes(span.incarnation, span.start, span.end):
                    what = f"inherits the bytes from position {span.start} to {span.end}, which are not there"
                    self._problem(owner, what, span.start)
            for source, cursor in head.cursors.items():
                followed = self._owners.get(cursor.incarnation)
                if followed is not None and followed.head is not None and cursor.position > followed.head.tail:
                    self._problem(owner, f"has more of {source} than there is")
            if head.delivered is not None and head.delivered > head.tail:
                self._problem(owner, "more was delivered to its followers than there is", head.tail)

    def _has_bytes(self, incarnation: Incarnation, start: int, end: int) -> bool:
        """Whether an incarnation is there with some bytes; those of a damaged head count as there."""
        if start == end:
            return True
        owner = self._owners.get(incarnation)
        if owner is None:
            return False
        return owner.head is None or (owner.head.own_start <= start and end <= owner.head.tail)

    def _check_newest_birth(self) -> None:
        births = [row[0] for row in self.database.rows("newest_life", "born_us", "born_us")]
        newest = max((owner.head.born_us for owner in self._owners.values() if owner.head is not None), default=0)
        if len(births) != 1 or births[0] < newest:
            self.database.findings.problem(Place(DATABASE), "the latest birth of a stream is not known")
