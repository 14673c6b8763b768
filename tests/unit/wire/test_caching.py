"""The Cache-Control of each answer to a read, as a table (spec 10.1; docs/security.md)."""

from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluvial.model.entity_tag import UNCONDITIONAL
from fluvial.model.errors import RequestError
from fluvial.model.head import Head
from fluvial.model.lifetime import ExpiresAt
from fluvial.model.page import Page
from fluvial.wire.request import CACHE_KEY, parse_read, split_token
from fluvial.wire.response import PageRead, page_response
from tests.support.clocks import START_MS
from tests.support.commands import head

FINAL, GROWING = head(tail=10, closed=True), head(tail=10)
WHOLE, BEFORE_THE_TAIL = Page(0, 10, b"x" * 10), Page(0, 5, b"x" * 5)


def fields(of: Head, page: Page, *, cursor: int | None = None, shared: bool, keyed: bool) -> dict[str, str]:
    """The fields of the answer that caches obey."""
    response = page_response(PageRead(of, page, cursor, UNCONDITIONAL, shared, keyed), START_MS)
    named = {name.decode(): value.decode() for name, value in response.headers}
    return {name: named[name] for name in ("cache-control", "expires", "vary") if name in named}


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "private"])
@pytest.mark.parametrize(
    ("of", "page", "cursor"),
    [(FINAL, WHOLE, None), (GROWING, BEFORE_THE_TAIL, None), (GROWING, WHOLE, None), (GROWING, WHOLE, 7)],
    ids=["closed", "middle", "tail", "long-poll"],
)
def test_page_without_the_reader_key_is_not_cached(of: Head, page: Page, cursor: int | None, *, shared: bool) -> None:
    """A cache must ask again for a shared stream's page, and may not store a private one's."""
    found = fields(of, page, cursor=cursor, shared=shared, keyed=False)
    private = {"cache-control": "private, no-store", "vary": "Authorization"}
    assert found == ({"cache-control": "no-cache"} if shared else private)


@pytest.mark.parametrize(
    ("of", "page", "cursor", "shared", "private"),
    [
        (FINAL, WHOLE, None, "public, max-age=60, stale-while-revalidate=300", "public, max-age=60"),
        (GROWING, BEFORE_THE_TAIL, None, "public, max-age=60, stale-while-revalidate=300", "public, max-age=60"),
        (GROWING, WHOLE, None, "no-cache", "private, no-store"),
        (GROWING, WHOLE, 7, "public, max-age=20", "public, max-age=20"),
        (GROWING, BEFORE_THE_TAIL, 7, "public, max-age=20", "public, max-age=20"),
        (FINAL, WHOLE, 7, "public, max-age=20", "public, max-age=20"),
    ],
    ids=["closed", "middle", "tail", "long-poll", "long-poll in the middle", "long-poll closed"],
)
def test_page_with_the_reader_key_is_cached_except_at_the_tail(
    of: Head, page: Page, cursor: int | None, shared: str, private: str
) -> None:
    """A private stream's without stale-while-revalidate, because its key may be rotated."""
    assert fields(of, page, cursor=cursor, shared=True, keyed=True)["cache-control"] == shared
    assert fields(of, page, cursor=cursor, shared=False, keyed=True)["cache-control"] == private


@given(st.integers(1, 200_000), st.none() | st.just(7), st.booleans())
def test_cached_page_expires_before_its_stream(rest_ms: int, cursor: int | None, shared: bool) -> None:  # noqa: FBT001
    """With Expires, and without max-age, which a cache may count from the beginning again."""
    ending = head(tail=10, closed=True, lifetime=ExpiresAt(START_MS + rest_ms, ""), live_until_ms=START_MS + rest_ms)
    found = fields(ending, WHOLE, cursor=cursor, shared=shared, keyed=True)
    assert found["cache-control"] == "public"
    expires_ms = parsedate_to_datetime(found["expires"]).timestamp() * 1_000
    assert expires_ms <= min(START_MS + rest_ms, START_MS + (60_000 if cursor is None else 20_000))


PLAIN = [b"", b"offset=-1", b"rk=x&offset=-1", b"offset=-1&rk=x&other=1", b"x=%20&offset=-1", b"offset=%2D1"]
ODD = [b"OFFSET=1", b"Offset=1&offset=-1", b"%6fffset=-1", b"%4Fffset=x", b"off%73et=-1", b"RK=x", b"r%6b=x", b"+rk=x"]


@pytest.mark.parametrize("query", [*PLAIN, *ODD])
def test_query_is_cache_safe_if_caches_read_the_same_parameters(query: bytes) -> None:
    """Some caches read parameters in capitals or percent-encoded ones in another way."""
    assert parse_read(query).is_cache_safe is (query in PLAIN or query == b"+rk=x")


@given(st.lists(st.sampled_from([*CACHE_KEY, "x"]), max_size=5))
def test_repeated_parameter_of_the_cache_key_is_rejected(names: list[str]) -> None:
    """Caches differ in which of them they take."""
    query = "&".join(f"{name}={'-1' if name == 'offset' else 'sse' if name == 'live' else '1'}" for name in names)
    is_twice = any(names.count(name) > 1 for name in CACHE_KEY)
    needs_offset = "live" in names and "offset" not in names
    if is_twice or needs_offset:
        with pytest.raises(RequestError):
            parse_read(query.encode())
    else:
        parse_read(query.encode())


@pytest.mark.parametrize(
    ("query", "rest", "token"),
    [
        (b"", b"", None),
        (b"offset=1", b"offset=1", None),
        (b"token=a.b", b"", "a.b"),
        (b"offset=1&token=a&rk=2", b"offset=1&rk=2", "a"),
        (b"tokens=1&token=", b"tokens=1", ""),
        (b"%74oken=a%2Bb", b"", "a+b"),
        (b"token", b"", ""),
        (b"x=token", b"x=token", None),
        (b"TOKEN=a", b"TOKEN=a", None),
    ],
)
def test_token_is_taken_out_of_a_query(query: bytes, rest: bytes, token: str | None) -> None:
    """The rest is parsed and cached."""
    assert split_token(query) == (rest, token)
