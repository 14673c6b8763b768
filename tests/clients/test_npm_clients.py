"""The npm packages that people have, run against the server as a user starts it: what they promise, they do."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.support.servers import running_server

#: They wait for connections to end and come back. In one process, because the fixture starts all of them.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("npm clients")]

HERE = Path(__file__).parent
SCRIPTS = ["client", "state", "yjs", "aisdk", "tanstack", "eventsource"]
TIMEOUT_S = 240

#: Connections end often, so that each script sees its readers come back; not under a second, which clients take for a
#: proxy that lets no event stream through.
OPTIONS = ("--sse-max-age", "2", "--long-poll-timeout", "1")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Every script under way, all at once because they mostly wait."""
    with running_server(tmp_path_factory.mktemp("clients") / "data", *OPTIONS) as server, ExitStack() as stack:
        environment = {**os.environ, "FLUVIAL_URL": server.url, "NO_COLOR": "1"}
        started = {}
        for script in SCRIPTS:
            command = ["node", "--test", "--test-force-exit", "--test-reporter=spec", f"{script}.test.mjs"]
            process = subprocess.Popen(
                command,
                cwd=HERE,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            started[script] = stack.enter_context(process)
            stack.callback(kill_group, process)
        yield started
        assert "error" not in server.log, server.log


def kill_group(process: subprocess.Popen[str]) -> None:
    """Kill a process and those that it has started: node runs each file in a process of its own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("script", SCRIPTS)
def test_npm_client_works_with_the_server(script: str, runs: dict[str, subprocess.Popen[str]]) -> None:
    """Each test of its script passes."""
    output, _ = runs[script].communicate(timeout=TIMEOUT_S)
    assert runs[script].returncode == 0, output[-8_000:]
    assert "fail 0" in output, output[-2_000:]
