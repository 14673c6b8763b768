"""Envelopes: a source's messages as JSON messages of an estuary (a fan-in stream), each with its source and offset.

Rules:
1. An envelope loses nothing: bytes that are not valid UTF-8 are in base64, and JSON is copied as it was sent.
2. Its `offset` is where to go on reading the source after the batch that the message was in.
"""

from base64 import b64encode

import msgspec

from fluvial.model.content_type import is_json, is_text
from fluvial.model.json_mode import message_ends
from fluvial.model.names import StreamName


class _Envelope(msgspec.Struct, omit_defaults=True):
    """One message of an estuary; its field names are what readers see."""

    stream: str
    offset: str
    type: str
    payload: msgspec.Raw | str
    encoding: str | None = None


def encode_envelopes(source: StreamName, content_type: str, batch: bytes, token: str) -> bytes:
    """The envelopes of a source's batch, which ends at the offset `token`, as stored JSON messages.

    A JSON batch has one for each message, any other batch has one in all. The payload of a JSON message is the message
    itself, that of text is a string, and any other is base64 with `"encoding": "base64"`.
    """
    if is_json(content_type):
        starts = (0, *(ends := message_ends(batch)))
        payloads = [msgspec.Raw(batch[start : stop - 1]) for start, stop in zip(starts, ends, strict=False)]
        return b"".join(_encode(_Envelope(source, token, content_type, payload)) for payload in payloads)
    text = _decode_text(content_type, batch)
    if text is None:
        return _encode(_Envelope(source, token, content_type, b64encode(batch).decode(), "base64"))
    return _encode(_Envelope(source, token, content_type, text))


def _decode_text(content_type: str, batch: bytes) -> str | None:
    """The batch as a string; None for bytes that are not text, or not valid UTF-8."""
    if not is_text(content_type):
        return None
    try:
        return batch.decode()
    except UnicodeDecodeError:
        return None


def _encode(envelope: _Envelope) -> bytes:
    return msgspec.json.encode(envelope) + b","
