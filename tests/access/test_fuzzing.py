"""Generated requests: from the OpenAPI document, which has all answers, and from the protocol's fields, without 5xx."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from fluvial.model.permissions import Scope
from fluvial.wire.request import SINGULAR_FIELDS
from tests.access.clients import ServerClient, bearer, mint_token, operator, server_client
from tests.aws_local.__main__ import local_aws
from tests.support.api_document import ApiDocument
from tests.support.budget import examples, luck
from tests.support.raw_http import connect
from tests.support.rigs import dynamodb_local_url

Operation = schemathesis.schemas.APIOperation[Any, Any, Any, Any]

STREAM = "/v1/stream/{stream}"
LIVE = ("long-poll", "sse", "websocket", "x", "")
TOKEN = f"{0:016d}_{1:016d}"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerClient]:
    """A server with projects."""
    with server_client(tmp_path_factory.mktemp("fuzzed")) as opened:
        writer = bearer(mint_token(Scope.WRITE))
        made = opened.request("PUT", "/v1/stream/demo/fuzzed", {**writer, "content-type": "text/plain"}, b"x")
        assert made.status == 201
        yield opened


@pytest.fixture(params=["sqlite", pytest.param("dynamodb", marks=pytest.mark.slow)])
def control_api(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerClient]:
    """A server with projects over each kind of store."""
    with ExitStack() as stack:
        environment = {}
        if request.param == "dynamodb":
            environment = stack.enter_context(local_aws(dynamodb_local_url()))
        api = stack.enter_context(server_client(tmp_path, "--store", request.param, environment=environment))
        made = api.request(
            "PUT", "/v1/stream/demo/fuzzed", {**bearer(mint_token(Scope.WRITE)), "content-type": "text/plain"}
        )
        assert made.status == 201
        yield api


@pytest.mark.medium
@luck
@pytest.mark.parametrize("mode", schemathesis.GenerationMode, ids=lambda mode: mode.value)
def test_control_routes_answer_generated_requests_as_documented(
    control_api: ServerClient, mode: schemathesis.GenerationMode
) -> None:
    """Sent by an operator and by a manager, for an existing project and for others; at least some of them succeed."""
    described = ApiDocument(control_api.http.get("/openapi.json").json())
    for operation in described.operations:
        if operation.path != STREAM:
            answer_as_documented(control_api, described, operation, mode)
    statuses = statuses_of(described)
    carried_out = sum(count for status, count in statuses.items() if status < 300)
    assert carried_out > 20 if mode is schemathesis.GenerationMode.POSITIVE else statuses[400] > 20


def answer_as_documented(
    api: ServerClient, described: ApiDocument, operation: Operation, mode: schemathesis.GenerationMode
) -> None:
    """Send generated requests to a control route."""
    url = str(api.http.base_url).rstrip("/")
    with requests.Session() as session:

        @given(case=operation.as_strategy(generation_mode=mode), is_there=st.booleans())
        @examples(4, suppress_health_check=list(HealthCheck))
        def every_answer_is_documented(case: schemathesis.Case[Any], is_there: bool) -> None:  # noqa: FBT001
            if is_there and "project" in case.path_parameters and case.method != "DELETE":
                case.path_parameters["project"] = "demo"
            for headers in (operator(), bearer(mint_token(Scope.MANAGE))):
                described.check_case(case, case.call(base_url=url, headers=headers, session=session))

        # A route without parameters has no invalid requests.
        with suppress(Unsatisfiable) if mode is schemathesis.GenerationMode.NEGATIVE else nullcontext():
            every_answer_is_documented()


#: Streams that generated requests are for: what they change stays changed.
FUZZED = ("text", "json", "closed", "fork", "source", "absent")


@pytest.mark.medium
@luck
@pytest.mark.parametrize("mode", schemathesis.GenerationMode, ids=lambda mode: mode.value)
def test_stream_routes_answer_generated_requests_as_documented(
    api: ServerClient, mode: schemathesis.GenerationMode
) -> None:
    """Every method, for streams of all kinds, with a token and without."""
    url, writer = str(api.http.base_url).rstrip("/"), bearer(mint_token(Scope.WRITE))
    described = ApiDocument(api.http.get("/openapi.json").json(), "demo/")
    with requests.Session() as session:
        for operation in described.operations:
            if operation.path != "/v1/stream/demo/{stream}":
                continue

            @given(
                case=operation.as_strategy(generation_mode=mode),
                name=st.none() | st.sampled_from(FUZZED),
                headers=st.sampled_from([writer, writer, writer, {}]),
            )
            @examples(8, suppress_health_check=list(HealthCheck))
            def every_answer_is_documented(
                case: schemathesis.Case[Any], name: str | None, headers: dict[str, str]
            ) -> None:
                make_streams(api, writer)
                if name is not None:
                    case.path_parameters["stream"] = name
                described.check_case(case, case.call(base_url=url, headers=headers, session=session))

            every_answer_is_documented()
    statuses = statuses_of(described)
    assert {*statuses} >= {200, 204, 400, 401}


def make_streams(api: ServerClient, writer: dict[str, str]) -> None:
    """Make the streams that requests have deleted: a PUT of one that exists changes nothing."""
    text, json = {"content-type": "text/plain"}, {"content-type": "application/json"}
    api.request("PUT", "/v1/stream/demo/text", {**writer, **text}, b"x")
    api.request("PUT", "/v1/stream/demo/json", {**writer, **json}, b"[1, {}]")
    api.request("PUT", "/v1/stream/demo/closed", {**writer, **text, "stream-closed": "true"}, b"x")


def statuses_of(described: ApiDocument) -> Counter[int]:
    """How often each status was answered."""
    statuses = Counter[int]()
    for (_method, _path, status), count in described.answers.items():
        statuses[status] += count
    return statuses


_text = st.text(st.characters(min_codepoint=1, max_codepoint=255, exclude_characters="\r\n\0"), max_size=40)
_values = st.one_of(
    _text,
    st.sampled_from(["true", "0", "-1", "now", TOKEN, "9" * 30, "application/json", 'W/"x"', "/v1/stream/demo/fuzzed"]),
)
_names = st.sampled_from(
    [
        *sorted(name.decode() for name in SINGULAR_FIELDS - {b"authorization"}),
        *("if-none-match", "origin", "x-forwarded-proto", "range", "expect", "accept", "x-fluvial-origin"),
    ]
)
_parameters = st.sampled_from(["offset", "live", "cursor", "rk", "token", "public", "OFFSET", "%6fffset", "x"])
_query_values = st.one_of(st.sampled_from([*LIVE, TOKEN, "-1", "now", "%00", "%zz", "a%26b", "+", ""]), _text)


def requested(method: str, query: list[tuple[str, str]], fields: list[tuple[str, str]], body: bytes) -> bytes:
    """A request as bytes, because client libraries would not send it."""
    query_string = "&".join(f"{name}={value}" for name, value in query)
    query_string = re.sub(r"[\x00-\x20\x7f-\xff]", "_", query_string)
    lines = [f"{method} /v1/stream/demo/fuzzed?{query_string} HTTP/1.1", "host: x", "connection: close"]
    lines += [f"{name}: {value}" for name, value in fields]
    lines += [f"content-length: {len(body)}", f"authorization: Bearer {mint_token(Scope.WRITE)}"]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


@pytest.mark.medium
@given(
    method=st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH"]),
    query=st.lists(st.tuples(_parameters, _query_values), max_size=4),
    fields=st.lists(st.tuples(_names, _values), max_size=5),
    body=st.binary(max_size=50),
)
@examples(100, suppress_health_check=list(HealthCheck))
def test_stream_routes_never_answer_5xx_to_generated_requests(
    api: ServerClient, method: str, query: list[tuple[str, str]], fields: list[tuple[str, str]], body: bytes
) -> None:
    """Every answer is complete."""
    answer = b""
    with connect(str(api.http.base_url).rstrip("/")) as connection, suppress(ConnectionError):
        connection.sendall(requested(method, query, fields, body))
        while part := connection.recv(65_536):
            answer += part
    status = re.match(rb"HTTP/1\.1 ([1-5]\d\d) ", answer)
    assert status is not None, answer[:200]
    assert not status[1].startswith(b"5"), answer[:500]
    writer = bearer(mint_token(Scope.WRITE))
    api.request("PUT", "/v1/stream/demo/fuzzed", {**writer, "content-type": "text/plain"})
