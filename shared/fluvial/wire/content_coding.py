"""Content codings (RFC 9110, section 8.4): bodies that come compressed, and clients that may be answered so."""

import re
import zlib
from collections.abc import Sequence
from typing import Final

from fluvial.model.content_type import media_type
from fluvial.model.errors import ErrorCode, RequestError

GZIP: Final = b"gzip"
_ALIASES: Final = {b"x-gzip": GZIP}
_IDENTITY: Final = b"identity"
_DEFLATE: Final = b"deflate"

#: How often a body may have been compressed; more than once is odd, and each time costs as much as its result.
CODINGS_MAX: Final = 3

#: Files of gzip may follow each other (RFC 1952, section 2.2); each of them costs a copy of those behind it.
MEMBERS_MAX: Final = 64

#: A smaller answer is not compressed: it fits into one packet anyway.
CODED_BYTES_MIN: Final = 1_400

#: It takes a quarter of the usual level's time, and its results are a fifth larger: 7 ms for a megabyte of JSON.
_LEVEL: Final = 3
_HEADER: Final = b"\x1f\x8b\x08"
_GZIP_BITS: Final = 31
_ZLIB_BITS: Final = 15
_RAW_BITS: Final = -15

_TEXTUAL: Final = re.compile(r"text/.*|application/(?:.*\+)?(?:json|xml)|application/(?:x-)?(?:ndjson|javascript|yaml)")
_WEIGHT: Final = re.compile(rb"[qQ]\s*=\s*([01](?:\.[0-9]{0,3})?)")

#: What a client is told that used another coding: "[...] SHOULD generate an Accept-Encoding" -- RFC 9110, 15.5.16
ACCEPTED: Final = ("accept-encoding", "gzip, deflate")


def codings_of(field: bytes | None) -> tuple[bytes, ...]:
    """The codings of a body in the order that they were applied. RequestError for what cannot be undone."""
    if field is None:
        return ()
    names = (name.strip().lower() for name in field.split(b","))
    codings = tuple(_ALIASES.get(name, name) for name in names if name and name != _IDENTITY)
    if len(codings) > CODINGS_MAX or not set(codings) <= {GZIP, _DEFLATE}:
        message = f"a body may be coded by gzip and deflate, up to {CODINGS_MAX} times"
        raise RequestError(ErrorCode.UNSUPPORTED_CODING, message, 415, (ACCEPTED,))
    return codings


def decoded(body: bytes, codings: Sequence[bytes], byte_count_max: int) -> bytes:
    """A body as it was before it was coded. RequestError when it is damaged, or too long at any step."""
    for coding in reversed(codings):
        bits = _GZIP_BITS if coding == GZIP else _deflate_bits(body)
        body = _inflated(body, bits, byte_count_max)
    return body


def _deflate_bits(body: bytes) -> int:
    """`deflate` is the zlib format; some senders leave out its two bytes of header, and are understood all the same."""
    has_header = len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2]) % 31 == 0  # noqa: PLR2004  RFC 1950
    return _ZLIB_BITS if has_header else _RAW_BITS


def _inflated(body: bytes, bits: int, byte_count_max: int) -> bytes:
    parts, rest_max = list[bytes](), byte_count_max
    for _ in range(MEMBERS_MAX):
        inflater = zlib.decompressobj(bits)
        try:
            parts.append(inflater.decompress(body, rest_max + 1))  # a bomb goes no further than that
        except zlib.error as exc:
            raise _damaged() from exc
        rest_max -= len(parts[-1])
        if rest_max < 0:
            raise too_large(byte_count_max)
        if not inflater.eof:
            raise _damaged()  # it ends before its end
        body = inflater.unused_data
        if not body:
            return b"".join(parts)
        if bits != _GZIP_BITS:
            break
    raise _damaged()


def _damaged() -> RequestError:
    return RequestError(ErrorCode.MALFORMED_REQUEST, "the body is not of its Content-Encoding")


def too_large(byte_count_max: int) -> RequestError:
    """The refusal of a body that is too long, as it is or decoded."""
    return RequestError(ErrorCode.BODY_TOO_LARGE, f"a body may have up to {byte_count_max} bytes", 413)


def accepts_gzip(field: bytes | None) -> bool:
    """Whether an Accept-Encoding asks for gzip, and does not like the plain answer more (RFC 9110, section 12.5.3)."""
    if not field:
        return False
    weights = dict[bytes, float]()
    for member in field.lower().split(b","):
        name, *parameters = (part.strip() for part in member.split(b";"))
        weights[_ALIASES.get(name, name)] = _weight(parameters)
    gzip = weights.get(GZIP, weights.get(b"*", 0.0))
    return gzip > 0 and gzip >= weights.get(_IDENTITY, 0.0)


def _weight(parameters: list[bytes]) -> float:
    for parameter in parameters:
        found = _WEIGHT.fullmatch(parameter)
        if found is not None:
            return float(found[1])
    return 1.0


def is_worth_coding(content_type: str, byte_count: int) -> bool:
    """Whether an answer gets smaller by it: a text of some length."""
    return byte_count >= CODED_BYTES_MIN and _TEXTUAL.fullmatch(media_type(content_type)) is not None


def deflated(parts: Sequence[bytes | memoryview]) -> bytes:
    """The parts as the data and the trailer of a file of gzip; the same parts give the same bytes."""
    deflater, checksum, byte_count, pieces = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW_BITS), 0, 0, list[bytes]()
    for part in parts:
        checksum, byte_count = zlib.crc32(part, checksum), byte_count + len(part)
        pieces.append(deflater.compress(part))
    trailer = checksum.to_bytes(4, "little") + (byte_count & 0xFFFFFFFF).to_bytes(4, "little")
    return b"".join((*pieces, deflater.flush(), trailer))


def gzip_header(padding: bytes = b"") -> bytes:
    """What such a file begins with (RFC 1952, section 2.3); the padding is its name, which nobody looks at."""
    return _HEADER + b"\x08\0\0\0\0\4\xff" + padding + b"\0" if padding else _HEADER + b"\0\0\0\0\0\4\xff"
