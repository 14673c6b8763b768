"""Server-sent events: data events with a stream's bytes, control events with where they end (spec 5.8)."""

from base64 import b64encode

import msgspec

from fluvial.core.content_type import is_json, is_text
from fluvial.core.json_mode import as_array
from fluvial.core.offset import offset_token


def data_event(content_type: str, stored: bytes) -> bytes:
    """A `data` event: JSON as one array, text as it is, anything else in base64.

    A line break inside text begins a new `data:` line, so that no payload can pass for an event of its own.
    """
    if not is_text(content_type):
        return b"event: data\ndata:" + b64encode(stored) + b"\n\n"
    text = as_array(stored) if is_json(content_type) else stored
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    # A parser drops one space after the colon; a line's own first space must not be that one.
    lines = (b"\n" + text).replace(b"\n ", b"\n  ").replace(b"\n", b"\ndata:")
    return b"event: data" + lines + b"\n\n"


def control_event(position: int, cursor: int | None, *, up_to_date: bool, closed: bool) -> bytes:
    """A `control` event: the offset to go on from, and whether the reader has caught up or reached the end."""
    fields: dict[str, str | bool] = {"streamNextOffset": offset_token(position)}
    if cursor is not None:
        fields["streamCursor"] = str(cursor)
    if up_to_date:
        fields["upToDate"] = True
    if closed:
        fields["streamClosed"] = True
    return b"event: control\ndata:" + msgspec.json.encode(fields) + b"\n\n"
