"""`make serve-aws`: it prints how to reach its servers, binds them to loopback, stops them, and passes `make smoke`."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.processes import stop_process
from tests.support.program import fluvial
from tests.support.servers import BANNER

EXPORT = re.compile(r"export (\w+)=(.*)\n")
LONG_POLL_S = "3"
STACK_CHECKS = {
    "append function",
    "publish function",
    "publication by SQS",
    "publication by SNS",
    "by EventBridge",
}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_aws_prints_its_endpoints_and_stops_them_on_a_signal(number: signal.Signals) -> None:
    """Other commands find the table by the printed variables; the signal may interrupt any thread of the program."""
    with serve_aws("--port", "0") as (process, url, variables):
        urls = [url, variables["FLUVIAL_ENDPOINT_URL"], variables["FLUVIAL_S3_ENDPOINT_URL"]]
        made = fluvial("project", "create", "shop", **variables)
        assert made.returncode == 0, made.stderr
        assert httpx.get(url + "/v1/streams").status_code in {200, 401}
        verified = fluvial("verify", **variables)
        assert (verified.returncode, verified.stderr) == (0, ""), verified
        assert "1 projects checked" in verified.stdout
        for listening in urls:
            assert listeners_at(urlsplit(listening).port or 0) <= {"127.0.0.1"}
        os.kill(another_thread(process.pid), number)
        assert process.wait(30) == 0
    for stopped in urls:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", urlsplit(stopped).port or 0))


def another_thread(pid: int) -> int:
    """The id of a thread of a process that is not its main one; that of the process where /proc does not exist.

    A signal that is sent to it reaches the whole process, but the kernel prefers to interrupt this thread.
    """
    tasks = Path(f"/proc/{pid}/task")
    others = [int(task.name) for task in tasks.iterdir() if task.name != str(pid)] if tasks.exists() else []
    return others[0] if others else pid


def listeners_at(port: int) -> set[str]:
    """The local addresses that listen on a port, from /proc (empty where that does not exist)."""
    found = set[str]()
    for file, family in ((Path("/proc/net/tcp"), socket.AF_INET), (Path("/proc/net/tcp6"), socket.AF_INET6)):
        for line in file.read_text().splitlines()[1:] if file.exists() else ():
            _, local, _, state, *_ = line.split()
            address, _, hexadecimal = local.partition(":")
            if state == "0A" and int(hexadecimal, 16) == port:
                words = [bytes.fromhex(address[start : start + 8])[::-1] for start in range(0, len(address), 8)]
                found.add(socket.inet_ntop(family, b"".join(words)).removeprefix("::ffff:"))
    return found


@contextmanager
def serve_aws(*options: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str, dict[str, str]]]:
    """`make serve-aws` with these options: its process, its URL, and the variables that it prints."""
    command = [sys.executable, "-m", "tests.aws_local", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}) as process:
        assert process.stdout is not None
        variables, found = dict[str, str](), None
        for line in process.stdout:
            if exported := EXPORT.fullmatch(line):
                [variables[exported[1]]] = shlex.split(exported[2])
            elif found := BANNER.search(line):
                break
        try:
            assert found is not None
            yield process, found[1], variables
        finally:
            stop_process(process, 60)  # that it ends in time is another test's


def smoke(*options: str, **environment: str) -> tuple[int, dict[str, str], str]:
    """Run `make smoke`: its exit status, the verdict of each check, and what it printed."""
    command = [sys.executable, "-m", "tools.smoke", "--long-poll", LONG_POLL_S, "--first-event", "20", *options]
    environment = {**os.environ, "TOKEN": "", **environment}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    found = re.findall(r"^(\S+) +[\d.]+ s  (.{1,24})", ran.stdout, re.MULTILINE)
    return ran.returncode, {name.strip(): verdict for verdict, name in found}, ran.stdout + ran.stderr


@pytest.mark.slow
def test_smoke_passes_against_serve_aws() -> None:
    """One server over DynamoDB and S3 has no stack: what needs one is skipped."""
    with serve_aws("--port", "0", "--long-poll-timeout", LONG_POLL_S) as (_, url, _):
        status, verdicts, output = smoke("--url", url)
    assert status == 0, output
    assert {name for name, verdict in verdicts.items() if verdict == "skip"} == {
        "429 of a burst",
        "429 of a project",
        "browsers (CORS)",
        *STACK_CHECKS,
    }, output


@pytest.mark.slow
@pytest.mark.skipif("CI" in os.environ, reason="it takes some 35 s of processor time")
def test_smoke_passes_against_the_whole_stack_on_one_machine() -> None:
    """With nothing but the stack's name: its outputs have the URLs, and the secret of operators' tokens."""
    settings = {"FLUVIAL_LONG_POLL_TIMEOUT": LONG_POLL_S, "RequestsPerSecond": "20", "RequestsAtOnce": "100"}
    with serve_aws("--functions", **settings) as (_, _, variables):
        status, verdicts, output = smoke("--stack", variables["STACK"], "--burst", "200", **variables)
    assert status == 0, output
    assert set(verdicts.values()) == {"ok"}, output
    assert verdicts.keys() >= {"304", "204 of a long-poll", "event stream", "429 of a burst", "websocket"}
    assert verdicts.keys() >= STACK_CHECKS
