"""The program, run to its end."""

import logging
import subprocess
import sys

from click.testing import CliRunner

from fluvial.cli.main import main

TIMEOUT_S = 30

#: What click fills of a terminal that is wide enough; its runner would fill all of 80.
WIDTH = 78


def fluvial(*arguments: str, piped: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end: in this process, for starting one takes longer than what most commands do.

    `serve` changes the process that it runs in, so it has one of its own.
    """
    if arguments[0] == "serve" and "--help" not in arguments:
        return fluvial_process(*arguments, piped=piped, **environment)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        runner = CliRunner(env=environment, catch_exceptions=False)
        done = runner.invoke(main, arguments, input=piped, prog_name="python -m fluvial", terminal_width=WIDTH)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def fluvial_process(*arguments: str, piped: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as a user does; with an environment given, it has no other."""
    command = [sys.executable, "-m", "fluvial", *arguments]
    return subprocess.run(
        command, input=piped, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment or None, check=False
    )
