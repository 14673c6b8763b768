import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluvial.model.limits import CURSOR_DIGITS_MAX, CURSOR_EPOCH_MS, CURSOR_INTERVAL_MS
from fluvial.wire.cursor import next_cursor, parse_cursor

NOW_MS = CURSOR_EPOCH_MS + 1_000 * CURSOR_INTERVAL_MS


def test_cursor_is_the_interval_number() -> None:
    """Spec 10.1: 20-second intervals since 9 October 2024."""
    assert next_cursor(None, NOW_MS, 0.5) == 1_000
    assert next_cursor(None, NOW_MS + 19_999, 0.5) == 1_000
    assert next_cursor(999, NOW_MS, 0.5) == 1_000
    assert next_cursor(None, CURSOR_EPOCH_MS, 0) == 0


@given(echoed=st.integers(0, 10**15 - 1), jitter=st.floats(0, 1, exclude_max=True))
def test_cursor_never_goes_back(echoed: int, jitter: float) -> None:
    """A client whose cursor is not in the past gets a greater one, by at most an hour."""
    cursor = next_cursor(echoed, NOW_MS, jitter)
    assert cursor >= 1_000
    if echoed >= 1_000:
        assert echoed < cursor <= echoed + 180


@pytest.mark.parametrize("value", ["abc", "null", "-1", "1.5", "٣", "9" * 19, " 1"])
def test_foreign_cursor_is_ignored(value: str) -> None:
    """A client may have it from another server."""
    assert parse_cursor(value) is None


def test_empty_cursor_is_ignored() -> None:
    """A client that has no cursor yet may send an empty one."""
    assert parse_cursor("") is None
    assert parse_cursor("17") == 17


def test_largest_cursor_is_answered_with_one_that_can_be_echoed() -> None:
    """The next cursor has no more digits than the server parses."""
    largest = parse_cursor("9" * CURSOR_DIGITS_MAX)
    assert parse_cursor(str(next_cursor(largest, NOW_MS, 0.9))) == largest
