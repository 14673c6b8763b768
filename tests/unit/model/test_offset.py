import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fluvial.model.errors import RequestError
from fluvial.model.head import Head, Incarnation, lineage_of_fork
from fluvial.model.limits import POSITION_MAX
from fluvial.model.offset import Offset, Sentinel, offset_token, parse_offset, parse_read_from, position_of
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


def named_by(token: str, life: Head) -> int | None:
    """The position that a token names in a stream."""
    offset = parse_offset(token)
    return position_of(life, offset) if isinstance(offset, Offset) else 0


@given(births, positions, positions)
def test_tokens_of_a_life_sort_like_positions(born_us: int, one: int, other: int) -> None:
    """Spec 8, property 2."""
    life = head(born_us=born_us, tail=POSITION_MAX)
    assert (offset_token(life, one) < offset_token(life, other)) is (one < other)


@given(births, births, positions, positions)
def test_tokens_of_a_later_life_sort_after_those_of_an_earlier_one(born: int, later: int, one: int, other: int) -> None:
    """Whatever their positions: what is assigned is greater than all that was before (spec 8, property 5)."""
    assume(born < later)
    assert offset_token(head(born_us=born), one) < offset_token(head(born_us=later), other)


@given(births, positions)
def test_a_token_names_its_position_in_its_life_alone(born_us: int, position: int) -> None:
    """And has none of the characters that a query would need escaped."""
    life = head(born_us=born_us)
    token = offset_token(life, position)
    offset = parse_offset(token)
    assert parse_read_from(token) == offset == Offset(born_us, position)
    assert named_by(token, life) == position
    assert named_by(token, head(born_us=born_us + 1)) is None
    assert not set(token) & set(",&=?/")


@given(forks())
def test_tokens_of_a_fork_sort_like_positions_and_name_them(fork: Head) -> None:
    """Those of its ancestors first."""
    tokens = [offset_token(fork, position) for position in range(fork.tail + 1)]
    assert tokens == sorted(set(tokens))
    assert [named_by(token, fork) for token in tokens] == list(range(fork.tail + 1))


@given(forks(), st.integers(0, 12), st.integers(0, 12))
def test_a_fork_has_its_sources_tokens_up_to_where_it_diverges(source: Head, position: int, more: int) -> None:
    """And knows none of what its source goes on with (spec 8, Offsets and forked streams)."""
    assume(position <= source.tail)
    fork = fork_of(source, position, source.born_us + 1, position + more)
    for place in range(position + 1):
        assert offset_token(fork, place) == offset_token(source, place)
    for place in range(position + 1, source.tail + 1):
        assert named_by(offset_token(source, place), fork) is None


def test_a_token_of_before_lives_had_a_number_stays_good() -> None:
    """Of a stream that was there already; in a life that began since, it is of another one."""
    token = "0000000000000000_0000000000000007"
    assert named_by(token, head(tail=9)) == 7
    assert named_by(token, head(born_us=1, tail=9)) is None


def test_zeros_are_the_beginning_of_any_life() -> None:
    """Who has read nothing has missed nothing; the public suite writes them for `-1`."""
    assert parse_offset(f"{0:016d}_{0:016d}") is Sentinel.BEGINNING


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
        "0000000000000000_00000000000000\u0663\u0663",
        "0000000000000000_0000000000000001\n",
        "0000000000000000-0000000000000001",
    ],
)
def test_a_token_that_was_never_issued_is_refused(token: str) -> None:
    """Other lengths, signs, digits of other scripts, trailing bytes."""
    with pytest.raises(RequestError):
        parse_read_from(token)
