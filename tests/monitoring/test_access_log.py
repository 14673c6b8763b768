"""The access log: what a line says, what it never says, and that no request waits for it."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

import httpx
import pytest
from starlette.types import Message, Scope
from websockets.sync.client import connect

from fluvial.clock import Clock
from fluvial.metrics.metrics import Metrics
from fluvial.model.permissions import Scope as TokenScope
from fluvial.server.access_log import LINES_PER_WRITE_MAX, WRITES_WAITING_MAX, AccessLog, json_lines, text_lines
from fluvial.server.exchange import CLIENT_GONE, Exchange, Observers, request_id_of
from tests.access.clients import bearer, mint_token, server_client
from tests.support.servers import running_server

TEXT = {"content-type": "text/plain"}
LISTING = "/v1/projects/{project}/streams"

#: Where each of a request's parts that may be secret has a word that no line may have.
SECRET = "s3cr3t"


def ended(**fields: object) -> Exchange:
    """A line of the access log."""
    exchange = Exchange({}, None, None, 0.0)  # type: ignore[arg-type]
    exchange.release()
    values = {"timestamp": datetime(2026, 1, 2, 3, 4, 5, 678000, UTC), "status": 200, **fields}
    for name, value in values.items():
        setattr(exchange, name, value)
    return exchange


def test_json_line_has_the_fields_that_are_known() -> None:
    """In the shape of all other lines, and nothing that is left over from the request."""
    [line] = json_lines([ended(method="POST", route="/x", project="shop", stream="shop/ü b", status=204)]).splitlines()
    assert json.loads(line) == {
        "timestamp": "2026-01-02T03:04:05.678000Z",
        "level": "info",
        "event": "request",
        "logger": "fluvial.access",
        "method": "POST",
        "route": "/x",
        "project": "shop",
        "stream": "shop/ü b",
        "status": 204,
        "ms": 0.0,
        "request_bytes": 0,
        "response_bytes": 0,
    }


def test_text_line_stays_one_line_whatever_the_stream_is_called() -> None:
    """A stream's name may have spaces and line breaks, and must not forge a line or a field."""
    lines = text_lines([ended(stream="a\n2026 [error] status=500"), ended(code="gone", status=410)]).decode()
    first, second = lines.splitlines()
    assert first.startswith("2026-01-02T03:04:05.678000Z [info     ] request")
    assert "stream='a\\n2026 [error] status=500' status=200 " in first
    assert " status=410 code=gone ms=0.0 " in second


@pytest.mark.medium
def test_server_logs_each_request_and_no_secret(tmp_path: Path) -> None:
    """Appends, refusals, control routes, event streams and WebSockets, each when it has ended."""
    with server_client(tmp_path, "--access-log", "--log-format", "json", start=running_server) as api:
        url = str(api.http.base_url).rstrip("/")
        writer, reader = mint_token(TokenScope.WRITE), mint_token(TokenScope.READ)
        api.request("PUT", "/v1/stream/demo/a", {**bearer(writer), **TEXT}, SECRET.encode())
        api.request("POST", "/v1/stream/demo/a", {**bearer(writer), **TEXT, "x-request-id": "proxy-7"}, b"12345")
        refused = api.request("GET", f"/v1/stream/demo/a?offset={SECRET}&token={reader}", {})
        api.request("GET", f"/{SECRET}?token={SECRET}", {})
        api.request("GET", "/v1/projects/demo/streams", bearer(mint_token()))
        with httpx.stream("GET", f"{url}/v1/stream/demo/a?live=sse&offset=-1", headers=bearer(reader)) as events:
            next(events.iter_bytes())
        with connect(f"{url.replace('http', 'ws')}/v1/stream/demo/a?live=websocket&offset=-1&token={reader}") as socket:
            socket.recv()
    text = (tmp_path / "data.log").read_text()
    for secret in (SECRET, writer, reader):
        assert secret not in text
    lines = [json.loads(line) for line in text.splitlines()]
    lines = [line for line in lines if line["event"] == "request"]
    stream = {"route": "/v1/stream/{stream:path}", "project": "demo", "stream": "demo/a"}
    found = [{name: line.get(name) for name in ("method", "status", *stream, "code", "live")} for line in lines]
    none = {"code": None, "live": None}
    assert found[-7:-2] == [
        {"method": "PUT", "status": 201, **stream, **none},
        {"method": "POST", "status": 204, **stream, **none},
        {"method": "GET", "status": 400, **stream, "code": "malformed_offset", "live": None},
        {"method": "GET", "status": 404, "route": "unmatched", "project": None, "stream": None, "code": "not_found"}
        | {"live": None},
        {"method": "GET", "status": 200, "route": LISTING, "project": "demo", "stream": None, **none},
    ]
    assert sorted((line["live"], line["status"]) for line in found[-2:]) == [("sse", 200), ("websocket", 101)]
    post, bad = lines[-6], lines[-5]
    assert (post["request_bytes"], post["request_id"]) == (5, "proxy-7")
    assert bad["request_id"] == refused.headers["x-request-id"]
    assert "request_id" not in lines[-7]


class Sent:
    """Runs one request through observers, and keeps what was sent and the line."""

    def __init__(self, *headers: tuple[bytes, bytes], new_id: Callable[[], str] = lambda: "new") -> None:
        """`headers` are the request's."""
        self.lines: list[Exchange] = []
        self.observers = Observers(Metrics(), replace(Clock(), new_request_id=new_id), self)
        self.scope: Scope = {"method": "GET", "raw_path": b"/v1/stream/a", "headers": list(headers)}
        self.messages: list[Message] = []
        self.dropped_count = 0

    def add(self, exchange: Exchange) -> None:
        """Keep the line."""
        self.lines.append(exchange)

    async def run(self, *messages: Message) -> list[Message]:
        """Have an application send these messages."""

        async def send(message: Message) -> None:
            self.messages.append(message)

        exchange = self.observers.begin(self.scope, send)
        for message in messages:
            await exchange.send(message)
        self.observers.end(exchange)
        return self.messages


def answer(status: int) -> tuple[Message, Message]:
    """A whole answer."""
    body = b'{"error":{"code":"gone","message":"?"}}'
    return (
        {"type": "http.response.start", "status": status, "headers": ()},
        {"type": "http.response.body", "body": body, "more_body": False},
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (b"Abc-1.2_3:4/5+6=7@8", b"Abc-1.2_3:4/5+6=7@8"),
        (b"a b", b"new"),
        (b"a\xff", b"new"),
        (b"x" * 129, b"new"),
        (b"", b"new"),
    ],
)
async def test_error_has_the_requests_id_or_a_new_one(given: bytes, expected: bytes) -> None:
    """An id that could break a line is not taken."""
    sent = Sent((b"x-request-id", given))
    start, _ = await sent.run(*answer(410))
    assert dict(start["headers"])[b"x-request-id"] == expected
    assert (sent.lines[0].request_id, sent.lines[0].code) == (expected.decode(), "gone")


async def test_successful_answer_has_no_request_id() -> None:
    """A cache would give it to other requests."""
    start, _ = await Sent((b"x-request-id", b"a")).run(*answer(200))
    assert start["headers"] == ()


async def test_client_that_was_gone_before_its_answer_has_a_status_of_its_own() -> None:
    """The one that nginx has for it."""
    sent = Sent()
    await sent.run()
    assert sent.lines[0].status == CLIENT_GONE
    assert "fluvial.exchange" not in sent.scope


async def test_log_lines_about_an_error_have_the_id_of_its_answer() -> None:
    """Also before the answer is sent."""
    sent = Sent()
    exchange = sent.observers.begin(sent.scope, lambda _message: asyncio.sleep(0))
    logged = request_id_of(sent.scope)
    await exchange.send(answer(500)[0])
    assert logged == exchange.request_id == "new"
    assert request_id_of({}) is None


async def test_lines_are_dropped_while_standard_error_takes_none() -> None:
    """The server goes on, and the memory stays bounded."""
    blocked, written = Event(), list[bytes]()

    def write(data: bytes) -> None:
        assert blocked.wait(10)
        written.append(data)

    log = AccessLog(lambda lines: b"%d" % len(lines), write)
    for _ in range((WRITES_WAITING_MAX + 10) * LINES_PER_WRITE_MAX):
        log.add(ended())
    assert log.dropped_count >= 8 * LINES_PER_WRITE_MAX
    blocked.set()
    log.close(10)
    kept = sum(map(int, written))
    assert kept + log.dropped_count == (WRITES_WAITING_MAX + 10) * LINES_PER_WRITE_MAX


async def test_last_lines_are_written_when_the_server_stops() -> None:
    """Without waiting for more of them."""
    written = list[bytes]()
    log = AccessLog(json_lines, written.append)
    log.add(ended())
    log.close()
    assert len(written) == 1


async def test_failing_standard_error_is_no_reason_to_stop(caplog: pytest.LogCaptureFixture) -> None:
    """A full disk below the log is logged, where that still works."""

    def fail(_data: bytes) -> None:
        raise OSError(28, "No space left on device")

    log = AccessLog(json_lines, fail)
    log.add(ended())
    log.close()
    assert [record.message for record in caplog.records] == ["access_log_failed"]
