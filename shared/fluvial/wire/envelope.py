"""Envelopes: a source's messages as the JSON messages of an estuary, each saying where it comes from."""

from base64 import b64encode

import msgspec

from fluvial.model.content_type import is_json, is_text
from fluvial.model.json_mode import message_ends
from fluvial.model.names import StreamName


class _Envelope(msgspec.Struct, omit_defaults=True):
    """`offset` is where to go on reading the source after the batch that the message came in."""

    stream: str
    offset: str
    type: str
    payload: msgspec.Raw | str
    encoding: str | None = None


def enveloped(source: StreamName, content_type: str, batch: bytes, token: str) -> bytes:
    """A batch of a source that ends at the offset `token`, as stored JSON messages.

    One for each JSON message, and one for any other batch.
    A JSON payload is the message itself, text is a string, and all else is base64 with `"encoding": "base64"`.
    """
    if is_json(content_type):
        starts = (0, *(ends := message_ends(batch)))
        payloads = [msgspec.Raw(batch[start : stop - 1]) for start, stop in zip(starts, ends, strict=False)]
        return b"".join(_stored(_Envelope(source, token, content_type, payload)) for payload in payloads)
    text = _as_text(content_type, batch)
    if text is None:
        return _stored(_Envelope(source, token, content_type, b64encode(batch).decode(), "base64"))
    return _stored(_Envelope(source, token, content_type, text))


def _as_text(content_type: str, batch: bytes) -> str | None:
    """The batch as a string, if that loses nothing."""
    if not is_text(content_type):
        return None
    try:
        return batch.decode()
    except UnicodeDecodeError:
        return None


def _stored(envelope: _Envelope) -> bytes:
    return msgspec.json.encode(envelope) + b","
