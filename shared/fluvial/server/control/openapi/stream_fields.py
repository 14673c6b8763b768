"""The header fields and the query parameters of stream routes."""

from typing import Final

from fluvial.fanout.publisher import FanOutMode
from fluvial.model.limits import PRODUCER_ID_BYTES_MAX, SAFE_INTEGER_MAX, STREAM_SEQ_BYTES_MAX, TTL_SECONDS_MAX
from fluvial.server.control.openapi.answers import COUNT, TEXT, TRUE, Field, JsonSchema
from fluvial.wire.request import LiveMode

_SAFE_INTEGER: Final[JsonSchema] = {"type": "integer", "minimum": 0, "maximum": SAFE_INTEGER_MAX}
_TTL: Final[JsonSchema] = {"type": "integer", "minimum": 0, "maximum": TTL_SECONDS_MAX}
_TIME: Final[JsonSchema] = {"type": "string", "format": "date-time"}

# Requests

OFFSET: Final = Field(
    "offset",
    "Where to read from: `-1` is the beginning, `now` the tail; else the `Stream-Next-Offset` of an earlier answer.",
    {"type": "string", "default": "-1", "examples": ["-1", "now"]},
)
LIVE: Final = Field(
    "live",
    "How the read goes on at the tail; it needs `offset`. Without it the answer is what is there.",
    {"type": "string", "enum": [mode.value for mode in LiveMode if mode is not LiveMode.NONE]},
)
CURSOR: Final = Field("cursor", "The `Stream-Cursor` of the previous answer.")
READER_KEY_PARAMETER: Final = Field("rk", "The stream's reader key, with which caches may keep the answer.")
PUBLIC: Final = Field(
    "public", "Whether the stream can be read without a token.", {"type": "string", "enum": ["true", "false"]}
)

PRECONDITIONS: Final = (
    Field("If-Match", "Entity tags, or `*`: the request is carried out if the stream has one of them."),
    Field("If-None-Match", "Entity tags, or `*`: the request is carried out if the stream has none of them."),
)
CODING: Final = Field("Content-Encoding", "The body's codings: `gzip`, `deflate`, up to three.")
CLOSES: Final = Field("Stream-Closed", "`true` closes the stream: nothing can be appended after this.", TEXT)
LIFETIMES: Final = (
    Field("Stream-TTL", "The stream expires when it is not used for so many seconds.", _TTL),
    Field("Stream-Expires-At", "The stream expires at this time; not together with `Stream-TTL`.", _TIME),
)
FORK: Final = (
    Field("Stream-Forked-From", "The URL path of a source: the new stream is a fork, which begins as its copy."),
    Field("Stream-Fork-Offset", "The source's offset where the fork leaves it; its tail by default."),
    Field("Stream-Fork-Sub-Offset", "So many messages, or bytes, after that offset.", _SAFE_INTEGER),
)
STREAM_SEQ: Final = Field(
    "Stream-Seq",
    "The writer's own sequence, compared as text: an append whose value is not greater than the last one is refused.",
    {"type": "string", "minLength": 1, "maxLength": STREAM_SEQ_BYTES_MAX},
)
PRODUCER: Final = (
    Field(
        "Producer-Id",
        "An idempotent producer: a batch that is sent again is not appended again. With its epoch and its seq.",
        {"type": "string", "minLength": 1, "maxLength": PRODUCER_ID_BYTES_MAX},
    ),
    Field("Producer-Epoch", "Raised when the producer starts again; earlier epochs are refused.", _SAFE_INTEGER),
    Field("Producer-Seq", "The number of the batch in its epoch, from 0.", _SAFE_INTEGER),
)
LAST_EVENT_ID: Final = Field("Last-Event-ID", "Sent by `EventSource` when it reconnects: it stands for `offset`.")
PREFLIGHT: Final = (
    Field("Origin", "The page's origin."),
    Field("Access-Control-Request-Method", "The method that the page will use."),
    Field("Access-Control-Request-Headers", "The fields that the page will send."),
    Field("Access-Control-Request-Private-Network", "`true` asks for a server in a private network."),
)

# Answers

NEXT_OFFSET: Final = Field("Stream-Next-Offset", "The offset after what the answer has, or has changed: read on there.")
UP_TO_DATE: Final = Field("Stream-Up-To-Date", "The answer ends at the tail.", TRUE)
CLOSED: Final = Field("Stream-Closed", "The stream is closed, and the answer ends at its end.", TRUE)
NEXT_CURSOR: Final = Field("Stream-Cursor", "The `cursor` of the next long-poll.")
ETAG: Final = Field("ETag", "The entity tag, for `If-Match` and `If-None-Match`.")
READER_KEY: Final = Field("Stream-Reader-Key", "The `rk` of reads that caches may keep.")
LOCATION: Final = Field("Location", "The stream's URL.")
CONTENT_TYPE: Final = Field("Content-Type", "The stream's content type.")
CACHE_CONTROL: Final = Field("Cache-Control", "For how long which caches may keep the answer.")
ENCODING: Final = Field(
    "Stream-SSE-Data-Encoding",
    "The data of events are bytes in base64, because the stream is not text.",
    {"type": "string", "enum": ["base64"]},
)
ANSWER_CODING: Final = Field("Content-Encoding", "A page that is compressed, if `Accept-Encoding` asks for it.")
STREAM_TTL: Final = Field("Stream-TTL", "The stream expires when it is not used for so many seconds.", _TTL)
STREAM_EXPIRES_AT: Final = Field("Stream-Expires-At", "The time when the stream expires.", _TIME)
STAMP: Final = (
    Field("Producer-Epoch", "The producer's epoch.", COUNT),
    Field("Producer-Seq", "The last sequence number that was accepted from the producer.", COUNT),
)
FAN_OUT: Final = (
    Field("Stream-Fanout-Count", "The estuaries that follow the stream.", COUNT),
    Field("Stream-Fanout-Successes", "Those that the append has been delivered to.", COUNT),
    Field("Stream-Fanout-Failures", "Those that it will be delivered to later, because it failed now.", COUNT),
    Field(
        "Stream-Fanout-Mode",
        "When they are delivered to.",
        {"type": "string", "enum": [mode.value for mode in FanOutMode]},
    ),
)
CORS: Final = (
    Field("Access-Control-Allow-Methods", "The methods that pages may use."),
    Field("Access-Control-Allow-Headers", "The fields that pages may send."),
    Field("Access-Control-Max-Age", "For how many seconds a browser may keep this answer.", COUNT),
)
ALLOW: Final = Field("Allow", "The methods of streams.")
ALLOWED_ORIGIN: Final = (
    Field("Access-Control-Allow-Origin", "The page's origin, if it is allowed."),
    Field("Access-Control-Expose-Headers", "The fields of answers that the page may read."),
    Field("Access-Control-Allow-Private-Network", "The page may use a server in a private network.", TRUE),
)
