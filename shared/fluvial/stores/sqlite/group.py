"""A group: the commits of one transaction, judged in order, and the rows that they come to."""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field

from msgspec.structs import replace

from fluvial.core.commit import Commit, Outcome, Unmet
from fluvial.core.head import Head, Incarnation, ProducerState
from fluvial.core.names import StreamName
from fluvial.core.transition import Batch, transition
from fluvial.stores.sqlite.queries import SQL
from fluvial.stores.sqlite.rows import Row, head_row, hot_run_row, new_head_row
from fluvial.stores.sqlite.runs import Run

#: The durable head of a name, with the state of the producer if one is named.
HeadOf = Callable[[StreamName, str | None], Head | None]


@dataclass(slots=True)
class _RunInMaking:
    start: int
    ends: list[int] = field(default_factory=list)
    parts: list[bytes] = field(default_factory=list)

    def run(self) -> Run:
        """The batches so far as one run."""
        return Run(
            self.start,
            tuple(self.ends),
            self.parts[0] if len(self.parts) == 1 else b"".join(self.parts),
        )


@dataclass(slots=True)
class Group:
    """One transaction in the making: the heads as they will be, and what goes with them."""

    head_of: HeadOf
    heads: dict[StreamName, Head | None] = field(default_factory=dict)
    dropped: list[Incarnation] = field(default_factory=list)
    _heads_before: dict[StreamName, Head | None] = field(default_factory=dict)
    _producers: dict[tuple[Incarnation, str], ProducerState] = field(default_factory=dict)
    _making: dict[Incarnation, _RunInMaking] = field(default_factory=dict)
    _runs: dict[Incarnation, Run] | None = None

    def judge(self, name: StreamName, commit: Commit) -> Outcome:
        """Judge a commit on the heads that its predecessors in the group leave, and take in what it changes."""
        producer_id = commit.producer_id
        result = transition(name, commit, lambda wanted: self._head(wanted, producer_id))
        if isinstance(result, Unmet):
            return result
        change, applied = result
        for changed, head in change.heads.items():
            if changed not in self.heads:
                self._heads_before[changed] = self.head_of(changed, None)
            self.heads[changed] = head
        self.dropped += change.dropped
        if change.batch is not None:
            self._add_batch(change.batch)
        if producer_id is not None and applied.head is not None:
            self._producers[applied.head.incarnation, producer_id] = applied.head.producers[producer_id]
        return applied

    @property
    def runs(self) -> dict[Incarnation, Run]:
        """The batches that the group adds, by life, once all its commits are judged."""
        if self._runs is None:
            self._runs = {incarnation: making.run() for incarnation, making in self._making.items()}
        return self._runs

    def write(self, connection: sqlite3.Connection) -> None:
        """Put the rows into the open transaction. Raises sqlite3.Error."""
        removed, saved, new = list[Row](), list[Row](), list[Row]()
        for name, head in self.heads.items():
            before = self._heads_before[name]
            if head is None:
                removed.append((name,))
            elif before is not None and before.incarnation == head.incarnation:
                saved.append(head_row(name, head))
            else:
                new.append(new_head_row(name, head))
        statements = (
            (SQL.remove_head, removed),
            (SQL.save_head, saved),
            (SQL.save_new_head, new),
            (
                SQL.add_hot_run,
                [hot_run_row(incarnation, run) for incarnation, run in self.runs.items()],
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

    def _head(self, name: StreamName, producer_id: str | None) -> Head | None:
        if name not in self.heads:
            return self.head_of(name, producer_id)
        head = self.heads[name]
        if producer_id is None or head is None or producer_id in head.producers:
            return head
        # The group has not heard of the producer; the database may have, if this life is in it already.
        before = self._heads_before[name]
        if before is None or before.incarnation != head.incarnation:
            return head
        known = self.head_of(name, producer_id)
        if known is None or producer_id not in known.producers:
            return head
        return replace(head, producers={**head.producers, producer_id: known.producers[producer_id]})

    def _add_batch(self, batch: Batch) -> None:
        making = self._making.get(batch.incarnation)
        if making is None:
            making = self._making[batch.incarnation] = _RunInMaking(batch.start)
        making.ends.append(batch.end)
        making.parts.append(batch.data)
