"""The public server suite, against the server as a user starts it."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.servers import running_server

HERE = Path(__file__).parent
TESTS_WITHOUT_SUBSCRIPTIONS = 332


@pytest.mark.slow
@pytest.mark.parametrize("store", ["sqlite", "memory"])
def test_the_public_suite_passes(store: str, tmp_path: Path) -> None:
    """Every test of the suite that is not about subscriptions passes."""
    with running_server(tmp_path / "data", "--store", store, "--long-poll-timeout", "0.5") as server:
        ran = subprocess.run(
            ["npx", "vitest", "run", "--reporter=default"],
            cwd=HERE,
            env={
                **os.environ,
                "FLUVIAL_URL": server.url,
                "FLUVIAL_LONG_POLL_TIMEOUT": "0.5",
                "NO_COLOR": "1",
            },
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        log = server.log
    assert ran.returncode == 0, ran.stdout[-8_000:] + ran.stderr[-2_000:]
    found = re.search(r"Tests +(\d+) passed", ran.stdout)
    assert found is not None, ran.stdout[-2_000:]
    assert int(found[1]) == TESTS_WITHOUT_SUBSCRIPTIONS
    assert "error" not in log, log
