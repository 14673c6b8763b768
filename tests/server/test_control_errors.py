"""Errors of the control routes: their shape, and what is logged of them."""

import logging
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from fluvial.model.permissions import Permission
from fluvial.server.control.authorization import ControlApp
from fluvial.server.control.fastapi_errors import ControlBody, install_error_handlers
from fluvial.storage.memory import MemoryStore
from tests.support.access import open_authorizer
from tests.support.clocks import FixedClock


class SecretBody(ControlBody):
    """A body whose content must not appear in answers and logs."""

    secret: str


@pytest.fixture
def client() -> httpx.AsyncClient:
    """A client of an application with one route, which fails."""
    app, store = FastAPI(openapi_url=None), MemoryStore()
    install_error_handlers(app)

    @app.post("/broken")
    async def broken(body: SecretBody) -> Any:  # noqa: ANN401  it never answers
        raise ValueError(body.secret)

    control = ControlApp(
        app, open_authorizer(store.projects, FixedClock().clock()), {("POST", "/broken"): Permission.NOTHING}
    )
    return httpx.AsyncClient(transport=httpx.ASGITransport(control), base_url="http://server")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"secret":"never-shown"}', 500),
        (b'"never-shown"', 400),
        (b'{"secret":["never-shown"]}', 400),
        (b"never-shown", 400),
    ],
    ids=["failing", "text", "list", "no JSON"],
)
async def test_control_errors_have_one_shape_and_logs_without_request_content(
    client: httpx.AsyncClient, body: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has the place and the type of an unexpected error."""
    caplog.set_level(logging.DEBUG)
    async with client:
        answer = await client.post("/broken", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"code", "message"}
    assert answer.headers["cache-control"] == "no-store"
    assert b"never-shown" not in answer.content
    logged = [record for record in caplog.records if record.name == "fluvial.server.control.authorization"]
    assert [record.getMessage() for record in logged] == (["request_failed"] if status == 500 else [])
    assert all("never-shown" not in str(record.__dict__) for record in caplog.records)
