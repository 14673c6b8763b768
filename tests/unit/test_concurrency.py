"""Bounded parallel work, and pauses between retries."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluvial.concurrency import backoff_s, map_bounded


@given(items=st.lists(st.integers(), max_size=20), at_once=st.integers(1, 5))
async def test_map_bounded_keeps_the_order_of_its_items(items: list[int], at_once: int) -> None:
    """Whichever call ends first."""

    async def double(item: int) -> int:
        for _ in range(abs(item) % 3):
            await asyncio.sleep(0)
        return 2 * item

    assert await map_bounded(items, double, at_once) == [2 * item for item in items]


@pytest.mark.parametrize("at_once", [1, 3, 50])
async def test_map_bounded_runs_no_more_calls_at_once_than_allowed(at_once: int) -> None:
    """And as many as that, when there are enough items."""
    running, most = 0, 0

    async def count(_: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    await map_bounded(range(20), count, at_once)
    assert most == min(at_once, 20)


async def test_map_bounded_finishes_all_calls_before_it_raises_the_first_error() -> None:
    """In the order of the items, not of time."""
    finished = list[int]()

    async def fail_some(item: int) -> None:
        await asyncio.sleep(0 if item == 4 else 0.01)
        if item in {2, 4}:
            raise ValueError(item)
        finished.append(item)

    with pytest.raises(ValueError, match="2"):
        await map_bounded(range(6), fail_some, 6)
    assert finished == [0, 1, 3, 5]


async def test_map_bounded_passes_a_cancellation_on_to_its_calls() -> None:
    """Nothing goes on behind the back of a caller that was cancelled."""
    cancelled = list[int]()

    async def wait(item: int) -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            cancelled.append(item)
            raise

    task = asyncio.create_task(map_bounded(range(3), wait, 2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled == [0, 1]


@given(tries=st.integers(0, 12), jitter=st.floats(0, 1, exclude_max=True))
def test_backoff_doubles_with_each_try_and_is_spread_by_half(tries: int, jitter: float) -> None:
    """So that clients that failed together do not come back together."""
    pause_s = backoff_s(0.05, tries, jitter)
    assert 0.5 * 0.05 * 2**tries <= pause_s <= 0.05 * 2**tries
    assert backoff_s(0.05, tries + 1, jitter) == pytest.approx(2 * pause_s)
