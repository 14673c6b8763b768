from collections.abc import Iterator

import httpx
import pytest

from tests.support.servers import RunningServer, running_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server for a module's tests; its log must stay free of errors."""
    folder = tmp_path_factory.mktemp("server") / "data"
    with running_server(
        folder, "--long-poll-timeout", "0.5", "--sse-max-age", "2", "--max-body", "20000000"
    ) as running:
        yield running
        assert "[error" not in running.log, running.log


@pytest.fixture
def http(server: RunningServer) -> Iterator[httpx.Client]:
    """A client of the server."""
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client
