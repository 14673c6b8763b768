"""`fluvial append` that is killed, and servers that are killed under `append` and `tail -f`: every line once."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.ports import free_port
from tests.support.servers import RunningServer, running_server, start_server, stop_at_exit

KILLS = 20
LINE_COUNT = 20_000

#: With --retry-for, because the first kill may come before `append` has reached the server for the first time.
APPEND_OPTIONS = ("--producer", "p", "--close", "--retry-for", "1m")

#: A writer whose lines come in bursts of random sizes, as those of a build do. It takes two seconds, longer than any
#: process lives that is killed.
WRITER = """
import random, sys, time
for number in range(int(sys.argv[1])):
    print("line", number)
    if random.random() < 0.02:
        sys.stdout.flush()
        time.sleep(0.005)
"""


@pytest.mark.slow
def test_producer_in_a_pipe_that_is_killed_twenty_times_appends_every_line_once(tmp_path: Path) -> None:
    """Each time, the same input is piped from its beginning.

    A process is killed at any time from its start on, and some are killed when they have just appended.
    """
    with running_server(tmp_path / "data") as server:
        stream = server.url + "/v1/stream/log"
        httpx.put(stream, headers={"Content-Type": "text/plain"})
        kill_count = 0
        while (status := run_pipe(stream, wait_of(kill_count, stream))) is None:
            kill_count += 1
        assert status == 0
        assert kill_count >= KILLS
        lines = read_all(stream).splitlines()
    assert lines == [f"line {number}" for number in range(LINE_COUNT)]


#: Waits until a process has ended, and returns its exit status, or until it is to be killed.
Wait = Callable[[subprocess.Popen[bytes]], int | None]


def wait_of(kill_count: int, stream: str) -> Wait:
    """The last process runs to its end. On a slow machine none may have appended after a random time."""
    if kill_count == KILLS:
        return subprocess.Popen[bytes].wait
    return partial(wait_for_append, stream) if kill_count % 7 == 0 else wait_for_random_time


def wait_for_append(stream: str, process: subprocess.Popen[bytes]) -> int | None:
    """Wait until something new is in the stream."""
    tail = tail_of(stream)
    while (status := process.poll()) is None and tail_of(stream) == tail:
        time.sleep(0.01)
    return status


def wait_for_random_time(process: subprocess.Popen[bytes]) -> int | None:
    """Wait for less than a process takes."""
    with suppress(subprocess.TimeoutExpired):
        return process.wait(random.uniform(0.2, 1.4))
    return None


def tail_of(stream: str) -> str:
    """The offset behind all that has been appended."""
    return httpx.head(stream).headers["stream-next-offset"]


def run_pipe(stream: str, wait: Wait) -> int | None:
    """The exit status of `append` in a pipe; None when it was killed."""
    with ExitStack() as stack:
        writer = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(LINE_COUNT)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        )
        assert writer.stdout is not None
        append = stack.enter_context(running("append", stream, "--producer", "build", stdin=writer.stdout))
        writer.stdout.close()  # so that the writer ends with its reader
        status = wait(append)
        append.kill()
        writer.kill()
        return status


@contextmanager
def running(
    verb: str, stream: str, *options: str, stdin: int | IO[bytes] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A command for a stream, in a process of its own that does not outlive the block."""
    parts = urlsplit(stream)
    with subprocess.Popen(
        [sys.executable, "-m", "fluvial", verb, parts.path.removeprefix("/v1/stream/"), *options],
        stdin=stdin,
        stdout=subprocess.PIPE,
        env={**os.environ, "FLUVIAL_URL": f"{parts.scheme}://{parts.netloc}", "FLUVIAL_TOKEN": ""},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_all(stream: str) -> str:
    """The whole contents of a stream."""
    text, offset = "", "-1"
    while True:
        answer = httpx.get(stream, params={"offset": offset})
        text, offset = text + answer.text, answer.headers["stream-next-offset"]
        if "stream-up-to-date" in answer.headers:
            return text


@contextmanager
def restartable(folder: Path) -> Iterator[RunningServer]:
    """A server with a port that it has again after a restart."""
    with stop_at_exit(start_server(folder, "--port", str(free_port()))) as server:
        yield server


def restart(server: RunningServer, folder: Path) -> None:
    """Kill a server, and start it with the same data and port."""
    server.kill()
    server.process = start_server(folder, "--port", str(urlsplit(server.url).port)).process


@pytest.mark.slow
def test_tail_and_append_go_on_over_restarts_of_the_server(tmp_path: Path) -> None:
    """No line is left out or doubled, in the stream and in what `tail -f` prints."""
    folder = tmp_path / "data"
    with restartable(folder) as server:
        stream = server.url + "/v1/stream/log"
        httpx.put(stream, content=b"before\n", headers={"Content-Type": "text/plain"})
        with (
            running("tail", stream, "-f") as tail,
            running("append", stream, *APPEND_OPTIONS, stdin=subprocess.PIPE) as append,
        ):
            assert tail.stdout is not None
            assert append.stdin is not None
            assert tail.stdout.readline() == b"before\n"
            for number in range(4):
                append.stdin.write(b"line %d\n" % number)
                append.stdin.flush()
                if number % 2:  # the server is killed while the line is on its way, or after it has come
                    assert tail.stdout.readline() == b"line %d\n" % (number - 1)
                    assert tail.stdout.readline() == b"line %d\n" % number
                restart(server, folder)
            append.stdin.close()
            assert tail.stdout.read() == b""
            assert (append.wait(30), tail.wait(30)) == (0, 0)
        assert read_all(stream) == "before\nline 0\nline 1\nline 2\nline 3\n"
