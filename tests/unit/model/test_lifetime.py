import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluvial.model.errors import RequestError
from fluvial.model.lifetime import (
    ExpiresAt,
    SlidingTtl,
    first_deadline_ms,
    parse_expires_at,
    parse_ttl,
    same_lifetime,
)
from fluvial.model.limits import TTL_SECONDS_MAX

NOW_MS = 1_000_000


@pytest.mark.parametrize(
    ("value", "seconds"), [("0", 0), ("1", 1), ("3600", 3600), (str(TTL_SECONDS_MAX), TTL_SECONDS_MAX)]
)
def test_a_ttl_is_a_plain_number_of_seconds(value: str, seconds: int) -> None:
    """Spec 5.1, Stream-TTL."""
    assert parse_ttl(value) == SlidingTtl(seconds)


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "-1",
        "+1",
        "01",
        "00",
        "1.0",
        "1e3",
        "1_0",
        "0x1",
        "٣",
        "²",
        "1 ",
        "inf",
        "9" * 400,
        str(TTL_SECONDS_MAX + 1),
    ],
)
def test_any_other_ttl_is_refused(value: str) -> None:
    """Signs, zeros, exponents, other scripts' digits and numbers without end."""
    with pytest.raises(RequestError):
        parse_ttl(value)


@pytest.mark.parametrize(
    ("value", "at_ms"),
    [
        ("1970-01-01T00:00:01Z", 1_000),
        ("1970-01-01t00:00:01z", 1_000),
        ("1970-01-01T00:00:01.5Z", 1_500),
        ("1970-01-01T00:00:01.123456789Z", 1_123),
        ("1970-01-01T01:00:01+01:00", 1_000),
        ("1969-12-31T19:00:01-05:00", 1_000),
    ],
)
def test_a_moment_is_an_rfc_3339_timestamp(value: str, at_ms: int) -> None:
    """With any offset; the creator's spelling is kept."""
    assert parse_expires_at(value) == ExpiresAt(at_ms, value)


@pytest.mark.parametrize(
    "value",
    ["1990-12-31T23:59:60Z", "1990-12-31t23:59:60.9z", "1990-12-31T15:59:60-08:00", "1991-01-01T00:00:00Z"],
)
def test_leap_second_is_the_moment_after_it(value: str) -> None:
    """Computers' clocks do not count it (RFC 3339, sections 5.7 and 5.8)."""
    assert parse_expires_at(value) == ExpiresAt(662_688_000_000, value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "tomorrow",
        "1970-01-01",
        "1970-01-01T00:00:01",
        "19700101T000001Z",
        "1970-W01-1T00:00:01Z",
        "1970-13-01T00:00:01Z",
        "1970-01-01T25:00:01Z",
        "1970-01-01T00:00:61Z",
        "1970-01-01T00:00:60Z",
        "1970-06-29T23:59:60Z",
        "1970-06-30T23:59:60-05:00",
        "0000-01-01T00:00:01Z",
        "١٩٧٠-01-01T00:00:01Z",
    ],
)
def test_any_other_moment_is_refused(value: str) -> None:
    """Including what ISO 8601 allows and RFC 3339 does not."""
    with pytest.raises(RequestError):
        parse_expires_at(value)


@given(seconds=st.integers(0, TTL_SECONDS_MAX), rest_ms=st.integers(0, 2 * TTL_SECONDS_MAX * 1_000))
def test_a_sliding_deadline_is_never_early_and_at_most_a_twentieth_late(seconds: int, rest_ms: int) -> None:
    """If a use finds no renewal due, what is left of the deadline still covers the whole window."""
    ttl = SlidingTtl(seconds)
    deadline_ms = ttl.deadline_ms(NOW_MS)
    assert ttl.window_ms <= deadline_ms - NOW_MS <= ttl.window_ms * 1.05
    later_ms = NOW_MS + rest_ms
    if not ttl.is_due(deadline_ms, later_ms):
        assert deadline_ms - later_ms >= ttl.window_ms


def test_lifetimes_are_the_same_when_they_mean_the_same() -> None:
    """A moment may be spelt in two ways; a window is not a moment."""
    assert same_lifetime(ExpiresAt(1, "a"), ExpiresAt(1, "b"))
    assert not same_lifetime(ExpiresAt(1, "a"), ExpiresAt(2, "a"))
    assert same_lifetime(SlidingTtl(1), SlidingTtl(1))
    assert not same_lifetime(SlidingTtl(1), None)
    assert same_lifetime(None, None)


def test_the_first_deadline_is_the_lifetime_s() -> None:
    """A stream that lives for ever has none."""
    assert first_deadline_ms(None, NOW_MS) is None
    assert first_deadline_ms(ExpiresAt(5, ""), NOW_MS) == 5
    assert first_deadline_ms(SlidingTtl(100), NOW_MS) == NOW_MS + 105_000
