"""Reads server-sent events from a live connection, event by event."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True)
class Event:
    """One event."""

    kind: str
    data: str
    last_id: str = ""

    @property
    def fields(self) -> dict[str, Any]:
        """A control event's fields."""
        assert self.kind == "control"
        found: dict[str, Any] = json.loads(self.data)
        return found


def events_of(response: httpx.Response) -> Iterator[Event]:
    """The events of a response as they arrive, until it ends."""
    kind, data, last_id = "", list[str](), ""
    for line in response.iter_lines():
        name, _, value = line.partition(":")
        if name == "event":
            kind = value.strip()
        elif name == "data":
            data.append(value.removeprefix(" "))
        elif name == "id":
            last_id = value.removeprefix(" ")
        elif not line and data:
            yield Event(kind, "\n".join(data), last_id)
            kind, data = "", []


@contextmanager
def subscribed(http: httpx.Client, stream: str, offset: str = "-1") -> Iterator[Iterator[Event]]:
    """The events of a stream from an offset on."""
    with http.stream("GET", stream, params={"offset": offset, "live": "sse"}) as response:
        assert response.status_code == 200
        yield events_of(response)


def data_until_closed(http: httpx.Client, stream: str, offset: str = "-1") -> Iterator[str]:
    """The data events of a stream from an offset on until it is closed, over as many responses as that takes.

    A response ends at its maximal age, which a busy machine may reach in the middle of a test.
    """
    is_closed = False
    while not is_closed:
        with subscribed(http, stream, offset) as events:
            for event in events:
                if event.kind == "data":
                    yield event.data
                else:
                    offset = event.fields["streamNextOffset"]
                    is_closed = "streamClosed" in event.fields
