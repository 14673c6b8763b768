"""A server for the commands that talk to one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.verbs import Shell
from tests.support.servers import server_in_thread


@pytest.fixture(scope="module")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An open server with streams in memory."""
    with server_in_thread(tmp_path_factory.mktemp("data"), "--store", "memory") as server:
        yield server.url


@pytest.fixture
def shell(server_url: str, tmp_path: Path) -> Shell:
    """A shell with the server in its environment."""
    return Shell(server_url, tmp_path)
