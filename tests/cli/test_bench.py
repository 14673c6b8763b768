"""`fluvial bench`: what it measures, what it finds, and that it leaves nothing behind."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec
import pytest

from fluvial.model.permissions import Scope
from tests.access.clients import mint_token
from tests.cli.secure_server import BASE_PATH, secure_server
from tests.cli.terminal import on_terminal
from tests.cli.untrue_server import Answers, untrue_server
from tests.cli.verbs import Shell
from tests.support.program import assert_command_failed, assert_usage_error
from tests.support.servers import running_server

SHORT = ("--duration", "1s", "--connections", "2")


@contextmanager
def bench_process(url: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A long load, when its streams are there."""
    command = [sys.executable, "-m", "fluvial", "bench", url, "--duration", "1h", "--connections", "2", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            while not any(stream["bytes"] for stream in listed(url)):
                assert process.poll() is None
            yield process
        finally:
            process.kill()


def listed(url: str) -> list[dict[str, int]]:
    """The streams of a server."""
    found: list[dict[str, int]] = httpx.get(f"{url}/v1/streams?details=true").json()["streams"]
    return found


@pytest.mark.medium
def test_bench_measures_appends_and_finds_each_one(shell: Shell) -> None:
    """In the streams and in live reads. A missed threshold is exit status 1 with one line; no stream is left."""
    options = ("--streams", "2", "--readers", "3", "--size", "200", "--p99-max", "0.001ms", "--rate-min", "100000000")
    ran = shell.run("bench", *SHORT, *options, "-o", "json", "--prefix", "measured/by-bench-")
    assert_command_failed(ran, "p99 is", "above 0.001 ms", "appends/s, below 100,000,000")
    told = msgspec.json.decode(ran.stdout)
    assert told["appends"] == told["readBack"]["lines"] > 0
    assert told["delivered"]["lines"] > told["appends"]  # the first stream has two readers
    for findings in (told["readBack"], told["delivered"]):
        assert not sum(count for kind, count in findings.items() if kind != "lines"), findings
    assert 0 < told["latencyMs"]["p50"] <= told["latencyMs"]["p99"] <= told["latencyMs"]["max"]
    assert told["deliveryMs"]["p50"] > 0
    assert told["failedRequests"] == {}
    assert len(told["failures"]) == 2
    assert shell.output("ls") == ""


@pytest.mark.medium
def test_bench_offers_a_rate(shell: Shell) -> None:
    """Each append that was due was acknowledged, refused or, on a slow machine, not sent in time."""
    ran = shell.run("bench", *SHORT, "--rate", "50", "-o", "json")
    assert ran.returncode == 0, ran.stderr
    told = msgspec.json.decode(ran.stdout)
    assert told["offeredPerSecond"] == 50
    assert told["appends"] + told["unsent"] + sum(told["failedRequests"].values()) == 50
    assert told["appends"] > 0
    assert "offered     50/s  (50 due, " in shell.output("bench", *SHORT, "--rate", "50")


@pytest.mark.medium
def test_bench_works_over_https_below_a_path_and_with_a_token(tmp_path: Path) -> None:
    """The token's project is the beginning of the streams' names."""
    with secure_server(tmp_path, "shop") as server:
        token = mint_token(Scope.WRITE, sub="shop")
        environment = {"SSL_CERT_FILE": server.certificate, "FLUVIAL_TOKEN": token}
        ran = Shell(server.url, tmp_path).output("bench", server.url, *SHORT, **environment)
    assert ran.count("each acknowledged append once and in order") == 2
    assert server.paths
    assert all(path.startswith(f"{BASE_PATH}/v1/stream/shop/bench/") for path in server.paths)


@pytest.mark.medium
def test_bench_finds_lost_appends_and_counts_refusals(tmp_path: Path) -> None:
    """A server that drops every fifth append and refuses every seventh."""
    answers = Answers(keep=lambda number: number % 5 > 0, refuses_append=lambda number: number % 7 == 0)
    with untrue_server(answers) as url:
        ran = Shell(url, tmp_path).run("bench", *SHORT, "--readers", "0")
    assert_command_failed(ran, "what was read back is wrong", "lost")
    assert "(status 429: " in ran.stdout
    assert "delivery" not in ran.stdout
    assert answers.streams == {}


@pytest.mark.medium
def test_bench_that_gets_no_append_through_fails(tmp_path: Path) -> None:
    """All are refused, as by a rate limit."""
    with untrue_server(Answers(refuses_append=lambda _: True)) as url:
        ran = Shell(url, tmp_path).run("bench", *SHORT, "--readers", "0")
    assert_command_failed(ran, "no append was acknowledged")


@pytest.mark.medium
def test_bench_waits_as_long_as_a_refusal_asks(tmp_path: Path) -> None:
    """Each connection is refused once, and waits for a minute, which is longer than the load."""
    with untrue_server(Answers(refuses_append=lambda _: True, retry_after_s=60)) as url:
        ran = Shell(url, tmp_path).run("bench", *SHORT, "--readers", "0")
    assert_command_failed(ran, "no append was acknowledged")
    assert "failed      2 requests  (status 429: 2)" in ran.stdout


@pytest.mark.medium
def test_interrupted_bench_deletes_its_streams(tmp_path: Path) -> None:
    """And ends with 130, with a progress bar on a terminal."""
    with running_server(tmp_path / "data") as server:
        with bench_process(server.url, "--streams", "2") as process:
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=20) == ("", "")
            assert process.returncode == 130
        assert listed(server.url) == []
        with on_terminal("bench", server.url, "--duration", "1h") as bench:
            bench.wait_for(b"appending")
            assert bench.interrupt() == 130
        assert listed(server.url) == []


@pytest.mark.medium
def test_bench_names_streams_that_it_could_not_delete(tmp_path: Path) -> None:
    """The server is killed under it. They expire within days."""
    with running_server(tmp_path / "data") as server, bench_process(server.url) as process:
        [stream] = httpx.get(f"{server.url}/v1/streams?details=true").json()["streams"]
        assert stream["expiresAt"]
        server.kill()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    [line] = errors.splitlines()
    assert line.startswith(f"Not deleted: {stream['name']}, because no answer from {server.url}")


def test_bench_of_no_server_and_with_wrong_options_is_reported_in_one_line(shell: Shell) -> None:
    """Nothing is created."""
    ran = shell.run("bench", "http://127.0.0.1:1", FLUVIAL_URL="")
    assert_command_failed(ran, "no answer from http://127.0.0.1:1")
    assert "Not deleted" not in ran.stderr
    assert_usage_error(shell.run("bench", "--streams", "3", "--connections", "2"), "--streams 3")
    assert_usage_error(shell.run("bench", "http://a", "--url", "http://b"), "URL once")
    assert_usage_error(shell.run("bench", "--p99-max", "fast"), "'fast' is not a duration such as 50ms")
    assert_usage_error(shell.run("bench", "--prefix", "a//"), "empty segment")
