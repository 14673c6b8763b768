"""The changes of one group of commits: evaluated in order, then written as the rows of one transaction.

`group_commit` decides which commits are a group and when it is written; this module decides what the rows are.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from fluvial.model.commit import Commit, Outcome, Unmet, UpdateCommit
from fluvial.model.head import Head, Incarnation, ProducerState
from fluvial.model.names import StreamName
from fluvial.model.transition import Batch, transition
from fluvial.storage.batch_range import BatchRange
from fluvial.storage.sqlite.checkpoints import PAGE_BYTES
from fluvial.storage.sqlite.queries import SQL
from fluvial.storage.sqlite.rows import (
    Row,
    ended_row,
    has_only_grown,
    head_row,
    hot_range_row,
    newest_birth_row,
    producer_row,
)

#: A head keeps the states of the producers that wrote last; the others are loaded when they write again.
PRODUCERS_KEPT_MAX: Final = 64

#: One row of the hot log, unless a single batch is larger: a page that begins in a row reads the whole row.
HOT_RANGE_BYTES_MAX: Final = 131_072

#: Returns the durable head of a name. It includes the state of the producer whose id is given, if that has one.
LoadHead = Callable[[StreamName, str | None], Head | None]


@dataclass(slots=True)
class _GrowingRange:
    """A batch range to which the group's commits still add batches."""

    start: int
    ends: list[int] = field(default_factory=list)
    parts: list[bytes] = field(default_factory=list)

    byte_count: int = 0

    def add(self, batch: Batch) -> None:
        self.ends.append(batch.end)
        self.parts.append(batch.data)
        self.byte_count += len(batch.data)

    def to_range(self) -> BatchRange:
        data = self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)
        return BatchRange(self.start, tuple(self.ends), data)


@dataclass(slots=True)
class GroupChanges:
    """The heads after the commits evaluated so far, the batches that they add, and the incarnations that they end.

    `heads` has the heads that changed, None for a name that has no stream now; `heads_before` has the durable heads of
    all names that the commits looked at. `newest_born_us` is the latest birth of all incarnations of the store.
    """

    load_head: LoadHead
    newest_born_us: int = 0
    _has_births: bool = (
        False  # true also when the group ends the incarnation again: its birth must be saved all the same
    )
    heads: dict[StreamName, Head | None] = field(default_factory=dict)
    dropped: list[Incarnation] = field(default_factory=list)
    heads_before: dict[StreamName, Head | None] = field(default_factory=dict)
    _producers: dict[tuple[Incarnation, str], ProducerState] = field(default_factory=dict)
    _growing: dict[Incarnation, list[_GrowingRange]] = field(default_factory=dict)
    _appended_ms: dict[Incarnation, int] = field(default_factory=dict)
    _ranges: dict[Incarnation, list[BatchRange]] | None = None

    def evaluate(self, name: StreamName, commit: Commit) -> Outcome:
        """Evaluate a commit on the heads that the group's earlier commits leave, and include its changes."""
        producer_id = commit.producer_id if isinstance(commit, UpdateCommit) else None
        result = transition(name, commit, lambda wanted: self._head(wanted, producer_id), self.newest_born_us)
        if isinstance(result, Unmet):
            return result
        change, applied = result
        if applied.head is not None and applied.head.born_us > self.newest_born_us:
            self.newest_born_us, self._has_births = applied.head.born_us, True
        for changed, head in change.heads.items():
            self.heads[changed] = head if head is None else _keep_latest_producers(head)
        self.dropped += change.dropped
        if change.batch is not None:
            assert applied.head is not None, "a commit that adds a batch leaves a head"
            assert applied.head.appended_ms is not None, "and the head tells when that was"
            self._add_batch(change.batch, applied.head.appended_ms)
        if producer_id is not None and applied.head is not None:
            self._producers[applied.head.incarnation, producer_id] = applied.head.producers[producer_id]
        return applied

    @property
    def ranges(self) -> dict[Incarnation, list[BatchRange]]:
        """The batch ranges that the group adds to each incarnation's hot log; only after the last `evaluate`."""
        if self._ranges is None:
            self._ranges = {
                incarnation: [growing.to_range() for growing in added] for incarnation, added in self._growing.items()
            }
        return self._ranges

    @property
    def page_count(self) -> int:
        """About how many pages the rows add to the write-ahead log: a row is in a page of its own, or fills some."""
        row_count = len(self.heads) + len(self._producers) + len(self.dropped)
        ranges = (growing for added in self._growing.values() for growing in added)
        return row_count + sum(2 + growing.byte_count // PAGE_BYTES for growing in ranges)

    def write(self, connection: sqlite3.Connection) -> None:
        """Write the rows within the open transaction. Raises sqlite3.Error."""
        removed, saved, new = list[Row](), list[Row](), list[Row]()
        for name, head in self.heads.items():
            before = self.heads_before[name]
            if head is None:
                removed.append((name,))
            elif before is None or before.incarnation != head.incarnation:
                new.append(head_row(name, head))
            elif not has_only_grown(before, head):
                saved.append(head_row(name, head))
        statements = (
            (SQL.remove_head, removed),
            (SQL.save_head, saved),
            (SQL.save_new_head, new),
            (
                SQL.add_hot_range,
                [
                    hot_range_row(incarnation, added, self._appended_ms[incarnation])
                    for incarnation, ranges in self.ranges.items()
                    for added in ranges
                ],
            ),
            (
                SQL.save_producer,
                [producer_row(*key, state) for key, state in self._producers.items()],
            ),
            (SQL.add_ended_incarnation, [ended_row(incarnation) for incarnation in self.dropped]),
        )
        for statement, rows in statements:
            if rows:
                connection.executemany(statement, rows)
        if self._has_births:
            connection.execute(SQL.save_newest_birth, newest_birth_row(self.newest_born_us))

    def _head(self, name: StreamName, producer_id: str | None) -> Head | None:
        """The head as the group leaves it so far, with the state of one producer."""
        if name not in self.heads:
            head = self.heads_before[name] = self.load_head(name, producer_id)
            return head
        head = self.heads[name]
        if producer_id is None or head is None or producer_id in head.producers:
            return head
        state = self._producers.get((head.incarnation, producer_id)) or self._durable_state(name, head, producer_id)
        return head if state is None else replace(head, producers={**head.producers, producer_id: state})

    def _durable_state(self, name: StreamName, head: Head, producer_id: str) -> ProducerState | None:
        """A producer's state in the database; None if it has none, or if the incarnation began in this group."""
        before = self.heads_before[name]
        if before is None or before.incarnation != head.incarnation:
            return None
        durable = self.load_head(name, producer_id)
        return None if durable is None else durable.producers.get(producer_id)

    def _add_batch(self, batch: Batch, appended_ms: int) -> None:
        self._appended_ms[batch.incarnation] = appended_ms
        ranges = self._growing.setdefault(batch.incarnation, [])
        if not ranges or ranges[-1].byte_count + len(batch.data) > HOT_RANGE_BYTES_MAX:
            ranges.append(_GrowingRange(batch.start))
        ranges[-1].add(batch)


def _keep_latest_producers(head: Head) -> Head:
    """The head without the producers that wrote first, when it has more than PRODUCERS_KEPT_MAX."""
    if len(head.producers) <= PRODUCERS_KEPT_MAX:
        return head
    return replace(head, producers=dict(list(head.producers.items())[-PRODUCERS_KEPT_MAX // 2 :]))
