"""What an embedded server's streams return."""

import json
from dataclasses import dataclass
from typing import Any

from fluvial.fanout.publisher import FanOutReport
from fluvial.model.content_type import is_json
from fluvial.model.head import Head
from fluvial.model.json_mode import message_ends
from fluvial.model.names import StreamName
from fluvial.model.offset import offset_token
from fluvial.model.page import Page


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a JSON stream; of any other stream, the bytes of one append.

    `offset` is where to go on after it. Messages of one append share it with the append before, but for the last: a
    reader that goes on in the midst of an append gets the whole append again.
    """

    data: bytes
    offset: str

    @property
    def text(self) -> str:
        """The bytes as text. Raises UnicodeDecodeError, also if the writer has cut a character in two."""
        return self.data.decode()

    def json(self) -> Any:  # noqa: ANN401  any JSON
        """The bytes as JSON."""
        return json.loads(self.data)


@dataclass(frozen=True, slots=True)
class StreamPage:
    """A part of a stream; `offset` is where to go on.

    `is_up_to_date`: there was no more when it was read. `closed`: there never will be.
    """

    messages: tuple[Message, ...]
    offset: str
    is_up_to_date: bool
    closed: bool


@dataclass(frozen=True, slots=True)
class Appended:
    """The stream has the append; `is_duplicate` if the producer had made it before.

    `offset` is the stream's tail right after it. `fan_out` is how its deliveries went, None without followers.
    """

    offset: str
    closed: bool
    is_duplicate: bool
    fan_out: FanOutReport | None


@dataclass(frozen=True, slots=True)
class Created:
    """The stream exists as it was asked for; `is_new` is false if it did before."""

    offset: str
    is_new: bool


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """A stream's metadata; `offset` is its tail, and `byte_count` all bytes before it."""

    name: StreamName
    content_type: str
    offset: str
    byte_count: int
    closed: bool
    public: bool
    ttl_seconds: int | None
    expires_at: str | None


def page_messages(head: Head, page: Page) -> tuple[Message, ...]:
    """A page's messages, each with the offset at which its append or the one before ends."""
    if not page.data:
        return ()
    append_ends = page.ends or (page.end,)
    is_array = is_json(head.content_type)
    ends = [page.start + end for end in message_ends(page.data)] if is_array else append_ends
    found, start, safe, are_ends = list[Message](), page.start, page.start, frozenset(append_ends)
    for end in ends:
        safe = end if end in are_ends else safe
        data = page.data[start - page.start : end - page.start]
        found.append(Message(data[:-1] if is_array else data, offset_token(head, safe)))
        start = end
    return tuple(found)
