"""Frames: what SSE tells in events, as the text messages of a WebSocket (docs/websocket.md).

A message is at most FRAME_BYTES_MAX long, so a page may take several `data` messages; the payloads up to the next
`control` message, put together, are what one `data` event would hold.
"""

from base64 import b64encode
from collections.abc import Iterator
from typing import Final

import msgspec

from fluvial.model.content_type import is_json, is_text
from fluvial.model.head import Head
from fluvial.model.json_mode import as_array
from fluvial.model.offset import offset_token
from fluvial.model.page import Page

#: API Gateway's frames have 32 KB; a little is left for what is around the payload.
#: https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html
FRAME_BYTES_MAX: Final = 32_000
_AROUND_BYTES: Final = 64

#: Base64 takes four bytes for three.
_BINARY_PIECE_BYTES: Final = (FRAME_BYTES_MAX - _AROUND_BYTES) // 4 * 3


PONG: Final = '{"type":"pong"}'


class _FromClient(msgspec.Struct, tag_field="type", tag="ping"):
    """All that a client has to say: that it is there."""


_FROM_CLIENT: Final = msgspec.json.Decoder(_FromClient)


def is_ping(message: str | None) -> bool:
    """Whether a client's message is a ping, however its JSON is spelt."""
    try:
        return message is not None and _FROM_CLIENT.decode(message) is not None
    except msgspec.DecodeError:
        return False


def page_messages(head: Head, page: Page) -> tuple[str, ...]:
    """A page's data messages, then the control message that says where it ends."""
    up_to_date = page.end == head.tail
    data = _data_frames(head.content_type, page.data) if page.data else ()
    return (
        *data,
        control_frame(offset_token(head, page.end), up_to_date=up_to_date, closed=up_to_date and head.closed),
    )


def control_frame(token: str, *, up_to_date: bool, closed: bool) -> str:
    """The offset to go on from, and whether the reader has caught up or reached the end."""
    fields: dict[str, str | bool] = {"type": "control", "streamNextOffset": token}
    if up_to_date:
        fields["upToDate"] = True
    if closed:
        fields["streamClosed"] = True
    return msgspec.json.encode(fields).decode()


def _data_frames(content_type: str, stored: bytes) -> Iterator[str]:
    """JSON as one array, text as it is, anything else, and what is no valid UTF-8, in base64."""
    if is_text(content_type):
        try:
            text = (as_array(stored) if is_json(content_type) else stored).decode()
        except UnicodeDecodeError:
            pass
        else:
            yield from _text_frames(text)
            return
    for start in range(0, len(stored), _BINARY_PIECE_BYTES):
        piece = b64encode(stored[start : start + _BINARY_PIECE_BYTES]).decode()
        yield _frame({"type": "data", "encoding": "base64", "payload": piece})


def _text_frames(text: str) -> Iterator[str]:
    """The text in pieces whose messages fit; how long one gets depends on what JSON has to escape."""
    rest = [text]
    while rest:
        piece = rest.pop()
        frame = _frame({"type": "data", "payload": piece}) if len(piece) <= FRAME_BYTES_MAX else None
        if frame is not None and len(frame.encode()) <= FRAME_BYTES_MAX:
            yield frame
        else:
            middle = len(piece) // 2
            rest += (piece[middle:], piece[:middle])


def _frame(fields: dict[str, str]) -> str:
    return msgspec.json.encode(fields).decode()
