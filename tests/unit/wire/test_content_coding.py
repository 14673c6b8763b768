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
    decode,
    deflate,
    gzip_header,
    is_worth_coding,
    parse_codings,
)

MB = 1_048_576


def raw_deflate(data: bytes) -> bytes:
    """Compress without the header of zlib, as some clients do."""
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(data) + deflater.flush()


@given(data=st.binary(max_size=5_000))
def test_body_with_one_or_several_codings_is_decoded(data: bytes) -> None:
    """A gzip file may have several members."""
    assert decode(gzip.compress(data), [b"gzip"], MB) == data
    assert decode(zlib.compress(data), [b"deflate"], MB) == data
    assert decode(zlib.compress(gzip.compress(data)), [b"gzip", b"deflate"], MB) == data
    assert decode(gzip.compress(data) + gzip.compress(data), [b"gzip"], MB) == data * 2


def test_deflate_without_zlib_header_is_decoded() -> None:
    """RFC 9110, section 8.4.1.2, notes that some clients send it so."""
    assert decode(raw_deflate(b"hello" * 100), [b"deflate"], MB) == b"hello" * 100


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_limit_is_of_the_decoded_body(extra: int) -> None:
    """One byte more is refused, before the rest is decoded."""
    body = gzip.compress(b"x" * (MB + extra))
    if extra <= 0:
        assert len(decode(body, [b"gzip"], MB)) == MB + extra
    else:
        with pytest.raises(RequestError) as caught:
            decode(body, [b"gzip"], MB)
        assert caught.value.status == 413


def test_bomb_within_a_bomb_is_refused() -> None:
    """The limit holds after each coding."""
    bomb = gzip.compress(gzip.compress(bytes(100 * MB)))
    with pytest.raises(RequestError) as caught:
        decode(bomb, [b"gzip", b"gzip"], MB)
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
    """It is cut short, goes on behind its end, or has another format."""
    with pytest.raises(RequestError) as caught:
        decode(body, [coding], MB)
    assert caught.value.status == 400


def test_codings_are_parsed_in_order() -> None:
    """Identity is left out, and x-gzip is gzip (RFC 9110, section 8.4.1)."""
    assert parse_codings(None) == parse_codings(b"") == parse_codings(b"identity") == ()
    assert parse_codings(b" X-GZIP ,, deflate") == (b"gzip", b"deflate")


@pytest.mark.parametrize("field", [b"br", b"gzip, zstd", b"compress", b"gzip;q=1", b"gzip,gzip,gzip,gzip"])
def test_unknown_or_excessive_coding_is_refused(field: bytes) -> None:
    """The answer names the supported codings."""
    with pytest.raises(RequestError) as caught:
        parse_codings(field)
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
def test_accept_encoding_decides_on_gzip(field: bytes | None, accepts: bool) -> None:  # noqa: FBT001  a table's column
    """Gzip needs a weight that is not below that of identity (RFC 9110, section 12.5.3)."""
    assert accepts_gzip(field) is accepts


@given(parts=st.lists(st.binary(max_size=500), max_size=5), padding=st.integers(0, 300))
def test_header_and_deflated_parts_are_a_gzip_file(parts: list[bytes], padding: int) -> None:
    """Padding changes its length alone."""
    data = deflate(parts)
    coded = gzip_header(b"x" * padding) + data
    assert gzip.decompress(coded) == b"".join(parts)
    assert len(coded) == len(gzip_header()) + len(data) + (padding + 1 if padding else 0)


def test_only_long_texts_are_worth_coding() -> None:
    """Other answers do not get smaller."""
    for content_type in ("application/json", "text/plain; charset=utf-8", "application/x-ndjson", "image/svg+xml"):
        assert is_worth_coding(content_type, 2_000) is not content_type.startswith("image/")
        assert not is_worth_coding(content_type, 1_000)
    assert is_worth_coding("application/vnd.api+json", 2_000)
    assert not is_worth_coding("application/octet-stream", 2_000)


def test_compressed_form_has_its_own_entity_tag() -> None:
    """The plain form's tag follows from it."""
    assert coded_tag(b'"1:0:5"') == b'"1:0:5-gzip"'
    assert plain_tag(coded_tag(b'"1:0:5"')) == plain_tag(b'"1:0:5"') == b'"1:0:5"'
