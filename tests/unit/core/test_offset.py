import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluvial.core.errors import RefusedRequest
from fluvial.core.limits import POSITION_MAX
from fluvial.core.offset import Sentinel, offset_token, parse_position, parse_read_from

positions = st.integers(0, POSITION_MAX)


@given(positions, positions)
def test_tokens_sort_like_positions(one: int, other: int) -> None:
    """Spec 8, property 2."""
    assert (offset_token(one) < offset_token(other)) is (one < other)


@given(positions)
def test_a_token_names_its_position(position: int) -> None:
    """And has none of the characters that a query would need escaped."""
    token = offset_token(position)
    assert parse_read_from(token) == parse_position(token) == position
    assert not set(token) & set(",&=?/")


def test_sentinels_are_read_and_never_issued() -> None:
    """`-1` and `now` are reserved (spec 8)."""
    assert parse_read_from("-1") is Sentinel.BEGINNING
    assert parse_read_from("now") is Sentinel.TAIL


@pytest.mark.parametrize(
    "token",
    [
        "",
        "0",
        "-2",
        "NOW",
        " now",
        "0_0",
        "1" * 33,
        "0000000000000000_000000000000000",
        "0000000000000001_0000000000000001",
        "0000000000000000_00000000000000٣٣",
        "0000000000000000_0000000000000001\n",
        "0000000000000000-0000000000000001",
    ],
)
def test_a_token_that_was_never_issued_is_refused(token: str) -> None:
    """Other lengths, signs, digits of other scripts, trailing bytes."""
    with pytest.raises(RefusedRequest):
        parse_read_from(token)
