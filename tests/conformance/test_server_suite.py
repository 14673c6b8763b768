"""The public server suite, against the server as a user starts it, and against the edge function."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.access.clients import ServerClient, make_projects, server_client
from tests.aws_local.__main__ import local_aws
from tests.conformance.token_front import allow_all_origins, token_front
from tests.support.access import OPERATOR_SECRET
from tests.support.rigs import dynamodb_local_url
from tests.support.servers import running_server, start_api_gateway, stop_at_exit

HERE = Path(__file__).parent
TESTS_WITHOUT_SUBSCRIPTIONS = 332
LONG_POLL_S = "0.5"

#: For the tests that set no limit of their own: vitest's 5 s are short for a hundred requests through two emulations.
TEST_TIMEOUT_MS = 60_000


def assert_suite_passes(url: str) -> None:
    """Every test of the suite that is not about subscriptions passes against the server at the URL."""
    environment = {"FLUVIAL_URL": url, "FLUVIAL_LONG_POLL_TIMEOUT": LONG_POLL_S, "NO_COLOR": "1"}
    ran = subprocess.run(
        ["npx", "vitest", "run", "--reporter=default", f"--testTimeout={TEST_TIMEOUT_MS}"],
        cwd=HERE,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    failed = {name.strip() for name in re.findall(r"^ +\xd7 (.+?)(?: \d+ms)?$", ran.stdout, re.MULTILINE)}
    assert not failed, ran.stdout[-8_000:] + ran.stderr[-2_000:]
    found = re.search(r"Tests +(?:\d+ failed \| )?(\d+) passed", ran.stdout)
    assert found is not None, ran.stdout[-2_000:]
    assert int(found[1]) == TESTS_WITHOUT_SUBSCRIPTIONS


@contextmanager
def environment_of(store: str) -> Iterator[dict[str, str]]:
    """What a server with such a store needs to find in its environment."""
    if store == "dynamodb":
        with local_aws(dynamodb_local_url()) as environment:
            yield environment
    else:
        yield {}


@pytest.mark.slow
@pytest.mark.parametrize("store", ["sqlite", "memory", "dynamodb"])
def test_the_public_suite_passes(store: str, tmp_path: Path) -> None:
    """Over each store."""
    options = ("--store", store, "--long-poll-timeout", LONG_POLL_S)
    with (
        environment_of(store) as environment,
        running_server(tmp_path / "data", *options, **environment) as server,
    ):
        assert_suite_passes(server.url)
        log = server.log
    assert "error" not in log, log


@pytest.mark.slow
def test_the_public_suite_passes_with_projects(tmp_path: Path) -> None:
    """Once something in front adds the project to each path, and a token to each request."""
    with server_client(
        tmp_path, "--long-poll-timeout", LONG_POLL_S, "--sse-max-age", "60", start=running_server
    ) as api:
        allow_all_origins(api)
        with token_front(tmp_path / "front", str(api.http.base_url)) as front:
            assert_suite_passes(front)


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
        with token_front(tmp_path / "front", gateway.url) as front:
            assert_suite_passes(front)


@pytest.mark.slow
def test_the_public_suite_passes_through_lambda(tmp_path: Path) -> None:
    """The live function streams every GET of a stream, and the edge function answers the rest."""
    settings = {"FLUVIAL_LONG_POLL_TIMEOUT": LONG_POLL_S, "FLUVIAL_SSE_MAX_AGE": "1"}
    with (
        environment_of("dynamodb") as environment,
        stop_at_exit(start_api_gateway(tmp_path / "gateway.log", **environment, **settings)) as gateway,
    ):
        assert_suite_passes(gateway.url)
