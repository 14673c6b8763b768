"""Encodes server-sent events: data events with a stream's bytes, control events with their end's offset (spec 5.8).

Rules:
1. Between two control events there are complete batches, and of text complete characters, because a reader may go on
   from each control event.
2. The last data event and the control event of a page have the page's end as their `id`. A browser's EventSource sends
   the last id back as `Last-Event-ID` and so goes on without a gap or a repeat (HTML, 9.2.4). The id of the control
   event at the end of a closed stream has END_SUFFIX: a reader that sends it back must not reconnect again.
3. No line is longer than LINE_BYTES_MAX, unless a single JSON string is: some clients read lines into a fixed buffer.
"""

import re
from base64 import b64encode
from collections.abc import Iterator
from typing import Final

import msgspec

from fluvial.model.content_type import is_json, is_text
from fluvial.model.head import Head
from fluvial.model.json_mode import as_array
from fluvial.model.page import Page

#: Go's bufio.Scanner and Python's asyncio.StreamReader read lines of up to 64 KiB by default.
LINE_BYTES_MAX: Final = 65_535

#: The end of the last event's id in a closed stream; it follows the offset.
END_SUFFIX: Final = ".end"

#: The room for a payload in a line after `data:` and a space; base64 has groups of four characters.
_PAYLOAD_BYTES_MAX: Final = (LINE_BYTES_MAX - len(b"data: ")) // 4 * 4

#: JSON up to and including a comma outside of strings, after which a line may end; and as many of these as possible.
_UP_TO_COMMA: Final = rb'(?:[^",]*+(?:"(?:[^"\\]++|\\.)*+"[^",]*+)*+,)'
_ELEMENT: Final = re.compile(_UP_TO_COMMA, re.DOTALL)
_ELEMENTS: Final = re.compile(_UP_TO_COMMA + rb"++", re.DOTALL)

#: The first bytes of a UTF-8 character whose last bytes are missing (RFC 3629, section 3).
_UNFINISHED: Final = re.compile(rb"(?:[\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf4][\x80-\xbf]{0,2})\Z")
_UNFINISHED_BYTES_MAX: Final = 3


def data_events(content_type: str, stored: bytes, token: str) -> bytes:
    """The `data` events of a page that ends at an offset: JSON as one array, text as it is, other bytes in base64.

    A line break in text begins a new `data:` line, so that a payload cannot forge an event. Base64 and JSON are broken
    into lines where that does not change them. A long line of text is continued in another data event, because readers
    join the data events before a control event.
    """
    identity = b"\nid:" + token.encode() + b"\n\n"
    if not is_text(content_type):
        encoded = b64encode(stored)
        lines = [encoded[at : at + _PAYLOAD_BYTES_MAX] for at in range(0, len(encoded), _PAYLOAD_BYTES_MAX)]
        return b"event: data\ndata:" + b"\ndata:".join(lines) + identity
    text = as_array(stored) if is_json(content_type) else stored
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if len(text) <= _PAYLOAD_BYTES_MAX:
        return _event(text) + identity
    if is_json(content_type):
        return _event(_break_json(text)) + identity
    return b"\n\n".join(map(_event, _text_pieces(text))) + identity


def _event(text: bytes) -> bytes:
    # A parser removes one space after the colon, so a line that begins with a space gets another one.
    lines = (b"\n" + text).replace(b"\n ", b"\n  ").replace(b"\n", b"\ndata:")
    return b"event: data" + lines


def _break_json(text: bytes) -> bytes:
    """Put line breaks after commas of JSON, so that no line is too long."""
    parts, start = list[bytes](), 0
    while len(text) - start > _PAYLOAD_BYTES_MAX:
        found = _ELEMENTS.match(text, start, start + _PAYLOAD_BYTES_MAX) or _ELEMENT.match(text, start)
        if found is None:
            break
        parts.append(found[0])
        start = found.end()
    return b"\n".join([*parts, text[start:]])


def _text_pieces(text: bytes) -> Iterator[bytes]:
    """The text in pieces without too long lines; each ends with a complete character if the text is UTF-8."""
    start = line_start = 0
    while len(text) - line_start > _PAYLOAD_BYTES_MAX:
        line_end = text.rfind(b"\n", line_start, line_start + _PAYLOAD_BYTES_MAX + 1)
        if line_end >= 0:
            line_start = line_end + 1
            continue
        cut = line_start + _PAYLOAD_BYTES_MAX
        cut -= _unfinished_bytes(text, cut)
        yield text[start:cut]
        start = line_start = cut
    yield text[start:]


def _unfinished_bytes(text: bytes, end: int) -> int:
    """How many bytes before `end` begin a character that is incomplete there; 0 also for bytes that are not UTF-8."""
    found = _UNFINISHED.search(text, max(0, end - _UNFINISHED_BYTES_MAX), end)
    return 0 if found is None else len(found[0])


def _may_continue(text: bytes, end: int) -> bool:
    """Whether the byte at `end`, which may be unknown, may continue a character that begins before it."""
    return end == len(text) or text[end] & 0xC0 == 0x80  # noqa: PLR2004  RFC 3629: 10xxxxxx


def trim_to_whole_characters(head: Head, page: Page) -> Page:
    """The page up to the last batch that ends with a complete character; it may be empty.

    Token streams cut characters, such as emoji, in two appends, and neither part can be decoded. Only text is trimmed.
    The end of a closed stream is not trimmed, because nothing will complete its last character.
    """
    is_final = head.closed and page.end == head.tail
    if is_final or not page.data or is_json(head.content_type) or not is_text(head.content_type):
        return page
    ends = page.ends or (page.end,)
    for index in range(len(ends), 0, -1):
        byte_count = ends[index - 1] - page.start
        if not _may_continue(page.data, byte_count) or not _unfinished_bytes(page.data, byte_count):
            if index == len(ends):
                return page
            return Page(page.start, ends[index - 1], page.data[:byte_count], ends[:index])
    return Page(page.start, page.start, b"")


def control_event(token: str, cursor: int | None, *, up_to_date: bool, closed: bool) -> bytes:
    """A `control` event: the offset to go on from, and whether it is the tail, or the end of a closed stream."""
    fields: dict[str, str | bool] = {"streamNextOffset": token}
    if cursor is not None:
        fields["streamCursor"] = str(cursor)
    if up_to_date:
        fields["upToDate"] = True
    if closed:
        fields["streamClosed"] = True
    event_id = token + END_SUFFIX * closed
    return b"event: control\ndata:" + msgspec.json.encode(fields) + b"\nid:" + event_id.encode() + b"\n\n"


def retry_field(milliseconds: int) -> bytes:
    """The field that tells a browser how long to wait before it reconnects."""
    return b"retry:%d\n\n" % milliseconds
