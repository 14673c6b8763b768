"""Start real servers: the program in a process of its own, or the server in a thread of this process."""

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
    """A server process that has announced its URL."""

    process: subprocess.Popen[str]
    url: str
    log_file: Path

    @property
    def log(self) -> str:
        """Its log so far."""
        return self.log_file.read_text()

    def terminate(self, timeout_s: float = 15) -> int:
        """Send SIGTERM, and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """Send SIGKILL, which may be after the process has ended."""
        self.process.kill()
        self.process.wait(START_TIMEOUT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


def start_server(folder: Path, *options: str, **environment: str) -> RunningServer:
    """Start `fluvial serve` on a free port with its data in the folder, and wait for the banner."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["-m", "fluvial", "serve", "--port", "0", "--data-dir", str(folder), *options]
    return start_python(command, folder.with_suffix(".log"), environment)


def start_api_gateway(log_file: Path, **environment: str) -> RunningServer:
    """Start the edge function behind a local API gateway, and wait for its URL."""
    return start_python(["-m", "tests.aws_local.api_gateway"], log_file, environment)


def start_python(arguments: list[str], log_file: Path, environment: Mapping[str, str]) -> RunningServer:
    """Start a Python program that announces its URL as the server does, and wait for the URL."""
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


class Server(Protocol):
    """A server that accepts connections, in any process."""

    @property
    def url(self) -> str:
        """The URL that it listens at, without a path."""
        ...


class StartServer(Protocol):
    """A function such as `running_server` or `server_in_thread`."""

    def __call__(self, folder: Path, *options: str, **environment: str) -> AbstractContextManager[Server]:
        """A server that is stopped at the end of the block."""
        ...


@contextmanager
def running_server(folder: Path, *options: str, **environment: str) -> Iterator[RunningServer]:
    """A server process that is stopped at the end of the block."""
    with stop_at_exit(start_server(folder, *options, **environment)) as server:
        yield server


@contextmanager
def stop_at_exit(server: RunningServer) -> Iterator[RunningServer]:
    """Stop a server process at the end of the block: gracefully if possible, otherwise by force."""
    try:
        yield server
    finally:
        with suppress(subprocess.TimeoutExpired):
            server.terminate()
        server.kill()


class _ThreadLoop(uvloop.Loop):
    """An event loop outside the main thread, where signals cannot be handled. Its handlers can be called instead."""

    def __init__(self) -> None:
        super().__init__()
        self.handlers = dict[int, Callable[[], object]]()

    def add_signal_handler(self, number: int, handler: Callable[[], object], *_arguments: object) -> None:
        """Keep the handler for `server_in_thread`."""
        self.handlers[number] = handler

    def remove_signal_handler(self, number: int) -> bool:
        """Forget the handler."""
        return self.handlers.pop(number, None) is not None


@dataclass(frozen=True)
class ThreadServer:
    """A server in a thread of this process."""

    url: str


@contextmanager
def server_in_thread(folder: Path, *options: str, **environment: str) -> Iterator[ThreadServer]:
    """The server in a thread of this process, for tests that need many: starting a process takes most of a second."""
    values = {name.removeprefix(ENVIRONMENT_PREFIX).lower(): value for name, value in environment.items()}
    values |= {"port": "0", "data_dir": str(folder)}
    pairs = zip(options[::2], options[1::2], strict=True)
    values |= {name.removeprefix("--").replace("-", "_"): value for name, value in pairs}
    settings = settings_from({name: value for name, value in values.items() if name in Settings.__struct_fields__})
    loop, url, thresholds = _ThreadLoop(), Future[str](), gc.get_threshold()

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
        yield ThreadServer(url.result(START_TIMEOUT_S))
    finally:
        # Undo what the server has done to the garbage collector of its process.
        gc.unfreeze()
        gc.set_threshold(*thresholds)
        stop = loop.handlers.get(signal.SIGTERM)
        if stop is not None:
            loop.call_soon_threadsafe(stop)
        thread.join(START_TIMEOUT_S)
        assert not thread.is_alive()
