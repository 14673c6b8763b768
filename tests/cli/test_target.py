"""Which server and token a command uses, and what it says when that is wrong."""

import stat
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest

from fluvial.cli.context_file import Contexts, ServerContext
from fluvial.cli.options import UsageError
from fluvial.cli.target import DEFAULT_URL, Target, find_target
from tests.cli.verbs import Shell
from tests.support.program import assert_command_failed, assert_usage_error
from tests.support.servers import server_in_thread

KEPT = Contexts({"work": ServerContext("http://work", "kept"), "home": ServerContext("http://home")}, "work")
AUTH = "STREAM_AUTH", "Basic abc"


@pytest.mark.parametrize(
    ("options", "environment", "target"),
    [
        ({}, {}, Target("http://work", "Bearer kept")),
        ({"url": "http://a"}, {}, Target("http://a")),
        ({"context": "home"}, {}, Target("http://home")),
        ({"token": "t"}, {"FLUVIAL_TOKEN": "other"}, Target("http://work", "Bearer t")),
        ({}, {"FLUVIAL_URL": "http://e", "FLUVIAL_TOKEN": "t"}, Target("http://e", "Bearer t")),
        ({}, {"FLUVIAL_CONTEXT": "home"}, Target("http://home")),
        ({}, dict([AUTH, ("STREAM_URL", "http://o")]), Target("http://o", "Basic abc")),
        ({}, dict([AUTH, ("STREAM_URL", "http://o"), ("FLUVIAL_URL", "http://e")]), Target("http://e", "Basic abc")),
        ({"context": "work"}, {"FLUVIAL_URL": "http://e", "FLUVIAL_TOKEN": "e"}, Target("http://work", "Bearer kept")),
    ],
)
def test_target_is_chosen(options: dict[str, str], environment: dict[str, str], target: Target) -> None:
    """Options come before the environment, and that before the current context. A context's token is for its URL."""
    assert find_target(options, environment, lambda: KEPT) == target


def test_target_without_settings_is_this_machine() -> None:
    """No context is kept."""
    assert find_target({}, {}, Contexts) == Target(DEFAULT_URL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context": "none"}, "no context none"),
        ({"url": "http://a", "context": "work"}, "exclude"),
        ({"token": "a\nb"}, "characters"),
    ],
)
def test_wrong_target_is_refused(options: dict[str, str], message: str) -> None:
    """Before a request is made."""
    with pytest.raises(UsageError, match=message):
        find_target(options, {}, lambda: KEPT)


def test_contexts_are_kept_in_a_private_file(shell: Shell) -> None:
    """The first one becomes the current one, and no token is printed."""
    shell.output("context", "add", "one", "--url", shell.url, "--token-stdin", piped="secret-token\n")
    shell.output("context", "add", "two", "--url", "http://127.0.0.1:1")
    path = shell.folder / "fluvial" / "contexts.json"
    assert [stat.S_IMODE(one.stat().st_mode) for one in (path, path.parent)] == [0o600, 0o700]
    listed = shell.output("context", "ls")
    assert [line.split()[:2] for line in listed.splitlines()] == [["*", "one"], ["two", "http://127.0.0.1:1"]]
    assert "secret-token" not in listed + shell.output("context", "show")
    assert shell.run("ls", FLUVIAL_URL="").returncode == 0
    shell.output("context", "use", "two")
    assert_command_failed(shell.run("ls", FLUVIAL_URL=""), "http://127.0.0.1:1")
    shell.output("context", "rm", "two")
    assert "two" not in shell.output("context", "ls")
    assert_usage_error(shell.run("context", "use", "two"), "no context two")
    assert_usage_error(shell.run("context", "add", "x", "--url", "nonsense"), "not the URL of a server")


def test_damaged_context_file_is_reported_in_one_line(shell: Shell) -> None:
    """With its name."""
    (shell.folder / "fluvial").mkdir()
    (shell.folder / "fluvial" / "contexts.json").write_text("{")
    assert_command_failed(shell.run("ls", FLUVIAL_URL=""), "contexts.json is damaged")


def test_unreachable_server_is_reported_with_its_url(shell: Shell) -> None:
    """And with the settings that name another one."""
    ran = shell.run("ls", "--url", "http://127.0.0.1:1")
    assert_command_failed(ran, "http://127.0.0.1:1", "Connection refused", "--url, FLUVIAL_URL or a context")
    assert_usage_error(shell.run("ls", "--url", "127.0.0.1:1"), "not the URL of a server")


def test_refused_token_is_reported_with_the_settings_for_it(tmp_path: Path) -> None:
    """A server with projects wants a token for everything."""
    with server_in_thread(tmp_path / "data", "--access", "projects") as server:
        shell = Shell(server.url, tmp_path)
        assert_command_failed(shell.run("ls"), "unauthenticated", "FLUVIAL_TOKEN")
        assert_command_failed(shell.run("read", "other/a"), "unauthenticated", "FLUVIAL_TOKEN")
        for command in (("ls",), ("read", "other/a"), ("append", "other/a", "x"), ("info", "other/a")):
            assert_command_failed(shell.run(*command, "--token", "a.b.c"), "invalid_token", "FLUVIAL_TOKEN")
        shell.output("project", "create", "shop", "--data-dir", str(tmp_path / "data"))
        minted = shell.output("token", "mint", "shop", "--expires-in", "24h", "--data-dir", str(tmp_path / "data"))
        reader = minted.strip()
        assert_command_failed(shell.run("create", "shop/a", FLUVIAL_TOKEN=reader), "forbidden", "FLUVIAL_TOKEN")
        assert_command_failed(shell.run("create", "a", FLUVIAL_TOKEN=reader), "the project that the path begins with")
        assert shell.output("ls", STREAM_AUTH=f"Bearer {reader}") == ""


class LosingServer(BaseHTTPRequestHandler):
    """Answers HEAD, and closes the connection in place of an answer to POST."""

    appends: ClassVar[list[bytes]] = []

    def do_HEAD(self) -> None:
        """A stream of text."""
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Stream-Next-Offset", "0")
        self.end_headers()

    def do_POST(self) -> None:
        """Take the append."""
        self.appends.append(self.rfile.read(int(self.headers["Content-Length"])))

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def test_append_whose_answer_was_lost_is_not_repeated(tmp_path: Path) -> None:
    """The error says which lines are in doubt, and what would make a repeat safe."""
    with HTTPServer(("127.0.0.1", 0), LosingServer) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            shell = Shell(f"http://127.0.0.1:{server.server_port}", tmp_path)
            ran = shell.run("append", "a", "one", "two", "--retry-for", "10s")
        finally:
            server.shutdown()
            thread.join()
    assert_command_failed(ran, "Lines 1 to 2 may have been appended or not", "--producer")
    assert LosingServer.appends == [b"one\ntwo\n"]
