"""Content codings (RFC 9110, section 8.4): decoding compressed bodies, and encoding answers with gzip.

Rules:
1. A body never decodes to more than its limit, at any of its codings: decoding stops one byte past it (zip bombs).
2. What is decoded ends with its input: a body that is cut short, or has bytes behind its end, is refused.
3. The same parts always encode to the same bytes, so that an answer and its entity tag belong together. Only
   `gzip_header` varies, by its padding.
"""

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

#: How many codings a body may have; more than one is odd, and undoing each costs as much as its result is long.
CODINGS_MAX: Final = 3

#: A gzip file may have several members (RFC 1952, section 2.2); each of them costs a copy of those behind it.
MEMBERS_MAX: Final = 64

#: A smaller answer is not compressed: it fits into one packet anyway.
CODED_BYTES_MIN: Final = 1_400

#: Level 3 takes a quarter of the default level's time, 7 ms for a megabyte of JSON, and its results are a fifth larger.
_LEVEL: Final = 3
_GZIP_MAGIC: Final = b"\x1f\x8b\x08"
_GZIP_BITS: Final = 31
_ZLIB_BITS: Final = 15
_RAW_BITS: Final = -15

_TEXTUAL: Final = re.compile(r"text/.*|application/(?:.*\+)?(?:json|xml)|application/(?:x-)?(?:ndjson|javascript|yaml)")
_WEIGHT: Final = re.compile(rb"[qQ]\s*=\s*([01](?:\.[0-9]{0,3})?)")

#: The answer to an unknown coding has it: "[...] SHOULD generate an Accept-Encoding" -- RFC 9110, 15.5.16
_ACCEPT_ENCODING: Final = ("accept-encoding", "gzip, deflate")


def parse_codings(field: bytes | None) -> tuple[bytes, ...]:
    """The codings of a body, in the order in which they were applied. RequestError for an unknown one, or too many."""
    if field is None:
        return ()
    names = (name.strip().lower() for name in field.split(b","))
    codings = tuple(_ALIASES.get(name, name) for name in names if name and name != _IDENTITY)
    if len(codings) > CODINGS_MAX or not set(codings) <= {GZIP, _DEFLATE}:
        message = f"a body may be coded by gzip and deflate, up to {CODINGS_MAX} times"
        raise RequestError(ErrorCode.UNSUPPORTED_CODING, message, 415, (_ACCEPT_ENCODING,))
    return codings


def decode(body: bytes, codings: Sequence[bytes], byte_count_max: int) -> bytes:
    """Undo the codings of a body, the last one first. RequestError when it is damaged, or too long at any step."""
    for coding in reversed(codings):
        bits = _GZIP_BITS if coding == GZIP else _deflate_bits(body)
        body = _inflate(body, bits, byte_count_max)
    return body


def _deflate_bits(body: bytes) -> int:
    """`deflate` is the zlib format; some clients send a body without its two bytes of header, which is decoded, too."""
    has_header = len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2]) % 31 == 0  # noqa: PLR2004  RFC 1950
    return _ZLIB_BITS if has_header else _RAW_BITS


def _inflate(body: bytes, bits: int, byte_count_max: int) -> bytes:
    parts, rest_max = list[bytes](), byte_count_max
    for _ in range(MEMBERS_MAX):
        inflater = zlib.decompressobj(bits)
        try:
            parts.append(inflater.decompress(body, rest_max + 1))  # one byte too many shows that the limit is passed
        except zlib.error as exc:
            raise _damaged_body() from exc
        rest_max -= len(parts[-1])
        if rest_max < 0:
            raise body_too_large(byte_count_max)
        if not inflater.eof:
            raise _damaged_body()  # cut short
        body = inflater.unused_data
        if not body:
            return b"".join(parts)
        if bits != _GZIP_BITS:
            break
    raise _damaged_body()


def _damaged_body() -> RequestError:
    return RequestError(ErrorCode.MALFORMED_REQUEST, "the body does not have the coding that Content-Encoding names")


def body_too_large(byte_count_max: int) -> RequestError:
    """The error of a body that is too long, as it came or decoded."""
    return RequestError(ErrorCode.BODY_TOO_LARGE, f"a body may have up to {byte_count_max} bytes", 413)


def accepts_gzip(field: bytes | None) -> bool:
    """Whether an Accept-Encoding takes gzip, and does not prefer the plain answer (RFC 9110, section 12.5.3)."""
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
    """Whether an answer gets smaller when it is compressed: it is text, and long enough."""
    return byte_count >= CODED_BYTES_MIN and _TEXTUAL.fullmatch(media_type(content_type)) is not None


def deflate(parts: Sequence[bytes | memoryview]) -> bytes:
    """Compress parts to the data and the trailer of a gzip file, which follow a `gzip_header`."""
    deflater, checksum, byte_count, pieces = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW_BITS), 0, 0, list[bytes]()
    for part in parts:
        checksum, byte_count = zlib.crc32(part, checksum), byte_count + len(part)
        pieces.append(deflater.compress(part))
    trailer = checksum.to_bytes(4, "little") + (byte_count & 0xFFFFFFFF).to_bytes(4, "little")
    return b"".join((*pieces, deflater.flush(), trailer))


def gzip_header(padding: bytes = b"") -> bytes:
    """The header of a gzip file (RFC 1952, section 2.3); padding stands in its file name, which readers ignore."""
    return _GZIP_MAGIC + b"\x08\0\0\0\0\4\xff" + padding + b"\0" if padding else _GZIP_MAGIC + b"\0\0\0\0\0\4\xff"
