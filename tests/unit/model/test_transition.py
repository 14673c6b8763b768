"""Transitions: what commits do to heads, in particular to incarnations and to the ancestors of forks."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluvial.model.command import ForkPoint
from fluvial.model.commit import Absent, Applied, Commit, Exists, Unmet, added_byte_count
from fluvial.model.head import Head, Incarnation, StreamStatus, stream_status
from fluvial.model.lifetime import ExpiresAt
from fluvial.model.names import StreamName
from fluvial.model.plan import ForkPosition, plan_create, plan_expiry, plan_fork, plan_renewal
from fluvial.model.transition import Transition, transition
from tests.support.clocks import START_MS
from tests.support.commands import (
    NAME,
    OTHER,
    append_commit,
    close_commit,
    create_command,
    create_commit,
    delete_commit,
)


@dataclass
class Heads:
    """The heads of a store, without bytes."""

    now: dict[StreamName, Head] = field(default_factory=dict)
    dropped: list[Incarnation] = field(default_factory=list)
    newest_born_us: int = 0

    def apply(self, name: StreamName, commit: Commit) -> Head | None:
        """Apply a commit that has no unmet requirement; the head after it."""
        result = transition(name, commit, self.now.get, self.newest_born_us)
        assert not isinstance(result, Unmet), result
        change, applied = result
        self._keep(change)
        return applied.head

    def _keep(self, change: Transition) -> None:
        for name, head in change.heads.items():
            if head is None:
                self.now.pop(name, None)
            else:
                self.now[name] = head
                self.newest_born_us = max(self.newest_born_us, head.born_us)
        self.dropped += change.dropped

    def fork(self, source: StreamName, name: StreamName, incarnation: int, **fields: object) -> Head:
        """Fork a stream at its tail."""
        head = self.now[source]
        command = create_command(name=name, content_type=None, fork=ForkPoint(source, None, 0), **fields)
        commit = plan_fork(command, ForkPosition(head, head.tail, head.tail), Incarnation(incarnation), START_MS)
        created = self.apply(name, commit)
        assert created is not None
        return created


@pytest.fixture
def heads() -> Heads:
    """No stream."""
    return Heads()


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("body", [b"", b"first"])
def test_creation_leaves_the_head_that_its_commit_tells(heads: Heads, body: bytes, *, closed: bool) -> None:
    """A store that cannot evaluate transitions writes this head."""
    commit = create_commit(body=body, closed=closed)
    head = heads.apply(NAME, commit)
    assert head == commit.first_head
    assert head is not None
    assert (head.tail, head.closed) == (len(body), closed)
    assert added_byte_count(commit) == len(body)


def test_first_batch_of_a_creation_begins_where_its_incarnation_does(heads: Heads) -> None:
    """At 0, or at the position where a fork leaves its source."""
    result = transition(NAME, create_commit(body=b"abc"), heads.now.get)
    assert not isinstance(result, Unmet)
    batch = result[0].batch
    assert batch is not None
    assert (batch.start, batch.end, batch.data) == (0, 3, b"abc")
    heads.apply(NAME, create_commit(body=b"abc"))
    fork = heads.fork(NAME, OTHER, 2, body=b"de")
    assert (fork.own_start, fork.tail) == (3, 5)


def test_creation_without_a_body_adds_no_batch(heads: Heads) -> None:
    """An empty batch would be one that readers see."""
    result = transition(NAME, create_commit(), heads.now.get)
    assert not isinstance(result, Unmet)
    assert result[0].batch is None


def test_creation_fails_where_a_stream_exists(heads: Heads) -> None:
    """Its one requirement is told, with the head of the existing stream."""
    existing = heads.apply(NAME, create_commit())
    result = transition(NAME, create_commit(incarnation=2), heads.now.get)
    assert result == Unmet(Absent(START_MS), existing)


def test_creation_drops_an_expired_stream(heads: Heads) -> None:
    """It is the one stream that a creation may replace."""
    heads.apply(NAME, create_commit(lifetime=ExpiresAt(START_MS + 10, "soon")))
    later_ms = START_MS + 11
    head = heads.apply(NAME, create_commit(incarnation=2, now_ms=later_ms))
    assert head is not None
    assert head.incarnation == Incarnation(2)
    assert heads.dropped == [Incarnation(1)]


@given(moments=st.lists(st.integers(0, 10_000), min_size=2, max_size=6))
def test_each_incarnation_is_born_after_the_one_before(moments: list[int]) -> None:
    """Also when the clock is set back: offset tokens of later incarnations sort after those of earlier ones."""
    heads, births = Heads(), list[int]()
    for number, moment in enumerate(moments, 1):
        head = heads.apply(NAME, create_commit(incarnation=number, now_ms=START_MS + moment))
        assert head is not None
        births.append(head.born_us)
        heads.apply(NAME, delete_commit())
    assert births == sorted(set(births))


def test_source_counts_its_forks(heads: Heads) -> None:
    """Forks of forks count at their own source."""
    heads.apply(NAME, create_commit(body=b"x"))
    heads.fork(NAME, OTHER, 2)
    heads.fork(NAME, StreamName("third"), 3)
    heads.fork(OTHER, StreamName("fourth"), 4)
    assert [heads.now[name].references for name in (NAME, OTHER)] == [2, 1]
    heads.apply(StreamName("third"), delete_commit())
    assert heads.now[NAME].references == 1


def test_deleted_source_stays_soft_deleted_until_its_last_fork_is_deleted(heads: Heads) -> None:
    """Then it is dropped together with the fork."""
    heads.apply(NAME, create_commit(body=b"x"))
    heads.fork(NAME, OTHER, 2)
    heads.apply(NAME, delete_commit())
    assert heads.now[NAME].soft_deleted
    assert stream_status(heads.now[NAME], START_MS) is StreamStatus.GONE
    assert heads.dropped == []
    heads.apply(OTHER, delete_commit())
    assert heads.now == {}
    assert heads.dropped == [Incarnation(2), Incarnation(1)]


@given(depth=st.integers(1, 6), kept=st.integers(0, 5))
def test_deletion_of_a_fork_ends_its_soft_deleted_ancestors_up_to_one_that_is_needed(depth: int, kept: int) -> None:
    """Garbage collection cascades up the fork chain (spec 4.2), and no further than to a stream that exists."""
    names = [StreamName(f"s{number}") for number in range(depth + 1)]
    heads = Heads()
    heads.apply(names[0], create_commit(name=names[0], body=b"x"))
    for number in range(1, depth + 1):
        heads.fork(names[number - 1], names[number], number + 1)
    for number in range(depth):
        if number != kept:
            heads.apply(names[number], delete_commit())
    assert heads.dropped == []
    heads.apply(names[depth], delete_commit())
    needed = names[: kept + 1] if kept < depth else []
    assert set(heads.now) == set(needed)
    assert len(heads.dropped) == depth + 1 - len(needed)


def test_deletion_leaves_a_later_incarnation_of_its_source_alone(heads: Heads) -> None:
    """The name of a source may have another stream by then."""
    heads.apply(NAME, create_commit(body=b"x", lifetime=ExpiresAt(START_MS + 10, "soon")))
    heads.fork(NAME, OTHER, 2, lifetime=ExpiresAt(START_MS + 1_000, "later"))
    source = heads.now[NAME]
    heads.now[NAME] = Head(incarnation=Incarnation(9), content_type=source.content_type, references=5)
    heads.apply(OTHER, delete_commit())
    assert heads.now[NAME].references == 5


def test_expiry_needs_a_deadline_that_has_passed(heads: Heads) -> None:
    """A stream without a deadline never expires."""
    heads.apply(NAME, create_commit())
    assert isinstance(transition(NAME, plan_expiry(START_MS + 10**9), heads.now.get), Unmet)


def test_updates_of_an_absent_stream_change_nothing(heads: Heads) -> None:
    """Their first requirement is that the stream exists."""
    for commit in (append_commit(), close_commit(), plan_renewal(START_MS)):
        assert transition(NAME, commit, heads.now.get) == Unmet(Exists(START_MS), None)


@given(sizes=st.lists(st.integers(1, 50), max_size=8))
def test_batches_are_contiguous(sizes: list[int]) -> None:
    """Each begins where the one before ends."""
    heads, position = Heads(), 0
    heads.apply(NAME, create_commit())
    for size in sizes:
        result = transition(NAME, append_commit(b"x" * size), heads.now.get)
        assert not isinstance(result, Unmet)
        change, applied = result
        assert change.batch is not None
        assert (change.batch.start, change.batch.end) == (position, position + size)
        assert applied == Applied(change.heads[NAME])
        position += size
        heads.apply(NAME, append_commit(b"x" * size))


def test_close_with_data_adds_the_batch_and_closes_in_one_step(heads: Heads) -> None:
    """No reader sees the one without the other."""
    heads.apply(NAME, create_commit())
    head = heads.apply(NAME, append_commit(b"end", closes=True))
    assert head is not None
    assert (head.tail, head.closed) == (3, True)


def test_plan_of_a_creation_without_content_type_takes_the_default() -> None:
    """And is public only when it was asked for."""
    head = plan_create(create_command(content_type=None), Incarnation(1), START_MS).first_head
    assert head.content_type == "application/octet-stream"
    assert not head.is_public
