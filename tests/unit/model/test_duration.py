"""Durations as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluvial.model.duration import format_duration, parse_duration, parse_duration_ms


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("30s", 30),
        ("15m", 900),
        ("24h", 86_400),
        ("7d", 604_800),
        ("1w", 604_800),
        ("1h30m", 5_400),
        ("0", 0),
    ],
)
def test_duration_is_parsed(text: str, seconds: int) -> None:
    """A number without a unit is seconds."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "1.5h", "-1s", "1m1h", "1h 1m", "1y", "soon"])
def test_other_text_is_no_duration(text: str) -> None:
    """The error shows some that are."""
    with pytest.raises(ValueError, match="24h"):
        parse_duration(text)


@given(st.integers(0, 10**10))
def test_formatted_duration_means_the_same(seconds: int) -> None:
    """And is not in weeks."""
    assert parse_duration(format_duration(seconds)) == seconds
    assert "w" not in format_duration(seconds)


@pytest.mark.parametrize(
    ("text", "ms"), [("50ms", 50), ("0.5ms", 0.5), ("1.5s", 1_500), ("2", 2_000), ("1m30s", 90_000), (" 1S ", 1_000)]
)
def test_short_duration_is_parsed(text: str, ms: float) -> None:
    """With milliseconds, and with a fraction of a unit."""
    assert parse_duration_ms(text) == ms


@pytest.mark.parametrize("text", ["", "ms", "-1ms", "1.5m", ".5s", "1e3ms", "fast"])
def test_other_text_is_no_short_duration(text: str) -> None:
    """The error shows some that are."""
    with pytest.raises(ValueError, match="such as 50ms"):
        parse_duration_ms(text)
