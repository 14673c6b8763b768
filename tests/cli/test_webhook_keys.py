"""The commands `fluvial webhook-key`, partly beside a running server."""

import time
from pathlib import Path

import httpx
import pytest

from fluvial.model.limits import WEBHOOK_KEYS_MAX
from tests.support.folders import create_data_folder
from tests.support.program import assert_command_failed, assert_usage_error, fluvial
from tests.support.servers import running_server

#: Five seconds, and time for a busy machine.
NOTICES_WITHIN_S = 30


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A data folder, as a stopped server leaves it."""
    create_data_folder(tmp_path / "data")
    return str(tmp_path / "data")


def ran(*arguments: str) -> str:
    """The standard output of a command, which must succeed."""
    done = fluvial("webhook-key", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_keys_are_listed_with_their_use(folder: str) -> None:
    """The first rotation makes the first key, too."""
    assert ran("list", "--data-dir", folder) == ""
    new = ran("rotate", "--data-dir", folder)
    next_line, first_line = ran("list", "--data-dir", folder).splitlines()
    assert next_line.startswith(f"{new}  signs from ")
    assert "  signs since " in first_line
    assert ", published until " in first_line


def test_compromised_keys_are_forgotten(folder: str) -> None:
    """The new one is alone."""
    ran("rotate", "--data-dir", folder)
    new = ran("rotate", "--compromised", "--data-dir", folder)
    [line] = ran("list", "--data-dir", folder).splitlines()
    assert line.startswith(f"{new}  signs since ")


def test_rotation_is_refused_while_many_keys_are_published(folder: str) -> None:
    """The message says until when."""
    for _ in range(WEBHOOK_KEYS_MAX - 1):
        ran("rotate", "--data-dir", folder)
    refused = fluvial("webhook-key", "rotate", "--data-dir", folder)
    assert_command_failed(refused, "rotate again after 20")


def test_store_that_others_cannot_open_has_no_keys_for_the_command_line(tmp_path: Path) -> None:
    """Memory is one process's, and a folder that is not there has no keys."""
    assert_usage_error(fluvial("webhook-key", "list", "--store", "memory"), "--store memory keeps no keys")
    assert_usage_error(fluvial("webhook-key", "list", "--data-dir", str(tmp_path / "none")), "no fluvial data")


@pytest.mark.medium
def test_running_server_notices_a_rotation(folder: str) -> None:
    """Its key set has the new key within seconds."""
    with running_server(Path(folder)) as server:
        url = f"{server.url}/v1/stream/__ds/jwks.json"
        [first] = httpx.get(url).json()["keys"]
        new = ran("rotate", "--data-dir", folder)
        began, kids = time.monotonic(), [first["kid"]]
        while new not in kids:
            assert time.monotonic() - began < NOTICES_WITHIN_S
            kids = [key["kid"] for key in httpx.get(url).json()["keys"]]
        assert kids == [new, first["kid"]]
