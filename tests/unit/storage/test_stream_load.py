"""The load on a stream as one process sees it: what it refuses, when a stream is pressed, and who spills a buffer."""

import asyncio
import random
from collections.abc import Sequence

import pytest
from bench.overload import Phase, simulate_overload
from bench.writers import written_by
from hypothesis import given
from hypothesis import strategies as st

from fluvial.model.commit import CommitId
from fluvial.storage.dynamodb.table.items import HeadItem, Placement, StoredBatch, encode_batch
from fluvial.storage.dynamodb.writes.spill import WRITE_UNIT_BYTES, is_due, is_overdue
from fluvial.storage.dynamodb.writes.stream_load import PRESSED_S, REFUSING_S, StreamLoad

HEAD_BYTES = 250


def refused_share(load: StreamLoad, now_s: float, rng: random.Random) -> float:
    """Which part of many appends is refused, while the table goes on as it was."""
    load = StreamLoad(**{name: getattr(load, name) for name in StreamLoad.__slots__})
    return sum(not load.admits(now_s, rng.random()) for _ in range(100)) / 100


def test_stream_that_was_never_throttled_refuses_nothing() -> None:
    """However much is written."""
    load = StreamLoad()
    for number in range(1_000):
        load.note_accepted(number / 1_000)
        assert load.admits(number / 1_000, 0.0)
    assert not load.is_pressed(1.0)


def test_process_sends_little_more_than_the_table_accepts() -> None:
    """A table that accepts ten requests a second, and clients that ask a hundred times."""
    load, rng, sent, accepted, free_at_s = StreamLoad(), random.Random(1), 0, 0, 0.0
    for tick in range(1_000):
        now_s = tick / 100
        if not load.admits(now_s, rng.random()):
            continue
        sent += 1
        if now_s >= free_at_s:
            load.note_accepted(now_s)
            accepted, free_at_s = accepted + 1, now_s + 0.1
        else:
            load.note_throttled(now_s)
    assert accepted > 30, "of a hundred; it has no second try"
    assert sent < 300, "of a thousand"


def test_everything_is_admitted_soon_after_the_last_throttled_request() -> None:
    """And the batches go into the head again some seconds later."""
    load, rng = StreamLoad(), random.Random(1)
    for _ in range(50):
        load.note_throttled(10.0)
    assert refused_share(load, 10.0, rng) > 0.9
    assert load.is_pressed(10.0)
    assert refused_share(load, 10.0 + REFUSING_S, rng) == 0
    assert load.is_pressed(10.0 + REFUSING_S)
    assert not load.is_pressed(10.0 + PRESSED_S)


def head_of(sizes: Sequence[int]) -> HeadItem:
    """A head whose buffer has batches of these sizes."""
    buffer = tuple(StoredBatch(CommitId(bytes(8)), size, Placement.INLINE, bytes(size)) for size in sizes)
    item_bytes = HEAD_BYTES + sum(len(encode_batch(batch)) + 1 for batch in buffer)
    return HeadItem(None, 0, buffer=buffer, item_bytes=item_bytes)


def test_growth_by_other_processes_is_what_counts() -> None:
    """Ten elements a tenth of a second, of which this process has added one."""
    load, alone = StreamLoad(), StreamLoad()
    for turn in range(100):
        load.note_head(HeadItem(None, 0, spilled=10 * turn), 1, turn / 10)
        alone.note_head(HeadItem(None, 0, spilled=turn), 1, turn / 10)
    assert load.elements_within(1.0) == pytest.approx(90, rel=0.01)
    assert alone.elements_within(1.0) == 0


def test_counts_that_go_back_are_not_growth() -> None:
    """A rotation sets `spilled` back, and answers overtake each other."""
    load = StreamLoad()
    for turn, spilled in enumerate((1_000, 10, 900, 5)):
        load.note_head(HeadItem(None, 0, spilled=spilled), 1, turn / 1_000)
    load.note_head(HeadItem(None, 0, spilled=6), 1, 5.0)
    assert load.elements_within(1.0) < 10


@given(st.integers(20, 448), st.floats(0, 20))
def test_one_writer_of_those_that_fill_a_kilobyte_spills(size: int, arriving: float) -> None:
    """And before the head costs the next one, unless a kilobyte has hardly room for what arrives."""
    due = [count for count in range(2, 65) if is_due(head_of([size] * count), 1, arriving)]
    boundaries = {(head_of([size] * count).item_bytes - 1) // WRITE_UNIT_BYTES for count in range(2, 65)}
    assert due
    assert len(due) <= len(boundaries) + 2
    assert head_of([size] * due[0]).item_bytes <= 2 * WRITE_UNIT_BYTES


def test_spill_begins_the_earlier_the_more_arrives() -> None:
    """So that what comes during the spill still fits."""
    begins = [
        next(count for count in range(2, 20) if is_due(head_of([100] * count), 1, arriving)) for arriving in (0, 1, 3)
    ]
    assert begins == sorted(begins, reverse=True)
    assert begins[0] > begins[-1]


def test_group_whose_elements_cross_the_mark_spills() -> None:
    """Not only its last element counts."""
    assert is_due(head_of([100] * 9), added=6)
    assert not is_due(head_of([100] * 3), added=2)


def test_buffer_that_was_left_is_overdue() -> None:
    """Its writer has failed: others spill it."""
    assert not is_overdue(head_of([100] * 9))
    assert is_overdue(head_of([100] * 20))


@pytest.mark.slow
@pytest.mark.parametrize(("writer_count", "units_max"), [(1, 1.4), (16, 1.6)])
async def test_writers_of_one_stream_stay_within_their_units(writer_count: int, units_max: float) -> None:
    """Each appends five times a second, as a process of its own."""
    assert (await written_by(writer_count)).units_each <= units_max


@pytest.mark.slow
async def test_stream_that_is_asked_for_twice_what_its_partition_takes_gives_most_of_it() -> None:
    """The rest is refused, most of it early, and it is back to normal within seconds."""
    phases = (Phase("before", 0.25, 4.0), Phase("overload", 2.0, 6.0), Phase("after", 0.25, 6.0))
    crowd = await asyncio.to_thread(simulate_overload, 150.0, phases)
    assert crowd.goodput >= 0.8
    assert crowd.recovered_s <= 5.0
    refused = [one for one in crowd.during(1) if not one.is_acknowledged]
    assert sum(one.is_shed for one in refused) > len(refused) / 2
    assert all(one.is_acknowledged for one in crowd.during(0))
