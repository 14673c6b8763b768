"""`fluvial top`: what a server does, from its public routes."""

from pathlib import Path

import httpx
import msgspec
import pytest

from fluvial import __version__
from tests.access.clients import server_client
from tests.cli.terminal import on_terminal
from tests.cli.untrue_server import Answers, untrue_server
from tests.cli.verbs import Shell
from tests.support.program import assert_command_failed, assert_usage_error
from tests.support.servers import running_server

ONCE = ("--once", "--interval", "100ms")


def test_top_prints_the_server_and_its_streams(shell: Shell) -> None:
    """Those with the prefix; the one that was appended to last comes first."""
    for name in ("top/a", "top/b", "topless"):
        shell.output("create", name)
    shell.output("append", "top/b", "12345")
    server, rates, _, heading, *streams = shell.output("top", *ONCE, "--prefix", "top/").splitlines()
    assert server == f"{shell.url}  fluvial {__version__}  ready"
    assert [word for word in rates.split() if "/s" in word] == ["requests/s", "appends/s", "bytes/s", "commits/s"]
    assert rates.endswith("live reads 0   streams 2")
    assert heading.split() == ["BYTES/S", "SIZE", "LIVE", "READS", "LAST", "APPEND", "NAME"]
    assert [line.split()[-1] for line in streams] == ["top/b", "top/a"]
    assert streams[0].split()[:5] == ["0", "B", "6", "B", "0"]
    [shown] = shell.output("top", shell.url, *ONCE, "--prefix", "top/", "-n", "1").splitlines()[4:]
    assert shown.endswith("top/b")


def test_top_prints_json(shell: Shell) -> None:
    """One object, with all that the table has."""
    shell.output("create", "json/a")
    shell.output("append", "json/a", "12345")
    told = msgspec.json.decode(shell.output("top", "-o", "json", "--interval", "100ms", "--prefix", "json/"))
    assert (told["version"], told["state"], told["liveReads"]) == (__version__, "ready", 0)
    assert (told["requestsPerSecond"], told["bytesPerSecond"], told["missing"]) == (0, 0, [])
    [stream] = told["streams"]
    assert (stream["name"], stream["bytes"], stream["bytesPerSecond"]) == ("json/a", 6, 0)
    assert stream["lastAppendAt"]


def test_top_shows_streams_although_other_routes_are_refused(tmp_path: Path) -> None:
    """As by a proxy that hides them. Each one is named."""
    refused = frozenset({"/health", "/ready", "/metrics"})
    with untrue_server(Answers(refused_paths=refused)) as url:
        ran = Shell(url, tmp_path).output("top", *ONCE)
    assert "requests/s -   appends/s -   bytes/s 0 B   commits/s -   live reads -   streams 1" in ran
    assert "/metrics: Forbidden (403)" in ran
    assert ran.splitlines()[-1].split() == ["0", "B", "7", "B", "0", "-", "a"]


@pytest.mark.medium
def test_top_shows_the_server_although_the_list_of_streams_is_refused(tmp_path: Path) -> None:
    """A server with projects lists streams to tokens."""
    with server_client(tmp_path) as api:
        ran = Shell(str(api.http.base_url), tmp_path).output("top", *ONCE)
    assert f"fluvial {__version__}  ready" in ran
    assert "streams: " in ran
    assert "(unauthenticated)" in ran


def test_top_of_another_kind_of_server_fails(tmp_path: Path) -> None:
    """So does one without an answer, and a wrong option."""
    with untrue_server(Answers(refused_paths=frozenset({"/health", "/ready", "/metrics", "/v1/streams"}))) as url:
        shell = Shell(url, tmp_path)
        assert_command_failed(shell.run("top", *ONCE), "tells nothing: /health: Forbidden (403)", "streams: ")
    assert_command_failed(shell.run("top", *ONCE), "no answer from")
    assert_usage_error(shell.run("top", "--interval", "50ms"), "'50ms' is less than 100ms")


@pytest.mark.medium
def test_top_on_a_terminal_goes_on_while_the_server_is_away(tmp_path: Path) -> None:
    """Until Ctrl-C, with exit status 130."""
    with running_server(tmp_path / "data") as server:
        httpx.put(f"{server.url}/v1/stream/watched", headers={"Content-Type": "text/plain"})
        with on_terminal("top", server.url, "--interval", "100ms") as top:
            top.wait_for(b"watched")
            httpx.put(f"{server.url}/v1/stream/later", headers={"Content-Type": "text/plain"})
            top.wait_for(b"later")
            server.kill()
            top.wait_for(b"Connection refused; trying again")
            top.wait_for(b"Connection refused; trying again")
            assert top.interrupt() == 130
