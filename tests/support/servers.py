"""Real servers: the program as a user starts it, in a process of its own."""

import asyncio
import gc
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Protocol

import uvloop

from fluvial.serve import serve
from fluvial.settings import ENVIRONMENT_PREFIX, Settings, settings_from

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


class Started(Protocol):
    """A server that has announced its URL, wherever it runs."""

    @property
    def url(self) -> str:
        """Where it listens, without a path."""
        ...


class StartServer(Protocol):
    """`running_server` or `server_here`."""

    def __call__(self, folder: Path, *options: str, **environment: str) -> AbstractContextManager[Started]:
        """A server that is gone at the end of the block."""
        ...


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


class _Loop(uvloop.Loop):
    """A loop off the main thread, where no signal comes: what would handle one can be called."""

    def __init__(self) -> None:
        super().__init__()
        self.handlers = dict[int, Callable[[], object]]()

    def add_signal_handler(self, number: int, handler: Callable[[], object], *_arguments: object) -> None:
        """Keep it for `server_here`."""
        self.handlers[number] = handler

    def remove_signal_handler(self, number: int) -> bool:
        """Forget it."""
        return self.handlers.pop(number, None) is not None


@dataclass(frozen=True)
class ServerHere:
    """A server in this process."""

    url: str


@contextmanager
def server_here(folder: Path, *options: str, **environment: str) -> Iterator[ServerHere]:
    """The same server in a thread of this process, for tests that need many: a process takes most of a second."""
    values = {name.removeprefix(ENVIRONMENT_PREFIX).lower(): value for name, value in environment.items()}
    values |= {"port": "0", "data_dir": str(folder)}
    pairs = zip(options[::2], options[1::2], strict=True)
    values |= {name.removeprefix("--").replace("-", "_"): value for name, value in pairs}
    settings = settings_from({name: value for name, value in values.items() if name in Settings.__struct_fields__})
    loop, url, thresholds = _Loop(), Future[str](), gc.get_threshold()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            try:
                runner.run(serve(settings, url.set_result))
            except BaseException as exc:
                if url.done():
                    raise
                url.set_exception(exc)

    thread = Thread(target=run, name="server")
    thread.start()
    try:
        yield ServerHere(url.result(START_TIMEOUT_S))
    finally:
        # What a server process does to its collector is not meant for this one.
        gc.unfreeze()
        gc.set_threshold(*thresholds)
        stop = loop.handlers.get(signal.SIGTERM)
        if stop is not None:
            loop.call_soon_threadsafe(stop)
        thread.join(START_TIMEOUT_S)
        assert not thread.is_alive()
