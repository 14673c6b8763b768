"""A page in a real browser, from another origin than the server's, with the official client and without it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.servers import running_server

HERE = Path(__file__).parent
CHROMIUM = shutil.which("chromium")
TIMEOUT_S = 240

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason="there is no Chromium (Debian: chromium)"),
]


def test_chromium_pages_read_and_write(tmp_path: Path) -> None:
    """Each test of the script passes, over connections that end often."""
    assert CHROMIUM is not None, "there is no Chromium"
    command = ["node", "--test", "--test-force-exit", "--test-reporter=spec", "browser.test.mjs"]
    with running_server(tmp_path / "data", "--sse-max-age", "2", "--long-poll-timeout", "1") as server:
        environment = {**os.environ, "FLUVIAL_URL": server.url, "CHROMIUM": CHROMIUM, "NO_COLOR": "1"}
        ran = subprocess.run(
            command, cwd=HERE, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        log = server.log
    assert ran.returncode == 0, ran.stdout[-8_000:] + ran.stderr[-2_000:]
    assert "fail 0" in ran.stdout, ran.stdout[-2_000:]
    assert "error" not in log, log
