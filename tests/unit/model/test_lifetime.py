"""Lifetimes: Stream-TTL and Stream-Expires-At, and the deadlines that follow from them."""

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
def test_ttl_is_a_whole_number_of_seconds(value: str, seconds: int) -> None:
    """Without a sign or leading zeros (spec 5.1, Stream-TTL)."""
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
def test_invalid_ttl_is_rejected(value: str) -> None:
    """Signs, leading zeros, exponents, digits of other scripts, and numbers that are too large."""
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
def test_expiry_time_is_an_rfc_3339_timestamp(value: str, at_ms: int) -> None:
    """With any UTC offset; the creator's spelling is kept."""
    assert parse_expires_at(value) == ExpiresAt(at_ms, value)


@pytest.mark.parametrize(
    "value",
    ["1990-12-31T23:59:60Z", "1990-12-31t23:59:60.9z", "1990-12-31T15:59:60-08:00", "1991-01-01T00:00:00Z"],
)
def test_leap_second_is_the_second_after_it(value: str) -> None:
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
def test_invalid_expiry_time_is_rejected(value: str) -> None:
    """Including forms that ISO 8601 allows and RFC 3339 does not."""
    with pytest.raises(RequestError):
        parse_expires_at(value)


@given(seconds=st.integers(0, TTL_SECONDS_MAX), rest_ms=st.integers(0, 2 * TTL_SECONDS_MAX * 1_000))
def test_sliding_deadline_is_never_early_and_at_most_a_twentieth_late(seconds: int, rest_ms: int) -> None:
    """As long as no renewal is due, the whole window is ahead."""
    ttl = SlidingTtl(seconds)
    deadline_ms = ttl.deadline_ms(NOW_MS)
    assert ttl.window_ms <= deadline_ms - NOW_MS <= ttl.window_ms * 1.05
    later_ms = NOW_MS + rest_ms
    if not ttl.is_due(deadline_ms, later_ms):
        assert deadline_ms - later_ms >= ttl.window_ms


def test_lifetimes_are_compared_by_meaning() -> None:
    """A time may be spelt in two ways; a TTL never equals a time."""
    assert same_lifetime(ExpiresAt(1, "a"), ExpiresAt(1, "b"))
    assert not same_lifetime(ExpiresAt(1, "a"), ExpiresAt(2, "a"))
    assert same_lifetime(SlidingTtl(1), SlidingTtl(1))
    assert not same_lifetime(SlidingTtl(1), None)
    assert same_lifetime(None, None)


def test_first_deadline_follows_from_the_lifetime() -> None:
    """A stream without a lifetime has no deadline."""
    assert first_deadline_ms(None, NOW_MS) is None
    assert first_deadline_ms(ExpiresAt(5, ""), NOW_MS) == 5
    assert first_deadline_ms(SlidingTtl(100), NOW_MS) == NOW_MS + 105_000
