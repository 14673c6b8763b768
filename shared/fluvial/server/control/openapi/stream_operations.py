"""The routes of streams, which FastAPI does not serve: parameters, bodies and answers of each method (spec 5)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fluvial.model.errors import ErrorCode
from fluvial.model.names import STREAM_ROOT
from fluvial.server.control.openapi import stream_fields as f
from fluvial.server.control.openapi.answers import TEXT, Answer, Field, JsonSchema, Operation

STREAM_PATH: Final = STREAM_ROOT + "{stream}"

_BYTES: Final[JsonSchema] = {"type": "string", "format": "binary"}
_MESSAGES: Final[JsonSchema] = {"type": "array", "items": {}}

#: In an event stream a schema describes each event.
_EVENT: Final[JsonSchema] = {
    "anyOf": [{"$ref": "#/components/schemas/DataEvent"}, {"$ref": "#/components/schemas/ControlEvent"}]
}

#: A body is bytes of any media type; of `application/json` it is one message, or an array of messages.
_BODY: Final[Mapping[str, JsonSchema]] = {
    "application/json": {},
    "text/plain": TEXT,
    "application/octet-stream": _BYTES,
    "*/*": _BYTES,
}


@dataclass(frozen=True, slots=True)
class StreamOperation:
    """A method of streams. `content` are the media types of the request's body."""

    id: str
    summary: str
    description: str
    answers: Operation
    query: tuple[Field, ...] = ()
    fields: tuple[Field, ...] = ()
    content: Mapping[str, JsonSchema] | None = None


_PRECONDITION: Final = ErrorCode.PRECONDITION_FAILED

_CREATE: Final = StreamOperation(
    "createStream",
    "Create a stream or a fork, or confirm that it exists",
    "The body, if there is one, is the first append. A stream's content type is that of its creation; without one it "
    "is `application/octet-stream`, and a fork's is its source's. A PUT that differs from the stream is a 409.",
    Operation(
        (
            Answer(
                201,
                "The stream is created.",
                always=(f.LOCATION, f.CONTENT_TYPE, f.NEXT_OFFSET, f.READER_KEY),
                at_times=(f.ETAG, f.CLOSED),
            ),
            Answer(
                200,
                "The stream exists already, as the request describes it.",
                always=(f.CONTENT_TYPE, f.NEXT_OFFSET),
                at_times=(f.READER_KEY, f.CLOSED),
            ),
        ),
        (
            ErrorCode.MALFORMED_OFFSET,
            ErrorCode.INVALID_JSON,
            ErrorCode.UNKNOWN_FORK_OFFSET,
            ErrorCode.SOURCE_NOT_FOUND,
            ErrorCode.STREAM_EXISTS,
            ErrorCode.CONTENT_TYPE_MISMATCH,
            ErrorCode.SOURCE_GONE,
            ErrorCode.FORK_TOO_DEEP,
            ErrorCode.QUOTA_EXCEEDED,
            _PRECONDITION,
        ),
    ),
    query=(f.PUBLIC,),
    fields=(*f.LIFETIMES, f.CLOSES, *f.FORK, f.CODING, *f.PRECONDITIONS),
    content=_BODY,
)

_APPEND: Final = StreamOperation(
    "appendToStream",
    "Append to a stream, close it, or both",
    "The body is appended as one batch; its content type must be the stream's. Of a JSON stream it is one message, or "
    "an array of messages. An empty body with `Stream-Closed: true` only closes the stream.",
    Operation(
        (
            Answer(
                204,
                "It is appended or closed. From a producer: the batch was there already, or the stream is closed now.",
                always=(f.NEXT_OFFSET,),
                at_times=(f.ETAG, f.CLOSED, *f.STAMP, *f.FAN_OUT),
            ),
            Answer(
                200,
                "A producer's batch is appended.",
                always=(f.NEXT_OFFSET, f.ETAG, *f.STAMP),
                at_times=(f.CLOSED, *f.FAN_OUT),
            ),
        ),
        (
            ErrorCode.INVALID_JSON,
            ErrorCode.EMPTY_BODY,
            ErrorCode.EMPTY_ARRAY,
            ErrorCode.MISSING_CONTENT_TYPE,
            ErrorCode.PRODUCER_EPOCH_START,
            ErrorCode.PRODUCER_FENCED,
            ErrorCode.STREAM_CLOSED,
            ErrorCode.CONTENT_TYPE_MISMATCH,
            ErrorCode.STREAM_SEQ_REGRESSION,
            ErrorCode.PRODUCER_GAP,
            ErrorCode.TOO_MANY_PRODUCERS,
            ErrorCode.GONE,
            ErrorCode.STREAM_FULL,
            ErrorCode.QUOTA_EXCEEDED,
            _PRECONDITION,
        ),
    ),
    fields=(f.STREAM_SEQ, f.CLOSES, *f.PRODUCER, f.CODING, *f.PRECONDITIONS),
    content=_BODY,
)

_READ: Final = StreamOperation(
    "readStream",
    "Read a stream from an offset on, once or live",
    """Without `live` the answer is a page of what is there. Read on at its `Stream-Next-Offset` until
`Stream-Up-To-Date`.

- `live=long-poll`: the same, but at the tail the answer waits for the next append. After a while it is a 204.
- `live=sse`: an event stream. `data` events have the content. Each is followed by a `control` event, a JSON object with
  `streamNextOffset`, `streamCursor`, `upToDate` and `streamClosed`. A connection ends after a while; go on at the last
  offset, as `EventSource` does by itself.
- `live=websocket`: a WebSocket handshake (RFC 6455), answered with 101. Messages are text and JSON:
  `{"type":"data","payload":"…"}`, of bytes with `"encoding":"base64"`, and
  `{"type":"control","streamNextOffset":"…"}`. A handshake that cannot succeed gets an answer of this list, and a
  request that is no handshake a 426.""",
    Operation(
        (
            Answer(
                200,
                "A page of the stream's bytes, an array of a JSON stream's messages, or an event stream.",
                content={"application/json": _MESSAGES, "text/event-stream": _EVENT, "*/*": _BYTES},
                always=(f.CACHE_CONTROL,),
                at_times=(f.NEXT_OFFSET, f.UP_TO_DATE, f.CLOSED, f.NEXT_CURSOR, f.ETAG, f.ENCODING, f.ANSWER_CODING),
            ),
            Answer(
                204,
                "The end of a long-poll without a new append, or of a closed stream that an `EventSource` has read.",
                always=(f.NEXT_OFFSET, f.UP_TO_DATE),
                at_times=(f.NEXT_CURSOR, f.CLOSED),
            ),
            Answer(
                304,
                "The page is that of `If-None-Match`.",
                always=(f.ETAG, f.NEXT_OFFSET, f.CACHE_CONTROL),
                at_times=(f.UP_TO_DATE, f.CLOSED, f.NEXT_CURSOR),
            ),
        ),
        (
            ErrorCode.MALFORMED_OFFSET,
            ErrorCode.MISSING_OFFSET,
            ErrorCode.GONE,
            ErrorCode.OFFSET_GONE,
            ErrorCode.UPGRADE_REQUIRED,
            ErrorCode.TOO_MANY_LIVE_READS,
            ErrorCode.ANSWER_TOO_LARGE,
            _PRECONDITION,
        ),
    ),
    query=(f.OFFSET, f.LIVE, f.CURSOR, f.READER_KEY_PARAMETER),
    fields=(f.LAST_EVENT_ID, *f.PRECONDITIONS),
)

_METADATA: Final = (
    (f.CONTENT_TYPE, f.NEXT_OFFSET, f.ETAG, f.CACHE_CONTROL),
    (f.CLOSED, f.READER_KEY, f.STREAM_TTL, f.STREAM_EXPIRES_AT),
)

_HEAD: Final = StreamOperation(
    "headStream",
    "Ask for a stream's properties",
    "This is no use of the stream: its time to live goes on.",
    Operation(
        (
            Answer(200, "The properties, in fields.", always=_METADATA[0], at_times=_METADATA[1]),
            Answer(304, "The stream has the tag of `If-None-Match`.", always=_METADATA[0], at_times=_METADATA[1]),
        ),
        (ErrorCode.GONE, _PRECONDITION),
    ),
    fields=f.PRECONDITIONS,
)

_DELETE: Final = StreamOperation(
    "deleteStream",
    "Delete a stream",
    "If it has forks, its path stays taken (410) until they are deleted, too.",
    Operation((Answer(204, "The stream is deleted."),), (ErrorCode.GONE, _PRECONDITION)),
    fields=f.PRECONDITIONS,
)

_OPTIONS: Final = StreamOperation(
    "preflightStream",
    "Answer a browser's preflight",
    "It needs no token. Pages of origins that are not allowed get no `Access-Control-Allow-Origin`.",
    Operation((Answer(204, "What pages may do.", always=(f.ALLOW, *f.CORS), at_times=f.ALLOWED_ORIGIN),)),
    fields=f.PREFLIGHT,
)

#: The methods of streams, in the order of the document.
STREAM_OPERATIONS: Final[Mapping[str, StreamOperation]] = {
    "PUT": _CREATE,
    "POST": _APPEND,
    "GET": _READ,
    "HEAD": _HEAD,
    "DELETE": _DELETE,
    "OPTIONS": _OPTIONS,
}
