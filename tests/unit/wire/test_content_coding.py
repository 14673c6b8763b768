import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluvial.model.entity_tag import coded_tag, plain_tag
from fluvial.model.errors import RequestError
from fluvial.wire.content_coding import (
    MEMBERS_MAX,
    accepts_gzip,
    codings_of,
    decoded,
    deflated,
    gzip_header,
    is_worth_coding,
)

MB = 1_048_576


def raw_deflate(data: bytes) -> bytes:
    """Deflate without the header of zlib, as some clients send it."""
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(data) + deflater.flush()


@given(data=st.binary(max_size=5_000))
def test_coded_bodies_are_decoded(data: bytes) -> None:
    """However they were coded, and however often."""
    assert decoded(gzip.compress(data), [b"gzip"], MB) == data
    assert decoded(zlib.compress(data), [b"deflate"], MB) == data
    assert decoded(zlib.compress(gzip.compress(data)), [b"gzip", b"deflate"], MB) == data
    assert decoded(gzip.compress(data) + gzip.compress(data), [b"gzip"], MB) == data * 2


def test_deflate_without_header_is_decoded() -> None:
    """RFC 9110, section 8.4.1.2, notes that some send it so."""
    assert decoded(raw_deflate(b"hello" * 100), [b"deflate"], MB) == b"hello" * 100


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_limit_is_of_the_decoded_body(extra: int) -> None:
    """Not a byte more, and no bomb goes off before it is found out."""
    body = gzip.compress(b"x" * (MB + extra))
    if extra <= 0:
        assert len(decoded(body, [b"gzip"], MB)) == MB + extra
    else:
        with pytest.raises(RequestError) as caught:
            decoded(body, [b"gzip"], MB)
        assert caught.value.status == 413


def test_bomb_within_a_bomb_is_refused() -> None:
    """Each step has the limit."""
    bomb = gzip.compress(gzip.compress(bytes(100 * MB)))
    with pytest.raises(RequestError) as caught:
        decoded(bomb, [b"gzip", b"gzip"], MB)
    assert caught.value.status == 413


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        (b"no gzip", b"gzip"),
        (gzip.compress(b"hello")[:-1], b"gzip"),
        (gzip.compress(b"hello") + b"more", b"gzip"),
        (gzip.compress(b"hello")[:-8] + bytes(8), b"gzip"),
        (zlib.compress(b"hello") + b"more", b"deflate"),
        (zlib.compress(b"hello")[:-5], b"deflate"),
        (b"", b"gzip"),
        (gzip.compress(b"") * (MEMBERS_MAX + 1), b"gzip"),
    ],
    ids=["none", "cut", "more", "wrong sum", "more behind deflate", "cut deflate", "empty", "too many members"],
)
def test_damaged_body_is_refused(body: bytes, coding: bytes) -> None:
    """One that is cut short, goes on behind its end, or is something else."""
    with pytest.raises(RequestError) as caught:
        decoded(body, [coding], MB)
    assert caught.value.status == 400


def test_codings_are_listed_in_order() -> None:
    """Identity is none, and x-gzip is gzip (RFC 9110, section 8.4.1)."""
    assert codings_of(None) == codings_of(b"") == codings_of(b"identity") == ()
    assert codings_of(b" X-GZIP ,, deflate") == (b"gzip", b"deflate")


@pytest.mark.parametrize("field", [b"br", b"gzip, zstd", b"compress", b"gzip;q=1", b"gzip,gzip,gzip,gzip"])
def test_unknown_coding_is_refused(field: bytes) -> None:
    """With those that are known."""
    with pytest.raises(RequestError) as caught:
        codings_of(field)
    assert caught.value.status == 415
    assert caught.value.fields == (("accept-encoding", "gzip, deflate"),)


@pytest.mark.parametrize(
    ("field", "accepts"),
    [
        (None, False),
        (b"", False),
        (b"gzip", True),
        (b"br;q=1, X-GZip;q=0.2", True),
        (b"*", True),
        (b"*;q=0", False),
        (b"*, gzip;q=0", False),
        (b"gzip;q=0.000", False),
        (b"gzip; Q=0.5", True),
        (b"gzip;q=0.5, identity", False),
        (b"identity;q=0.5, gzip;q=0.6", True),
        (b"identity", False),
        (b"deflate, br", False),
        (b"gzip;q=nonsense", True),
    ],
)
def test_gzip_is_chosen_when_it_is_asked_for(field: bytes | None, accepts: bool) -> None:  # noqa: FBT001  a table's column
    """And not disliked (RFC 9110, section 12.5.3)."""
    assert accepts_gzip(field) is accepts


@given(parts=st.lists(st.binary(max_size=500), max_size=5), padding=st.integers(0, 300))
def test_answers_are_files_of_gzip(parts: list[bytes], padding: int) -> None:
    """Padding changes their length alone."""
    data = deflated(parts)
    coded = gzip_header(b"x" * padding) + data
    assert gzip.decompress(coded) == b"".join(parts)
    assert len(coded) == len(gzip_header()) + len(data) + (padding + 1 if padding else 0)


def test_only_texts_of_some_length_are_worth_coding() -> None:
    """Others do not get smaller."""
    for content_type in ("application/json", "text/plain; charset=utf-8", "application/x-ndjson", "image/svg+xml"):
        assert is_worth_coding(content_type, 2_000) is not content_type.startswith("image/")
        assert not is_worth_coding(content_type, 1_000)
    assert is_worth_coding("application/vnd.api+json", 2_000)
    assert not is_worth_coding("application/octet-stream", 2_000)


def test_coded_form_has_a_tag_of_its_own() -> None:
    """Which tells the plain form's."""
    assert coded_tag(b'"1:0:5"') == b'"1:0:5-gzip"'
    assert plain_tag(coded_tag(b'"1:0:5"')) == plain_tag(b'"1:0:5"') == b'"1:0:5"'
