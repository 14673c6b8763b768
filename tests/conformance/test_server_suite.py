"""The public server suite, against the server as a user starts it, and against the edge function."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tools.smoke.suite import SuiteResult, run_suite

from fluvial.model.permissions import Scope
from tests.access.clients import JSON, HttpClient, ServerClient, make_projects, mint_token, operator, server_client
from tests.aws_local.__main__ import local_aws
from tests.support.access import OPERATOR_SECRET
from tests.support.rigs import dynamodb_local_url
from tests.support.servers import running_server, start_api_gateway, stop_at_exit

TESTS = 338
TESTS_WITHOUT_SUBSCRIPTIONS = 332
LONG_POLL_S = "0.5"
SUITE_TIMEOUT_S = 600


def assert_suite_passes(url: str, project: str | None = None, *, has_subscriptions: bool = False) -> None:
    """Every test of the suite passes against the server at the URL; those about subscriptions if it has them.

    With a project, its streams are the project's, and its requests have a token.
    """
    prefix, token = ("", None) if project is None else (f"{project}/", mint_token(Scope.WRITE, sub=project))

    async def run() -> SuiteResult:
        async with asyncio.timeout(SUITE_TIMEOUT_S):
            return await run_suite(url, float(LONG_POLL_S), prefix, token, has_subscriptions=has_subscriptions)

    result = asyncio.run(run())
    assert not result.failed, result.output[-8_000:]
    assert result.passed_count == (TESTS if has_subscriptions else TESTS_WITHOUT_SUBSCRIPTIONS)


def allow_all_origins(api: HttpClient) -> None:
    """As on a server that is open: the suite asks before it sends, as a browser does."""
    body = json.dumps({"origins": ["*"]}).encode()
    assert api.request("PUT", "/v1/projects/demo/origins", {**operator(), **JSON}, body).status == 200


@contextmanager
def environment_of(store: str) -> Iterator[dict[str, str]]:
    """What a server with such a store needs to find in its environment."""
    if store == "dynamodb":
        with local_aws(dynamodb_local_url()) as environment:
            yield environment
    else:
        yield {}


@pytest.mark.slow
@pytest.mark.parametrize("store", ["sqlite", pytest.param("memory", marks=pytest.mark.long), "dynamodb"])
def test_the_public_suite_passes(store: str, tmp_path: Path) -> None:
    """Over each store."""
    options = ("--store", store, "--long-poll-timeout", LONG_POLL_S, "--webhooks-to-localhost")
    with (
        environment_of(store) as environment,
        running_server(tmp_path / "data", *options, **environment) as server,
    ):
        assert_suite_passes(server.url, has_subscriptions=store != "dynamodb")
        log = server.log
    assert "error" not in log, log


@pytest.mark.slow
def test_the_public_suite_passes_with_projects(tmp_path: Path) -> None:
    """With a project before each path, and a token in each request."""
    options = ("--long-poll-timeout", LONG_POLL_S, "--sse-max-age", "60", "--webhooks-to-localhost")
    with server_client(tmp_path, *options, start=running_server) as api:
        allow_all_origins(api)
        assert_suite_passes(str(api.http.base_url).rstrip("/"), "demo", has_subscriptions=True)


@pytest.mark.slow
def test_the_public_suite_passes_through_lambda_with_projects(tmp_path: Path) -> None:
    """The edge and the live function know the same projects."""
    settings = {"FLUVIAL_LONG_POLL_TIMEOUT": LONG_POLL_S, "FLUVIAL_SSE_MAX_AGE": "1", "FLUVIAL_ACCESS": "projects"}
    secret = tmp_path / "secret"
    secret.write_text(OPERATOR_SECRET.value)
    settings["FLUVIAL_OPERATOR_SECRET_FILE"] = str(secret)
    with (
        environment_of("dynamodb") as environment,
        stop_at_exit(start_api_gateway(tmp_path / "gateway.log", **environment, **settings)) as gateway,
        httpx.Client(base_url=gateway.url, timeout=30) as client,
    ):
        api = ServerClient(client)
        make_projects(api)
        allow_all_origins(api)
        assert_suite_passes(gateway.url, "demo")


@pytest.mark.long  # the same with projects asks more
@pytest.mark.slow
def test_the_public_suite_passes_through_lambda(tmp_path: Path) -> None:
    """The live function streams every GET of a stream, and the edge function answers the rest."""
    settings = {"FLUVIAL_LONG_POLL_TIMEOUT": LONG_POLL_S, "FLUVIAL_SSE_MAX_AGE": "1"}
    with (
        environment_of("dynamodb") as environment,
        stop_at_exit(start_api_gateway(tmp_path / "gateway.log", **environment, **settings)) as gateway,
    ):
        assert_suite_passes(gateway.url)
