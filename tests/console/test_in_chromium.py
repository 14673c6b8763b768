"""The console in a real browser: everything that people do with it."""

import os
import sys
from pathlib import Path

import pytest

from tests.console.servers import CHROMIUM, console_servers, run_script

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason="there is no Chromium (Debian: chromium)"),
]


def test_console_works_in_chromium(tmp_path: Path) -> None:
    """Each test of the script passes."""
    assert CHROMIUM is not None, "there is no Chromium"
    with console_servers(tmp_path) as environment:
        script = ("--test", "--test-force-exit", "--test-reporter=spec", "console.test.mjs")
        ran = run_script({**environment, "PYTHON": sys.executable}, *script)
    assert ran.returncode == 0, ran.stdout[-12_000:] + ran.stderr[-2_000:]
    assert "fail 0" in ran.stdout, ran.stdout[-2_000:]
