"""`make load`: what cannot be is said before the first load begins, and its token is in no list of processes."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def make_load(*variables: str, is_run: bool) -> subprocess.CompletedProcess[str]:
    """Run `make load` without installing anything, or have it print its commands."""
    options = ("-o", "install") if is_run else ("-o", "install", "--dry-run")
    command = ["make", "--no-print-directory", *options, "load", "URL=http://127.0.0.1:1", *variables]
    environment = {"PATH": os.environ["PATH"], "TOKEN": "secret"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        (["STREAMS=3", "WRITERS=2"], "STREAMS=3 needs as many WRITERS, not 2"),
        (["STREAMS=65", "RATE=500"], "STREAMS=65 with RATE needs as many RATE_WRITERS, not 64"),
    ],
)
def test_load_with_more_streams_than_writers_is_refused_at_once(variables: list[str], reason: str) -> None:
    """Not after the first of two loads."""
    ran = make_load(*variables, is_run=True)
    assert ran.returncode != 0
    assert ran.stderr.splitlines()[0] == reason
    assert ran.stdout == ""


def test_each_stream_of_a_load_has_a_writer_and_no_command_has_the_token() -> None:
    """The second load is at a rate, over connections of its own number."""
    printed = make_load("STREAMS=3", "RATE=500", is_run=False).stdout
    paced, at_rate = (line for line in printed.splitlines() if "fluvial bench" in line)
    assert paced.endswith("--streams 3 --readers 1 --duration 30s --connections 3")
    assert at_rate.endswith("--streams 3 --readers 1 --duration 30s --rate 500 --connections 64")
    assert "secret" not in printed
