"""The door of the control routes, when what is behind it is broken."""

import logging
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from fluvial.model.permissions import Permission
from fluvial.server.control.authorization import ControlApp
from fluvial.server.control.fastapi_errors import ControlBody, answer_errors
from fluvial.storage.memory import MemoryStore
from tests.support.access import open_gate
from tests.support.clocks import FixedClock


class Secretive(ControlBody):
    """A body that nobody is to see again."""

    secret: str


@pytest.fixture
def client() -> httpx.AsyncClient:
    """A client of an application with one route, which fails."""
    app, store = FastAPI(openapi_url=None), MemoryStore()
    answer_errors(app)

    @app.post("/broken")
    async def broken(body: Secretive) -> Any:  # noqa: ANN401  it never answers
        raise ValueError(body.secret)

    door = ControlApp(app, open_gate(store.projects, FixedClock().clock()), {("POST", "/broken"): Permission.NOTHING})
    return httpx.AsyncClient(transport=httpx.ASGITransport(door), base_url="http://door")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"secret":"never-told"}', 500),
        (b'"never-told"', 400),
        (b'{"secret":["never-told"]}', 400),
        (b"never-told", 400),
    ],
    ids=["failing", "text", "list", "no JSON"],
)
async def test_what_goes_wrong_is_told_in_one_shape_and_logged_without_its_content(
    client: httpx.AsyncClient, body: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Where it happened and what kind it was must do."""
    caplog.set_level(logging.DEBUG)
    async with client:
        answer = await client.post("/broken", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"code", "message"}
    assert answer.headers["cache-control"] == "no-store"
    assert b"never-told" not in answer.content
    logged = [record for record in caplog.records if record.name == "fluvial.server.control.authorization"]
    assert [record.getMessage() for record in logged] == (["request_failed"] if status == 500 else [])
    assert all("never-told" not in str(record.__dict__) for record in caplog.records)
