"""The server in your own program: on a port, below a path of your application, or without HTTP (docs/embedding.md)."""

from fluvial.embed.embedded import Fluvial
from fluvial.embed.engine import NotOpen
from fluvial.embed.stream import Stream
from fluvial.embed.values import Appended, Created, Message, StreamInfo, StreamPage
from fluvial.model.errors import ErrorCode, FluvialError, RequestError, SettingsError, StartupError, StoreError
from fluvial.model.head import ProducerStamp

__all__ = [
    "Appended",
    "Created",
    "ErrorCode",
    "Fluvial",
    "FluvialError",
    "Message",
    "NotOpen",
    "ProducerStamp",
    "RequestError",
    "SettingsError",
    "StartupError",
    "StoreError",
    "Stream",
    "StreamInfo",
    "StreamPage",
]
