"""A group: the commits of one transaction, judged in order, and the rows that they come to."""

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
from fluvial.storage.sqlite.rows import Row, has_only_grown, head_row, hot_run_row, new_head_row

#: Of each head, the producers that wrote last; the others are looked up when they write again.
PRODUCERS_KEPT_MAX: Final = 64

#: One row of the hot log, unless a single batch is larger: a page that begins in it must read all of it.
HOT_RUN_BYTES_MAX: Final = 131_072

#: The durable head of a name, with the state of the producer if one is named.
HeadOf = Callable[[StreamName, str | None], Head | None]


@dataclass(slots=True)
class _RunInMaking:
    start: int
    ends: list[int] = field(default_factory=list)
    parts: list[bytes] = field(default_factory=list)

    byte_count: int = 0

    def run(self) -> BatchRange:
        """The batches so far as one run."""
        return BatchRange(
            self.start,
            tuple(self.ends),
            self.parts[0] if len(self.parts) == 1 else b"".join(self.parts),
        )


@dataclass(slots=True)
class Group:
    """One transaction in the making: the heads as they will be, and what goes with them."""

    head_of: HeadOf
    newest_born_us: int = 0  # of all lives that ever began in the store
    _has_births: bool = False  # also of lives that ended in the group that they began in
    heads: dict[StreamName, Head | None] = field(default_factory=dict)
    dropped: list[Incarnation] = field(default_factory=list)
    heads_before: dict[StreamName, Head | None] = field(default_factory=dict)
    _producers: dict[tuple[Incarnation, str], ProducerState] = field(default_factory=dict)
    _making: dict[Incarnation, list[_RunInMaking]] = field(default_factory=dict)
    _runs: dict[Incarnation, list[BatchRange]] | None = None

    def judge(self, name: StreamName, commit: Commit) -> Outcome:
        """Judge a commit on the heads that its predecessors in the group leave, and take in what it changes."""
        producer_id = commit.producer_id if isinstance(commit, UpdateCommit) else None
        result = transition(name, commit, lambda wanted: self._head(wanted, producer_id), self.newest_born_us)
        if isinstance(result, Unmet):
            return result
        change, applied = result
        if applied.head is not None and applied.head.born_us > self.newest_born_us:
            self.newest_born_us, self._has_births = applied.head.born_us, True
        for changed, head in change.heads.items():
            self.heads[changed] = head if head is None else _with_latest_producers(head)
        self.dropped += change.dropped
        if change.batch is not None:
            self._add_batch(change.batch)
        if producer_id is not None and applied.head is not None:
            self._producers[applied.head.incarnation, producer_id] = applied.head.producers[producer_id]
        return applied

    @property
    def runs(self) -> dict[Incarnation, list[BatchRange]]:
        """The batches that the group adds, by life, once all its commits are judged."""
        if self._runs is None:
            self._runs = {life: [making.run() for making in makings] for life, makings in self._making.items()}
        return self._runs

    @property
    def page_count(self) -> int:
        """About how many pages the rows take in the log: each is in a page of its own, or fills some."""
        row_count = len(self.heads) + len(self._producers) + len(self.dropped)
        runs = (making for makings in self._making.values() for making in makings)
        return row_count + sum(2 + making.byte_count // PAGE_BYTES for making in runs)

    def write(self, connection: sqlite3.Connection) -> None:
        """Put the rows into the open transaction. Raises sqlite3.Error."""
        removed, saved, new = list[Row](), list[Row](), list[Row]()
        for name, head in self.heads.items():
            before = self.heads_before[name]
            if head is None:
                removed.append((name,))
            elif before is None or before.incarnation != head.incarnation:
                new.append(new_head_row(name, head))
            elif not has_only_grown(before, head):
                saved.append(head_row(name, head))
        statements = (
            (SQL.remove_head, removed),
            (SQL.save_head, saved),
            (SQL.save_new_head, new),
            (
                SQL.add_hot_run,
                [hot_run_row(incarnation, run) for incarnation, runs in self.runs.items() for run in runs],
            ),
            (
                SQL.save_producer,
                [(*key, state.epoch, state.seq) for key, state in self._producers.items()],
            ),
            (SQL.add_ended_life, [(incarnation,) for incarnation in self.dropped]),
        )
        for statement, rows in statements:
            if rows:
                connection.executemany(statement, rows)
        if self._has_births:
            connection.execute(SQL.save_newest_life, (self.newest_born_us,))

    def _head(self, name: StreamName, producer_id: str | None) -> Head | None:
        if name not in self.heads:
            head = self.heads_before[name] = self.head_of(name, producer_id)
            return head
        head = self.heads[name]
        if producer_id is None or head is None or producer_id in head.producers:
            return head
        state = self._producers.get((head.incarnation, producer_id)) or self._durable_state(name, head, producer_id)
        return head if state is None else replace(head, producers={**head.producers, producer_id: state})

    def _durable_state(self, name: StreamName, head: Head, producer_id: str) -> ProducerState | None:
        """What the database knows of a producer that the group has not heard of, if this life is in it already."""
        before = self.heads_before[name]
        if before is None or before.incarnation != head.incarnation:
            return None
        known = self.head_of(name, producer_id)
        return None if known is None else known.producers.get(producer_id)

    def _add_batch(self, batch: Batch) -> None:
        makings = self._making.setdefault(batch.incarnation, [])
        if not makings or makings[-1].byte_count + len(batch.data) > HOT_RUN_BYTES_MAX:
            makings.append(_RunInMaking(batch.start))
        makings[-1].ends.append(batch.end)
        makings[-1].parts.append(batch.data)
        makings[-1].byte_count += len(batch.data)


def _with_latest_producers(head: Head) -> Head:
    if len(head.producers) <= PRODUCERS_KEPT_MAX:
        return head
    return replace(head, producers=dict(list(head.producers.items())[-PRODUCERS_KEPT_MAX // 2 :]))
