"""WebSocket messages: a page as JSON texts, with the fields of SSE's data and control events (docs/websocket.md).

Rules:
1. A message is at most MESSAGE_BYTES_MAX long, so a page may take several `data` messages. Their payloads up to the
   next `control` message, put together, are the payload of one `data` event.
2. A page ends with its control message. A client whose connection ends before that discards the page's data messages,
   and reads the page again.
3. A client may send a ping, and nothing else.
"""

from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from fluvial.model.content_type import is_json, is_text
from fluvial.model.head import Head
from fluvial.model.json_mode import as_array
from fluvial.model.offset import offset_token
from fluvial.model.page import Page

#: A frame of API Gateway's WebSockets has at most 32 KB; this is a little less.
#: https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html
MESSAGE_BYTES_MAX: Final = 32_000
#: More than a message of base64 has beside its payload.
_OVERHEAD_BYTES: Final = 64

#: So many bytes fit into a message of base64, which takes four bytes for three.
_BINARY_PIECE_BYTES: Final = (MESSAGE_BYTES_MAX - _OVERHEAD_BYTES) // 4 * 3

PONG: Final = '{"type":"pong"}'


class _Ping(msgspec.Struct, tag_field="type", tag="ping"):
    """The one message that a client may send."""


_PING_DECODER: Final = msgspec.json.Decoder(_Ping)


def is_ping(message: str | None) -> bool:
    """Whether a client's message is a ping, however its JSON is spelt."""
    try:
        return message is not None and _PING_DECODER.decode(message) is not None
    except msgspec.DecodeError:
        return False


def page_messages(head: Head, page: Page) -> tuple[str, ...]:
    """A page's data messages, then its control message."""
    up_to_date = page.end == head.tail
    data = _data_messages(head.content_type, page.data) if page.data else ()
    return (
        *data,
        _control_message(offset_token(head, page.end), up_to_date=up_to_date, closed=up_to_date and head.closed),
    )


def _control_message(token: str, *, up_to_date: bool, closed: bool) -> str:
    """The offset to go on from, and whether the reader has caught up or reached the end."""
    fields: dict[str, str | bool] = {"type": "control", "streamNextOffset": token}
    if up_to_date:
        fields["upToDate"] = True
    if closed:
        fields["streamClosed"] = True
    return _encode(fields)


def _data_messages(content_type: str, stored: bytes) -> Iterator[str]:
    """JSON as one array, text as it is; any other type, and bytes that are not valid UTF-8, in base64."""
    if is_text(content_type):
        try:
            text = (as_array(stored) if is_json(content_type) else stored).decode()
        except UnicodeDecodeError:
            pass
        else:
            yield from _text_messages(text)
            return
    for start in range(0, len(stored), _BINARY_PIECE_BYTES):
        piece = b64encode(stored[start : start + _BINARY_PIECE_BYTES]).decode()
        yield _encode({"type": "data", "encoding": "base64", "payload": piece})


def _text_messages(text: str) -> Iterator[str]:
    """The text in pieces, halved until each message fits: its length depends on what JSON has to escape."""
    rest = [text]
    while rest:
        piece = rest.pop()
        message = _encode({"type": "data", "payload": piece}) if len(piece) <= MESSAGE_BYTES_MAX else None
        if message is not None and len(message.encode()) <= MESSAGE_BYTES_MAX:
            yield message
        else:
            middle = len(piece) // 2
            rest += (piece[middle:], piece[:middle])


def _encode(fields: Mapping[str, str | bool]) -> str:
    return msgspec.json.encode(fields).decode()
