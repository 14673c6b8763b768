"""What a read prints: messages, lines or bytes, in one of five formats."""

from base64 import b64encode
from enum import StrEnum

import msgspec

from fluvial.cli.options import UsageError
from fluvial.client.streams import Page, StreamState, messages_of


class Format(StrEnum):
    """How a stream's contents are printed."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"
    RAW = "raw"
    BASE64 = "base64"


class Splitter:
    """Splits pages into JSON messages or lines; bytes of other types stay as they are.

    A line may begin in one page and end in another. Lines keep the newline at their end.
    """

    def __init__(self, state: StreamState) -> None:
        """For a stream of this type."""
        self._state = state
        self._rest = b""

    def split(self, page: Page) -> list[bytes]:
        """The messages or lines that a page completes."""
        if self._state.is_json:
            return messages_of(page.body)
        if not self._state.is_text:
            return [page.body] if page.body else []
        lines = (self._rest + page.body).split(b"\n")
        self._rest = lines.pop()
        return [line + b"\n" for line in lines]

    def finish(self) -> list[bytes]:
        """A last line without a newline."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


class Renderer:
    """Makes output of a stream's contents. `begin` and `end` are what surrounds it."""

    def __init__(self, state: StreamState, kind: Format, *, has_offsets: bool = False) -> None:
        """For a stream of this type."""
        if has_offsets and kind not in {Format.JSONL, Format.BASE64}:
            raise UsageError("--offsets needs -o jsonl or -o base64")
        self._state = state
        self._kind = kind
        self.has_offsets = has_offsets
        self._is_first = True

    @property
    def is_by_page(self) -> bool:
        """Whether pages are printed as they come, not message by message or line by line."""
        if self.has_offsets or self._kind in {Format.RAW, Format.BASE64}:
            return True
        return self._kind is Format.TEXT and not self._state.is_json

    @property
    def begin(self) -> bytes:
        """What comes first."""
        return b"[" if self._kind is Format.JSON else b""

    @property
    def end(self) -> bytes:
        """What comes last."""
        return b"]\n" if self._kind is Format.JSON else b""

    def page(self, page: Page) -> bytes:
        """A page as a whole."""
        if not page.body or (self._state.is_json and page.body.strip() == b"[]"):
            return b""
        if self._kind is Format.BASE64:
            offset = page.next_offset.encode() + b" " if self.has_offsets else b""
            return offset + b64encode(page.body) + b"\n"
        if self._kind is Format.JSONL:
            return page_line(self._state, page)
        return page.body

    def item(self, item: bytes) -> bytes:
        """A message, a line, or bytes."""
        match self._kind:
            case Format.RAW:
                return item
            case Format.BASE64:
                return b64encode(item) + b"\n"
            case Format.TEXT:
                return one_line(item) + b"\n" if self._state.is_json else item
            case Format.JSONL:
                return self._as_json(item) + b"\n"
            case Format.JSON:
                comma = b"" if self._is_first else b",\n"
                self._is_first = False
                return comma + self._as_json(item)

    def _as_json(self, item: bytes) -> bytes:
        if self._state.is_json:
            return one_line(item)
        if self._state.is_text:
            return msgspec.json.encode(item.decode(errors="replace").removesuffix("\n"))
        return msgspec.json.encode(b64encode(item).decode())


def count_of(count: int, noun: str) -> str:
    """A number with what it counts: `1 line`, `2,000 lines`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def one_line(message: bytes) -> bytes:
    """A JSON message in one line: inside of its strings there are no line breaks."""
    return message.replace(b"\r", b" ").replace(b"\n", b" ")


def page_line(state: StreamState, page: Page) -> bytes:
    """A page as a line of JSON: the offset after it, and its messages, its text or its bytes."""
    offset = b'{"offset":' + msgspec.json.encode(page.next_offset)
    if state.is_json:
        return offset + b',"data":' + one_line(page.body) + b"}\n"
    if state.is_text:
        try:
            return offset + b',"data":' + msgspec.json.encode(page.body.decode()) + b"}\n"
        except UnicodeDecodeError:  # other than UTF-8, or a page that ends inside of a character
            pass
    return offset + b',"base64":"' + b64encode(page.body) + b'"}\n'
