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
