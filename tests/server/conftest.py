from collections.abc import Iterator
from itertools import count

import httpx
import pytest

from tests.support.servers import RunningServer, running_server

numbers = count()


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


@pytest.fixture
def stream(http: httpx.Client) -> str:
    """The path of a text stream that holds `hello`."""
    path = f"/v1/stream/text-{next(numbers)}"
    assert http.put(path, content=b"hello", headers={"Content-Type": "text/plain"}).status_code == 201
    return path
