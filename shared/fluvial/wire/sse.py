"""Server-sent events: data events with a stream's bytes, control events with where they end (spec 5.8).

Rules:
1. What is between two control events is whole batches, and of text whole characters: a reader goes on from there.
2. The last data event and the control event have the offset as their `id`. A browser's EventSource sends the last one
   back as `Last-Event-ID` and so goes on without a gap or a repeat (HTML, 9.2.4). The id of the control event that
   tells the end of the stream says so, too: only who has seen that one is not to come again.
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

#: Go's bufio.Scanner and Python's asyncio.StreamReader take lines of up to 64 KiB, unless they are told otherwise.
LINE_BYTES_MAX: Final = 65_535

#: Follows the offset in the id of the last event of a closed stream.
END_SUFFIX: Final = ".end"

#: What a line can carry behind `data:` and perhaps a space; base64 comes in fours.
_PAYLOAD_BYTES_MAX: Final = (LINE_BYTES_MAX - len(b"data: ")) // 4 * 4

#: JSON up to and with a comma that is in no string, behind which a line may end; and as many of them as there are.
_UP_TO_COMMA: Final = rb'(?:[^",]*+(?:"(?:[^"\\]++|\\.)*+"[^",]*+)*+,)'
_ELEMENT: Final = re.compile(_UP_TO_COMMA, re.DOTALL)
_ELEMENTS: Final = re.compile(_UP_TO_COMMA + rb"++", re.DOTALL)

#: The beginning of a character in UTF-8 that lacks its end (RFC 3629, section 3).
_UNFINISHED: Final = re.compile(rb"(?:[\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf4][\x80-\xbf]{0,2})\Z")
_UNFINISHED_BYTES_MAX: Final = 3


def data_events(content_type: str, stored: bytes, token: str) -> bytes:
    """The `data` events of a page that ends at an offset: JSON as one array, text as it is, anything else in base64.

    A line break inside text begins a new `data:` line, so that no payload can pass for an event of its own. Base64 and
    JSON are broken where that changes nothing; a long line of text goes on in another data event, for readers put
    those up to the next control event together.
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
        return _event(_broken_json(text)) + identity
    return b"\n\n".join(map(_event, _text_pieces(text))) + identity


def _event(text: bytes) -> bytes:
    # A parser drops one space after the colon; a line's own first space must not be that one.
    lines = (b"\n" + text).replace(b"\n ", b"\n  ").replace(b"\n", b"\ndata:")
    return b"event: data" + lines


def _broken_json(text: bytes) -> bytes:
    """JSON with line breaks behind some of its commas, so that no line is too long."""
    parts, start = list[bytes](), 0
    while len(text) - start > _PAYLOAD_BYTES_MAX:
        found = _ELEMENTS.match(text, start, start + _PAYLOAD_BYTES_MAX) or _ELEMENT.match(text, start)
        if found is None:
            break
        parts.append(found[0])
        start = found.end()
    return b"\n".join([*parts, text[start:]])


def _text_pieces(text: bytes) -> Iterator[bytes]:
    """The text in pieces none of whose lines is too long; each ends behind a whole character, if there are any."""
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
    """How many bytes before `end` begin a character that goes on behind it; 0 where one ends, or nothing valid is."""
    found = _UNFINISHED.search(text, max(0, end - _UNFINISHED_BYTES_MAX), end)
    return 0 if found is None else len(found[0])


def _may_go_on(text: bytes, end: int) -> bool:
    """Whether what is behind `end`, as far as it is known, may belong to a character that begins before."""
    return end == len(text) or text[end] & 0xC0 == 0x80  # noqa: PLR2004  RFC 3629: 10xxxxxx


def with_whole_characters(head: Head, page: Page) -> Page:
    """The page up to the last batch that ends with a whole character; perhaps an empty one.

    A character may be cut in two appends, as token streams do with emoji; by itself, each part is none. What is at the
    end of a closed stream is told as it is, for nothing comes to end it. Text alone has characters to be cut.
    """
    is_final = head.closed and page.end == head.tail
    if is_final or not page.data or is_json(head.content_type) or not is_text(head.content_type):
        return page
    ends = page.ends or (page.end,)
    for index in range(len(ends), 0, -1):
        byte_count = ends[index - 1] - page.start
        if not _may_go_on(page.data, byte_count) or not _unfinished_bytes(page.data, byte_count):
            return (
                page if index == len(ends) else Page(page.start, ends[index - 1], page.data[:byte_count], ends[:index])
            )
    return Page(page.start, page.start, b"")


def control_event(token: str, cursor: int | None, *, up_to_date: bool, closed: bool) -> bytes:
    """A `control` event: the offset to go on from, and whether the reader has caught up or reached the end."""
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
    """How long a browser waits before it comes back when the connection has ended."""
    return b"retry:%d\n\n" % milliseconds
