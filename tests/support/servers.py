"""Real servers: the program as a user starts it, in a process of its own."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

BANNER = re.compile(r"serves (http://\S+)/v1/stream/")
START_TIMEOUT_S = 20


@dataclass
class RunningServer:
    """A server that has announced its URL."""

    process: subprocess.Popen[str]
    url: str
    log_file: Path

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self.log_file.read_text()

    def terminate(self, timeout_s: float = 15) -> int:
        """Send SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """Send SIGKILL: nothing is finished, nothing is said; it may have ended already."""
        self.process.kill()
        self.process.wait(START_TIMEOUT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


def start_server(folder: Path, *options: str, **environment: str) -> RunningServer:
    """`fluvial serve` on a free port, with its data in the folder; waits for the banner."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["-m", "fluvial", "serve", "--port", "0", "--data-dir", str(folder), *options]
    return start_python(command, folder.with_suffix(".log"), environment)


def start_api_gateway(log_file: Path, **environment: str) -> RunningServer:
    """The edge function behind a gateway on this machine."""
    return start_python(["-m", "tests.aws_local.api_gateway"], log_file, environment)


def start_python(arguments: list[str], log_file: Path, environment: Mapping[str, str]) -> RunningServer:
    """A Python program that announces a URL as the server does; waits for that."""
    command = [sys.executable, *arguments]
    with log_file.open("a") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **environment}
        )
    assert process.stdout is not None
    found = BANNER.search(process.stdout.readline())
    if found is None:
        process.kill()
        process.wait()
        raise AssertionError(f"the server did not start: {log_file.read_text()}")
    return RunningServer(process, found[1], log_file)


@contextmanager
def running_server(folder: Path, *options: str, **environment: str) -> Iterator[RunningServer]:
    """A server that is gone at the end of the block, whatever happens in it; it gets the chance to end by itself."""
    with ending(start_server(folder, *options, **environment)) as server:
        yield server


@contextmanager
def ending(server: RunningServer) -> Iterator[RunningServer]:
    """A server that is gone at the end of the block."""
    try:
        yield server
    finally:
        with suppress(subprocess.TimeoutExpired):
            server.terminate()
        server.kill()
