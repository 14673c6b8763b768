"""The console's files: HTML, CSS, scripts and pictures that are part of the package, held in memory with their answers.

The page is made of these files alone. No file has inline scripts or styles, because CONTENT_SECURITY_POLICY forbids
them, so that a message with markup in it could run nothing even if a mistake made it markup.
"""

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from fluvial.wire.content_coding import CODED_BYTES_MIN, GZIP, accepts_gzip, deflate, gzip_header
from fluvial.wire.request import Headers
from fluvial.wire.response import Header, Response

#: Where the files are; the page itself is at `/`.
ROOT: Final = b"/console/"

#: Other names of files.
ALIASES: Final = {b"/": b"/console/index.html", b"/favicon.ico": b"/console/icon.svg"}

CONTENT_TYPES: Final = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
}

#: `trusted-types 'none'` makes each assignment to innerHTML an error.
CONTENT_SECURITY_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    b"require-trusted-types-for 'script'; trusted-types 'none'"
)

#: Every answer below the console has these. Unlike streams, its files are for no other site.
HEADERS: Final[tuple[Header, ...]] = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)

#: A browser asks each time whether its copy is still right, so that page and scripts are always of one version.
_NO_CACHE: Final[Header] = (b"cache-control", b"no-cache")
_VARY: Final[Header] = (b"vary", b"Accept-Encoding")
_CONTENT_ENCODING: Final[Header] = (b"content-encoding", GZIP)


@dataclass(frozen=True, slots=True)
class ConsoleFile:
    """A file, and its compressed form if that is worth the trouble."""

    content_type: bytes
    content: bytes
    compressed: bytes | None
    etag: bytes

    def respond(self, headers: Headers) -> Response:
        """The answer to a GET."""
        known = headers.get(b"if-none-match", b"")
        is_coded = self.compressed is not None and accepts_gzip(headers.get(b"accept-encoding"))
        # Tags are weak, because both forms have the same one.
        fields = (*HEADERS, _NO_CACHE, _VARY, (b"etag", b'W/"' + self.etag + b'"'))
        if self.etag in known:
            return Response(304, fields)
        body = self.compressed if is_coded and self.compressed is not None else self.content
        coding = (_CONTENT_ENCODING,) if is_coded else ()
        length = (b"content-length", b"%d" % len(body))
        return Response(200, (*fields, *coding, (b"content-type", self.content_type), length), (body,))


def load_files() -> dict[bytes, ConsoleFile]:
    """The files by path, aliases included."""
    found = dict[bytes, ConsoleFile]()
    _load(files("fluvial.server.console") / "static", ROOT, found)
    return found | {alias: found[path] for alias, path in ALIASES.items()}


def _load(folder: Traversable, path: bytes, found: dict[bytes, ConsoleFile]) -> None:
    for entry in folder.iterdir():
        entry_path = path + entry.name.encode()
        suffix = "." + entry.name.rpartition(".")[2]
        if entry.is_dir():
            _load(entry, entry_path + b"/", found)
        elif suffix in CONTENT_TYPES:
            found[entry_path] = _console_file(entry.read_bytes(), CONTENT_TYPES[suffix])


def _console_file(content: bytes, content_type: bytes) -> ConsoleFile:
    compressed = gzip_header() + deflate([content]) if len(content) >= CODED_BYTES_MIN else None
    return ConsoleFile(content_type, content, compressed, hashlib.sha256(content).hexdigest()[:32].encode())
