"""What can be done with subscriptions, one request each (PROTOCOL.md, sections 6 and 7).

A subscription is named as a stream is: by its id, or by its project and its id, `demo/agents`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from fluvial.client.connection import Connection
from fluvial.client.errors import UnexpectedAnswer

_JSON = {"content-type": "application/json"}
_CREATED = 201


def _path(name: str, *rest: str) -> str:
    project, _, subscription_id = name.rpartition("/")
    root = f"{project}/" if project else ""
    return "/".join((f"{root}__ds/subscriptions/{quote(subscription_id, safe='~')}", *rest))


def _decode(body: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError as exc:
        raise UnexpectedAnswer("the answer is not JSON") from exc
    if not isinstance(found, dict):
        raise UnexpectedAnswer("the answer is not an object")
    return found


def create(connection: Connection, name: str, configuration: Mapping[str, Any]) -> tuple[bool, dict[str, Any]]:
    """Create a subscription, or confirm it. Whether it is new, and the server's description."""
    body = msgspec.json.encode(configuration)
    answer = connection.request_stream("PUT", _path(name), fields=_JSON, body=body)
    return answer.status == _CREATED, _decode(answer.body)


def show(connection: Connection, name: str) -> dict[str, Any]:
    """A subscription, with its cursors."""
    return _decode(connection.request_stream("GET", _path(name)).body)


def list_subscriptions(connection: Connection, project: str) -> Iterator[dict[str, Any]]:
    """The subscriptions of a project, or of an open server without one, in the order of their ids."""
    root = f"{project}/" if project else ""
    after = ""
    while True:
        page = _decode(connection.request_stream("GET", f"{root}__ds/subscriptions", query={"after": after}).body)
        yield from page.get("subscriptions", [])
        if not page.get("next"):
            return
        after = page["next"]


def delete(connection: Connection, name: str) -> None:
    """Delete a subscription; one that does not exist is no error."""
    connection.request_stream("DELETE", _path(name))


def add_streams(connection: Connection, name: str, streams: Sequence[str]) -> None:
    """Link streams explicitly, by their paths."""
    body = msgspec.json.encode({"streams": streams})
    connection.request_stream("POST", _path(name, "streams"), fields=_JSON, body=body)


def remove_stream(connection: Connection, name: str, stream: str) -> None:
    """Remove an explicit link."""
    connection.request_stream("DELETE", _path(name, "streams", stream))


def claim(connection: Connection, name: str, worker: str) -> dict[str, Any]:
    """Claim the lease of a pull-wake subscription."""
    body = msgspec.json.encode({"worker": worker})
    return _decode(connection.request_stream("POST", _path(name, "claim"), fields=_JSON, body=body).body)


def acknowledge(connection: Connection, name: str, claimed: Mapping[str, Any]) -> dict[str, Any]:
    """Ack everything that a claim has, and give the lease back."""
    acks = [{"stream": stream["path"], "offset": stream["tail_offset"]} for stream in claimed["streams"]]
    wake = {"wake_id": claimed["wake_id"], "generation": claimed["generation"], "acks": acks, "done": True}
    return _decode(_send_wake(connection, name, "ack", claimed, wake))


def release(connection: Connection, name: str, claimed: Mapping[str, Any]) -> None:
    """Give the lease of a claim back, without an ack."""
    wake = {"wake_id": claimed["wake_id"], "generation": claimed["generation"]}
    _send_wake(connection, name, "release", claimed, wake)


def _send_wake(
    connection: Connection, name: str, action: str, claimed: Mapping[str, Any], wake: Mapping[str, Any]
) -> bytes:
    fields = {**_JSON, "authorization": f"Bearer {claimed['token']}"}
    return connection.request_stream("POST", _path(name, action), fields=fields, body=msgspec.json.encode(wake)).body
