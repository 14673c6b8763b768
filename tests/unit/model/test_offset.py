"""Offset tokens: their order, and the positions that they stand for in incarnations and forks (spec 8)."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fluvial.model.errors import RequestError
from fluvial.model.head import Head, Incarnation, lineage_of_fork
from fluvial.model.limits import POSITION_MAX
from fluvial.model.offset import Offset, ReservedOffset, offset_token, parse_offset, parse_read_from, position_of
from tests.support.commands import head

positions = st.integers(0, POSITION_MAX)
births = st.integers(1, 10**16 - 1)


def fork_of(source: Head, position: int, born_us: int, tail: int) -> Head:
    """A fork with bytes of its own."""
    lineage = lineage_of_fork(source, position)
    return head(incarnation=Incarnation(source.incarnation + 1), born_us=born_us, lineage=lineage, tail=tail)


@st.composite
def forks(draw: st.DrawFn) -> Head:
    """A fork of a fork of a stream, each with some bytes."""
    source = head(born_us=draw(st.integers(0, 3)), tail=draw(st.integers(0, 4)))
    for _ in range(2):
        position = draw(st.integers(0, source.tail))
        born_us = source.born_us + draw(st.integers(1, 3))
        source = fork_of(source, position, born_us, position + draw(st.integers(0, 4)))
    return source


def position_in(token: str, stream: Head) -> int | None:
    """The position of a token in a stream."""
    offset = parse_offset(token)
    return position_of(stream, offset) if isinstance(offset, Offset) else 0


@given(births, positions, positions)
def test_tokens_of_an_incarnation_sort_like_positions(born_us: int, one: int, other: int) -> None:
    """Spec 8, property 2."""
    stream = head(born_us=born_us, tail=POSITION_MAX)
    assert (offset_token(stream, one) < offset_token(stream, other)) is (one < other)


@given(births, births, positions, positions)
def test_tokens_of_a_later_incarnation_sort_after_those_of_an_earlier_one(
    born: int, later: int, one: int, other: int
) -> None:
    """Whatever their positions are: a new token is greater than all earlier ones (spec 8, property 5)."""
    assume(born < later)
    assert offset_token(head(born_us=born), one) < offset_token(head(born_us=later), other)


@given(births, positions)
def test_token_has_a_position_in_its_own_incarnation_only(born_us: int, position: int) -> None:
    """It has no characters that must be escaped in a query."""
    stream = head(born_us=born_us)
    token = offset_token(stream, position)
    offset = parse_offset(token)
    assert parse_read_from(token) == offset == Offset(born_us, position)
    assert position_in(token, stream) == position
    assert position_in(token, head(born_us=born_us + 1)) is None
    assert not set(token) & set(",&=?/")


@given(forks())
def test_tokens_of_a_fork_sort_like_positions(fork: Head) -> None:
    """Tokens of its ancestors come first."""
    tokens = [offset_token(fork, position) for position in range(fork.tail + 1)]
    assert tokens == sorted(set(tokens))
    assert [position_in(token, fork) for token in tokens] == list(range(fork.tail + 1))


@given(forks(), st.integers(0, 12), st.integers(0, 12))
def test_fork_accepts_its_sources_tokens_up_to_its_own_start(source: Head, position: int, more: int) -> None:
    """It does not accept the later ones of its source (spec 8, Offsets and forked streams)."""
    assume(position <= source.tail)
    fork = fork_of(source, position, source.born_us + 1, position + more)
    for shared in range(position + 1):
        assert offset_token(fork, shared) == offset_token(source, shared)
    for later in range(position + 1, source.tail + 1):
        assert position_in(offset_token(source, later), fork) is None


def test_token_from_before_incarnations_had_births_stays_valid() -> None:
    """For the stream of that time; in a later incarnation it is of another incarnation."""
    token = "0000000000000000_0000000000000007"
    assert position_in(token, head(tail=9)) == 7
    assert position_in(token, head(born_us=1, tail=9)) is None


def test_token_of_zeros_is_the_beginning() -> None:
    """Of any incarnation, because its reader has missed nothing; the public suite sends it in place of `-1`."""
    assert parse_offset(f"{0:016d}_{0:016d}") is ReservedOffset.BEGINNING


def test_reserved_offsets_are_parsed() -> None:
    """`-1` and `now` are reserved (spec 8)."""
    assert parse_read_from("-1") is ReservedOffset.BEGINNING
    assert parse_read_from("now") is ReservedOffset.TAIL


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
        "0000000000000000_00000000000000\u0663\u0663",
        "0000000000000000_0000000000000001\n",
        "0000000000000000-0000000000000001",
    ],
)
def test_malformed_token_is_rejected(token: str) -> None:
    """With another length, a sign, digits of another script, or trailing bytes."""
    with pytest.raises(RequestError):
        parse_read_from(token)
