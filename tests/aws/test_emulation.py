"""The emulation of AWS: what its parts take from the documents, so that tests over it find what AWS would do."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx
import pytest

from fluvial.model.errors import RequestError
from fluvial.model.names import parse_name
from tests.aws_local.adapter import DELIMITER, forwarded_path, frame, parse_url_path
from tests.aws_local.api_gateway import HEADER_VALUES_BYTES_MAX, LAMBDA_BYTES_MAX, STAGE, ApiGateway
from tests.aws_local.environments import ThrottledError
from tests.aws_local.routes import find_route
from tests.aws_local.streamed_answer import METADATA_BYTES_MAX, MalformedStreamError, send_streamed
from tests.aws_local.token_bucket import TokenBucket


class Function:
    """Answers each event with some pieces or bytes, or raises; `events` are those that it got."""

    def __init__(self, answer: bytes | list[bytes] | Exception) -> None:
        """Whatever the event is, this is the answer."""
        self.answer = answer
        self.events: list[dict[str, Any]] = []


class Live(Function):
    """In the place of the live function."""

    async def invoke(self, event: dict[str, Any]) -> AsyncGenerator[bytes]:
        """Stream the pieces."""
        self.events.append(event)
        if isinstance(self.answer, Exception):
            raise self.answer
        for piece in self.answer:
            assert isinstance(piece, bytes)
            yield piece


class Edge(Function):
    """In the place of the edge function."""

    async def invoke(self, event: bytes) -> bytes:
        """Answer with the bytes."""
        self.events.append(json.loads(event))
        if isinstance(self.answer, Exception):
            raise self.answer
        assert isinstance(self.answer, bytes)
        return self.answer


OK = b'{"statusCode": 200, "multiValueHeaders": {}, "body": ""}'


def gateway(
    edge: bytes | Exception = OK, live: list[bytes] | Exception | None = None, throttle: TokenBucket | None = None
) -> tuple[httpx.AsyncClient, Edge, Live]:
    """A client of the REST API in front of such functions."""
    functions = Edge(edge), Live([] if live is None else live)
    application: Any = ApiGateway(*functions, throttle)  # type: ignore[arg-type]
    transport = httpx.ASGITransport(application)
    return httpx.AsyncClient(transport=transport, base_url=f"http://aws/{STAGE}"), *functions


async def frames_of(status: int, body: bytes = b"", **fields: str) -> list[bytes]:
    """What the adapter streams for a server's answer."""

    async def content() -> AsyncIterator[bytes]:
        if body:
            yield body

    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    return [piece async for piece in frame(httpx.Response(status, headers=headers, content=content()))]


@pytest.mark.parametrize(
    ("path", "parsed"),
    [
        ("/v1/stream/a/../b", "/v1/stream/b"),
        ("/v1/stream/a/%2E%2e/b", "/v1/stream/b"),
        ("/v1/stream/a/.%2e", "/v1/stream/"),
        ("/v1/stream/./a/%2e", "/v1/stream/a/"),
        ("/v1/stream/a\\b", "/v1/stream/a/b"),
        ("\\v1\\stream\\a", "/v1/stream/a"),
        ("/v1/stream/a\tb", "/v1/stream/ab"),
        ("/../../v1/stream/a", "/v1/stream/a"),
        ("/v1/stream/a%2Fb", "/v1/stream/a%2Fb"),
        ("/v1/stream/a%5Cb", "/v1/stream/a%5Cb"),
        ("/v1/stream//a", "/v1/stream//a"),
        ("/v1/stream/a?b#ü", "/v1/stream/a%3Fb%23%C3%BC"),
    ],
)
def test_adapter_parses_a_path_as_a_url_of_http_has_it(path: str, parsed: str) -> None:
    """So a GET of `a/../b` reads `b`, where a PUT, which the edge function gets unparsed, is refused."""
    assert parse_url_path(path) == parsed


def test_adapter_resolves_dots_that_the_server_would_refuse() -> None:
    """The gate before a stream sees the resolved name, too, so no stream is reached that the token is not for."""
    with pytest.raises(RequestError):
        parse_name("shop/../other/a")
    assert forwarded_path("/base", "/base/v1/stream/shop/../other/a") == "/v1/stream/other/a"


@pytest.mark.parametrize("status", [204, 304])
async def test_empty_answer_is_metadata_a_delimiter_and_nothing(status: int) -> None:
    """The gateway answers when the stream ends, with the type that the runtime adds."""
    pieces = await frames_of(status, stream_next_offset="7")
    assert pieces[1:] == [DELIMITER]
    assert json.loads(pieces[0])["headers"] == {
        "content-type": "application/octet-stream",
        "stream-next-offset": "7",
    }
    client, _, _ = gateway(live=pieces)
    answer = await client.get("/v1/stream/a")
    assert (answer.status_code, answer.content, answer.headers["stream-next-offset"]) == (status, b"", "7")


async def test_gateway_finds_the_delimiter_wherever_pieces_begin() -> None:
    """Also if it comes byte by byte, and with the body's first bytes; eight NULs of the body stay in the body."""
    head, delimiter, *body = await frames_of(200, b"data" + DELIMITER + b"more")
    whole = head + delimiter + b"".join(body)
    for pieces in ([whole], [whole[at : at + 1] for at in range(len(whole))]):
        client, _, _ = gateway(live=pieces)
        assert (await client.get("/v1/stream/a")).content == b"data" + DELIMITER + b"more"


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b'{"statusCode": 200, "headers": {}}'],
        [b"no metadata", DELIMITER],
        [b" " * (METADATA_BYTES_MAX + 1), DELIMITER],
        [b'{"statusCode": 200, "headers": {"vary": ["a", "b"]}}', DELIMITER],
    ],
)
async def test_output_of_another_form_is_a_502(pieces: list[bytes]) -> None:
    """In the form of the template's gateway responses."""

    async def stream() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def send(_: object) -> None:
        raise AssertionError

    with pytest.raises(MalformedStreamError):
        await send_streamed(stream(), send)
    client, _, _ = gateway(live=pieces)
    answer = await client.get("/v1/stream/a")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "store_uncertain")


async def test_stage_throttles_with_the_templates_answer() -> None:
    """A 429 with Retry-After that pages of any origin may read; no function runs."""
    now_s = [0.0]
    client, edge, _ = gateway(throttle=TokenBucket(1, 2, lambda: now_s[0]))
    assert [(await client.post("/v1/stream/a")).status_code for _ in range(3)] == [200, 200, 429]
    answer = await client.get("/v1/stream/a")
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limited")
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["access-control-allow-origin"] == "*"
    now_s[0] = 1.0
    assert [(await client.post("/v1/stream/a")).status_code for _ in range(2)] == [200, 429]
    assert len(edge.events) == 3


async def test_lack_of_concurrency_is_a_500_through_api_gateway() -> None:
    """Not a 429, which Lambda says to API Gateway."""
    client, _, _ = gateway(edge=ThrottledError(), live=ThrottledError())
    for method in ("GET", "POST"):
        answer = await client.request(method, "/v1/stream/a")
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "store_uncertain")


async def test_requests_over_a_limit_reach_no_function() -> None:
    """A body that is too large in base64, a URL, and header values."""
    client, edge, live = gateway()
    body = bytes(LAMBDA_BYTES_MAX * 3 // 4)
    assert (await client.post("/v1/stream/a", content=body)).status_code == 413
    assert (await client.get(f"/v1/stream/a?offset={'0' * 10_240}")).status_code == 414
    headers = {"x-large": "a" * HEADER_VALUES_BYTES_MAX}
    assert (await client.get("/v1/stream/a", headers=headers)).status_code == 431
    assert (edge.events, live.events) == ([], [])


def test_routes_are_the_templates() -> None:
    """A GET of a stream is the live function's, all else the edge function's; `{proxy+}` matches no empty path."""
    found = find_route("GET", "/v1/stream/a%2Fb/c")
    assert found is not None
    assert (found[0].function, found[1]) == ("LiveFunction", {"proxy": "a%2Fb/c"})
    for method, path in (
        ("POST", "/v1/stream/a"),
        ("HEAD", "/v1/stream/a"),
        ("GET", "/v1/streams"),
        ("GET", "/health"),
    ):
        found = find_route(method, path)
        assert found is not None
        assert found[0].function == "EdgeFunction"
    assert find_route("GET", "/v1/stream/") is None
    assert find_route("GET", "/metrics") is None
