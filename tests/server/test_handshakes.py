"""WebSocket handshakes when the store cannot read: they are answered over HTTP, as a GET would be."""

from typing import Any

import pytest

from fluvial.model.errors import StorageDamaged, StoreUnavailable, StreamVanished
from fluvial.model.head import Head
from fluvial.model.names import StreamName
from fluvial.model.page import Page
from fluvial.server.live_reads import LiveLimits, LiveReads
from fluvial.server.websocket import WebSocketApp
from fluvial.storage.memory import MemoryStore
from tests.support.access import open_authorizer
from tests.support.clocks import FixedClock
from tests.support.commands import NAME, append_commit, create_commit


class BrokenStore(MemoryStore):
    """A store that loads heads and fails every read."""

    def __init__(self, error: Exception) -> None:
        """`error` is what each read raises."""
        super().__init__()
        self._error = error

    async def read(self, name: StreamName, head: Head, start: int, byte_count_max: int) -> Page:  # noqa: ARG002
        """See Store.read."""
        raise self._error


@pytest.mark.parametrize(
    ("error", "status"), [(StoreUnavailable(), 503), (StorageDamaged(), 500), (StreamVanished(), 404)], ids=str
)
async def test_handshake_gets_http_status_when_store_cannot_read(error: Exception, status: int) -> None:
    """A close before the handshake is accepted would be a 403."""
    store, clock = BrokenStore(error), FixedClock().clock()
    await store.apply(NAME, create_commit())
    await store.apply(NAME, append_commit())
    authorizer, sent = open_authorizer(store.projects, clock), list[dict[str, Any]]()
    app = WebSocketApp(LiveReads(store, clock, LiveLimits(1, 1, 10), authorizer.throttle), authorizer)

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:  # noqa: ANN401  ASGI's own
        sent.append(message)

    path = f"/v1/stream/{NAME}"
    scope = {"type": "websocket", "path": path, "raw_path": path.encode(), "headers": []}
    await app({**scope, "query_string": b"live=websocket&offset=-1"}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.http.response.start", "websocket.http.response.body"]
    assert sent[0]["status"] == status
