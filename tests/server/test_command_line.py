"""The program as its user meets it: options, banner, messages and exit statuses."""

import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import click
import httpx
import msgspec
import pytest

from fluvial.cli import main
from fluvial.core.errors import StartupRefused
from fluvial.settings import ENVIRONMENT_PREFIX, LogLevel, Settings, settings_from
from tests.support.raw_http import connect, request_bytes
from tests.support.servers import RunningServer, running_server

TEXT = {"Content-Type": "text/plain"}
ROOT = Path(__file__).parents[2]


def fluvial(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    command = [sys.executable, "-m", "fluvial", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment or None, check=False)


def assert_refused(ran: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit status 2 and one clear line, with these words in it."""
    assert ran.returncode == 2, ran
    [line] = [line for line in ran.stderr.splitlines() if line.startswith("Error:")]
    assert "Traceback" not in ran.stderr
    for word in words:
        assert word in line


def command_paths(command: click.Command) -> Iterator[tuple[str, ...]]:
    """Each command that does something, by the words that call it."""
    if not isinstance(command, click.Group):
        yield ()
        return
    for name, child in command.commands.items():
        for path in command_paths(child):
            yield (name, *path)


def test_help_tells_every_option_and_its_variable() -> None:
    """And docs/cli.md has the same text."""
    ran = fluvial("serve", "--help", COLUMNS="100", PATH="")
    assert ran.returncode == 0
    for field in msgspec.structs.fields(Settings):
        assert f"--{field.name.replace('_', '-')}" in ran.stdout
        assert f"{ENVIRONMENT_PREFIX}{field.name.upper()}" in ran.stdout


def test_the_manual_has_what_each_command_says_of_itself() -> None:
    """docs/cli.md, word for word."""
    manual = (ROOT / "docs" / "cli.md").read_text()
    for path in command_paths(main):
        ran = fluvial(*path, "--help", COLUMNS="100", PATH="")
        assert ran.stdout.strip() in manual, path


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    """And the data folder is left alone."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ran = fluvial("serve", "--port", port, "--data-dir", str(tmp_path / "data"))
    assert_refused(ran, port, "in use")


def test_a_locked_folder_is_one_clear_line(tmp_path: Path) -> None:
    """It names the process that has it, and that process goes on."""
    with running_server(tmp_path / "data") as server:
        ran = fluvial("serve", "--port", "0", "--data-dir", str(tmp_path / "data"))
        assert_refused(ran, str(tmp_path / "data"), f"process {server.process.pid}")
        assert httpx.get(server.url + "/health").status_code == 200


def test_a_folder_that_cannot_be_is_one_clear_line(tmp_path: Path) -> None:
    """A file in its place, say."""
    (tmp_path / "file").write_text("")
    assert_refused(fluvial("serve", "--port", "0", "--data-dir", str(tmp_path / "file")), "data folder")


def test_a_folder_whose_data_cannot_be_opened_is_one_clear_line(tmp_path: Path) -> None:
    """Whatever stands in the way, and without keeping the folder's lock."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "segments").write_text("")
    for _ in range(2):
        ran = fluvial("serve", "--port", "0", "--data-dir", str(tmp_path / "data"))
        assert_refused(ran, "segments")


def test_only_a_shared_store_can_be_served_for_reads_alone(tmp_path: Path) -> None:
    """Nobody else could write to a folder that this process has locked."""
    assert_refused(fluvial("serve", "--read-only", "--data-dir", str(tmp_path)), "--read-only", "dynamodb")


def test_a_sweep_of_what_is_not_there_is_one_clear_line() -> None:
    """Before anything is looked at."""
    endpoint = ("--endpoint-url", "http://127.0.0.1:1", "--region", "eu-central-1")
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    ran = fluvial("sweep", *endpoint, PATH="", **keys)
    assert_refused(ran, "table fluvial cannot be read")


def test_data_of_a_newer_version_is_one_clear_line(tmp_path: Path) -> None:
    """Nothing is written to what is not understood."""
    with running_server(tmp_path / "data") as server:
        server.terminate()
    connection = sqlite3.connect(tmp_path / "data" / "fluvial.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert_refused(fluvial("serve", "--port", "0", "--data-dir", str(tmp_path / "data")), "newer fluvial", "99")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--port", "x"),
        ("--port", "70000"),
        ("--max-body", "-1"),
        ("--long-poll-timeout", "0"),
        ("--store", "tape"),
        ("--log-level", "loud"),
        ("--host", "no.such.host.invalid"),
        ("--host", ""),
    ],
)
def test_a_bad_option_is_named(option: str, value: str) -> None:
    """With what would be right, not with a traceback."""
    ran = fluvial("serve", "--port", "0", option, value)
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr
    assert option.removeprefix("--") in ran.stderr


def test_settings_come_from_text() -> None:
    """Each field from its text; what is wrong is named by option and variable."""
    settings = settings_from({"port": "1", "sse_max_age": "2.5", "log_level": "debug"})
    assert (settings.port, settings.sse_max_age, settings.log_level) == (1, 2.5, LogLevel.DEBUG)
    with pytest.raises(StartupRefused, match=r"--max-body \(FLUVIAL_MAX_BODY\)"):
        settings_from({"max_body": "many"})


def test_the_environment_sets_what_options_do_not(tmp_path: Path) -> None:
    """FLUVIAL_PORT and its like."""
    ran = fluvial("serve", FLUVIAL_PORT="lots", PATH="")
    assert_refused(ran, "FLUVIAL_PORT")


def test_sigterm_finishes_what_is_in_flight(tmp_path: Path) -> None:
    """Appends are answered, live reads end cleanly, the exit status is 0, and the data is there again."""
    with running_server(tmp_path / "data", "--long-poll-timeout", "20") as server:
        stop_while_busy(server)
    with running_server(tmp_path / "data") as again:
        assert httpx.get(again.url + "/v1/stream/a").content == b"begin,more,half"


def stop_while_busy(server: RunningServer) -> None:
    """SIGTERM while two live reads wait and a body is half there."""
    stream = server.url + "/v1/stream/a"
    httpx.put(stream, content=b"begin,", headers=TEXT)
    httpx.post(stream, content=b"more,", headers=TEXT)
    ended: list[bool] = []

    def follow() -> None:
        with httpx.stream("GET", stream, params={"offset": "-1", "live": "sse"}, timeout=30) as response:
            for _ in response.iter_bytes():
                pass  # a connection that is cut raises here
        ended.append(True)

    def poll() -> None:
        answer = httpx.get(stream, params={"offset": "now", "live": "long-poll"}, timeout=30)
        ended.append(answer.status_code == 204)

    readers = [Thread(target=follow), Thread(target=poll)]
    for reader in readers:
        reader.start()
    while httpx.get(server.url + "/health").json()["liveReads"] < 2:
        pass
    half = request_bytes("POST", "/v1/stream/a", [("Content-Type", "text/plain"), ("Content-Length", "4")], b"ha")
    with connect(server.url) as connection:
        connection.sendall(half)
        server.process.terminate()
        for reader in readers:
            reader.join(10)
        connection.sendall(b"lf")
        assert b"204" in connection.recv(100)
    assert server.process.wait(15) == 0
    assert ended == [True, True]
    assert "error" not in server.log


def test_logs_can_be_json_and_never_hold_a_body(tmp_path: Path) -> None:
    """One object a line."""
    with running_server(tmp_path / "data", "--log-format", "json", "--log-level", "debug") as server:
        httpx.put(server.url + "/v1/stream/a", content=b"a secret body", headers=TEXT)
        httpx.post(server.url + "/v1/stream/a", headers={"Stream-Closed": "true"})
        assert server.terminate() == 0
    lines = server.log.splitlines()
    events = [msgspec.json.decode(line)["event"] for line in lines]
    assert "stopped" in events
    assert not re.search("secret", server.log)
