"""Run a command of the program to its end, and check how it ended."""

import logging
import os
import subprocess
import sys

from click.testing import CliRunner

from fluvial.cli.main import main

TIMEOUT_S = 30

#: The width of a wide terminal's help text in click; its runner would use 80.
WIDTH = 78


def fluvial(*arguments: str, piped: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, because starting a process takes longer than most commands.

    `serve` runs in a process of its own, because it changes the process. `environment` adds to this process's.
    """
    if arguments[:1] == ("serve",):
        return fluvial_process(*arguments, piped=piped, **environment)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        runner = CliRunner(env=environment, catch_exceptions=False)
        done = runner.invoke(main, arguments, input=piped, prog_name="fluvial", terminal_width=WIDTH)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def fluvial_process(*arguments: str, piped: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, as a user does. `environment` adds to this process's."""
    command = [sys.executable, "-m", "fluvial", *arguments]
    return subprocess.run(
        command,
        input=piped,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={**os.environ, **environment},
        check=False,
    )


def assert_usage_error(ran: subprocess.CompletedProcess[str], *words: str) -> None:
    """Assert exit status 2, and one line of error with these words in it."""
    assert_failure(ran, 2, *words)


def assert_command_failed(ran: subprocess.CompletedProcess[str], *words: str) -> None:
    """Assert exit status 1, and one line of error with these words in it."""
    assert_failure(ran, 1, *words)


def assert_failure(ran: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    """Assert an exit status, and one line of error with these words in it."""
    assert ran.returncode == status, ran
    [line] = [line for line in ran.stderr.splitlines() if line.startswith("Error:")]
    assert "Traceback" not in ran.stderr
    for word in words:
        assert word in line
