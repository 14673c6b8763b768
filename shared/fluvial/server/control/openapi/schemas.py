"""The bodies of answers, as the OpenAPI document describes them. No answer is made from these types.

tests/access/test_fuzzing.py compares them with what a server sends.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from fluvial.model.errors import ErrorCode
from fluvial.model.head import EstuaryMode

_Time = Annotated[str, Meta(description="A time (RFC 3339).", extra_json_schema={"format": "date-time"})]
_Count = Annotated[int, Meta(ge=0)]
_Offset = Annotated[
    str, Meta(description="An offset. Clients compare offsets as texts, and read nothing else in them.")
]
_Next = Annotated[str | None, Meta(description="The next page's `after`; null when this page is the last one.")]


class Body(Struct):
    """A body of an answer, or a part of one."""


class ErrorDetail(Body):
    """What went wrong."""

    code: Annotated[ErrorCode, Meta(description="Stable: codes are added, and never renamed.")]
    message: Annotated[str, Meta(description="For the developer of the client; it may change.")]
    current_holder: Annotated[str | UnsetType, Meta(description="Of `ALREADY_CLAIMED`: the worker.")] = UNSET
    generation: Annotated[int | UnsetType, Meta(description="Of `ALREADY_CLAIMED`: that of its wake.")] = UNSET


class Error(Body):
    """The body of every answer with a status of 400 or more."""

    error: ErrorDetail


class Health(Body, rename="camel"):
    """The server's state."""

    status: Literal["ok"]
    version: str
    live_reads: Annotated[_Count, Meta(description="Long-polls, event streams and WebSockets that are open.")]


class Ready(Body, rename="camel"):
    """That the server can write."""

    status: Literal["ready"]
    writes: Annotated[bool, Meta(description="False on a server that only reads.")]


class ForkPoint(Body, rename="camel"):
    """Where a fork has left its source."""

    stream: Annotated[str, Meta(description="The source's name.")]
    offset: _Offset


class StreamDescription(Body, rename="camel"):
    """A stream."""

    name: Annotated[str, Meta(description="Its path below /v1/stream/; in a project's list, without the project.")]
    content_type: str
    bytes: Annotated[_Count, Meta(description="Its length.")]
    offset: Annotated[_Offset, Meta(description="The offset of its tail.")]
    closed: bool
    created_at: Annotated[_Time | None, Meta(description="Null for a stream that is older than this field.")]
    expires_at: _Time | None
    ttl_seconds: Annotated[_Count | None, Meta(description="It expires when it is not used for so long.")]
    last_append_at: _Time | None
    forked_from: ForkPoint | None
    forks: Annotated[_Count, Meta(description="The number of streams that were forked from it.")]
    estuary: Annotated[EstuaryMode | None, Meta(description="The mode of an estuary; null for other streams.")]
    public: Annotated[bool, Meta(description="Whether it can be read without a token.")]
    live_reads: Annotated[_Count, Meta(description="Those that are open in the answering process.")]


class ProducerState(Body):
    """A producer, and the last of its batches."""

    id: str
    epoch: _Count
    seq: _Count


class FollowingEstuary(Body):
    """An estuary that follows the stream."""

    estuary: str
    mode: EstuaryMode


class StreamDetails(StreamDescription, rename="camel"):
    """A stream; its producers and followers only for those who may manage it."""

    producers: Annotated[list[ProducerState], Meta(description="The first of them.")] | UnsetType = UNSET
    producer_count: _Count | UnsetType = UNSET
    followers: Annotated[list[FollowingEstuary], Meta(description="The first of them.")] | UnsetType = UNSET


class StreamNamesPage(Body):
    """A page of names, without `details`."""

    streams: list[str]
    next: _Next


class StreamDescriptionsPage(Body):
    """A page of descriptions, with `details`."""

    streams: list[StreamDescription]
    next: _Next


class ReaderKey(Body, rename="camel"):
    """A stream's new reader key."""

    reader_key: str


class SecretDescription(Body):
    """A secret, without its value."""

    id: Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]
    created: _Time


class LimitsDescription(Body, rename="camel"):
    """A project's limits; null is the server's own."""

    requests_per_second: _Count | None
    live_reads: _Count | None
    body_bytes: _Count | None
    bytes_per_day: _Count | None


class ProjectDescription(Body):
    """A project."""

    name: str
    created: _Time
    public: Annotated[bool, Meta(description="Whether all its streams can be read without a token.")]
    origins: list[str]
    secrets: list[SecretDescription]
    limits: LimitsDescription


class ProjectsPage(Body):
    """A page of projects."""

    projects: list[ProjectDescription]
    next: _Next


class FollowedStream(Body):
    """A stream that an estuary follows, and how far it has been delivered."""

    stream: str
    offset: _Offset


class EstuaryDescription(Body, rename="camel"):
    """An estuary."""

    estuary_id: str
    project: str
    path: Annotated[str, Meta(description="The path of the stream to read.")]
    mode: EstuaryMode
    content_type: str
    tail_offset: _Offset
    expires_at: _Time | None
    subscriptions: list[FollowedStream]


class SubscribedEstuary(EstuaryDescription, rename="camel"):
    """An estuary, and the stream that it was subscribed to, from an offset on."""

    stream: str
    offset: _Offset


class ControlData(Body, rename="camel"):
    """The JSON of a `control` event."""

    stream_next_offset: Annotated[_Offset, Meta(description="The offset after the data events before this one.")]
    stream_cursor: Annotated[str, Meta(description="The `cursor` of the next request.")] | UnsetType = UNSET
    up_to_date: Annotated[Literal[True], Meta(description="The data ended at the tail.")] | UnsetType = UNSET
    stream_closed: Annotated[Literal[True], Meta(description="The stream has ended.")] | UnsetType = UNSET


class DataEvent(Body, tag_field="event", tag="data"):
    """An event with a part of the stream: text, an array of JSON messages, or bytes in base64."""

    data: str
    id: _Offset | UnsetType = UNSET


class ControlEvent(Body, tag_field="event", tag="control"):
    """An event that says where the data before it ended."""

    data: Annotated[
        str,
        Meta(
            extra_json_schema={
                "contentMediaType": "application/json",
                "contentSchema": {"$ref": "#/components/schemas/ControlData"},
            }
        ),
    ]
    id: _Offset | UnsetType = UNSET
