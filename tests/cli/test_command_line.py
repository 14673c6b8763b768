"""The program as its user meets it: options, banner, messages and exit statuses."""

import os
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from shutil import which
from threading import Thread

import click
import httpx
import msgspec
import pytest
from click.testing import CliRunner

from fluvial import __version__
from fluvial.cli.main import main
from fluvial.model.errors import SettingsError, StartupError
from fluvial.model.limits import SEGMENT_BYTES
from fluvial.serve import listening_sockets
from fluvial.settings import (
    ENVIRONMENT_PREFIX,
    LogLevel,
    Settings,
    service_variables,
    settings_from,
    settings_from_environment,
)
from fluvial.storage.sqlite.database import migrations
from tests.access.doors import operator
from tests.support.folders import make_folder
from tests.support.ports import free_port
from tests.support.raw_http import connect, request_bytes
from tests.support.servers import BANNER, START_TIMEOUT_S, RunningServer, running_server

TEXT = {"Content-Type": "text/plain"}
ROOT = Path(__file__).parents[2]


def fluvial(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; in a process of its own where it would change this one."""
    if arguments[0] not in {"serve", "sweep"} and not environment:
        done = CliRunner().invoke(main, arguments, catch_exceptions=False)
        return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)
    command = [sys.executable, "-m", "fluvial", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment or None, check=False)


def assert_refused(ran: subprocess.CompletedProcess[str], *words: str) -> None:
    """What was asked for is wrong: exit status 2 and one clear line, with these words in it."""
    assert_ended(ran, 2, *words)


def assert_failed(ran: subprocess.CompletedProcess[str], *words: str) -> None:
    """What was asked for could not be done: exit status 1 and one clear line, with these words in it."""
    assert_ended(ran, 1, *words)


def assert_ended(ran: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    """An exit status and one clear line, with these words in it."""
    assert ran.returncode == status, ran
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


def help_of(*path: str) -> str:
    """What a command says of itself."""
    done = CliRunner().invoke(main, [*path, "--help"], prog_name="fluvial", env={"COLUMNS": "100"})
    assert done.exit_code == 0
    return done.stdout.strip()


def test_the_program_calls_itself_by_its_name() -> None:
    """Also when it was started as a module."""
    ran = fluvial("serve", "--help", PATH="")
    assert ran.stdout.startswith("Usage: fluvial serve")


def test_help_tells_every_option_and_its_variable() -> None:
    """And docs/cli.md has the same text."""
    ran = help_of("serve")
    for field in msgspec.structs.fields(Settings):
        assert f"--{field.name.replace('_', '-')}" in ran
        assert f"{ENVIRONMENT_PREFIX}{field.name.upper()}" in ran


def test_the_manual_has_what_each_command_says_of_itself() -> None:
    """docs/cli.md, word for word."""
    manual = (ROOT / "docs" / "cli.md").read_text()
    for path in command_paths(main):
        assert help_of(*path) in manual, path


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    """And the data folder is left alone."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ran = fluvial("serve", "--port", port, "--data-dir", str(tmp_path / "data"))
    assert_failed(ran, port, "in use")
    assert not (tmp_path / "data").exists()


@pytest.mark.medium
def test_a_locked_folder_is_one_clear_line(tmp_path: Path) -> None:
    """It names the process that has it, and that process goes on."""
    with running_server(tmp_path / "data") as server:
        ran = fluvial("serve", "--port", "0", "--data-dir", str(tmp_path / "data"))
        assert_failed(ran, str(tmp_path / "data"), f"process {server.process.pid}")
        assert httpx.get(server.url + "/health").status_code == 200


def test_a_folder_that_cannot_be_is_one_clear_line(tmp_path: Path) -> None:
    """A file in its place, say, or nowhere to make it."""
    assert_failed(fluvial("serve", "--port", "0", "--data-dir", "/proc/none"), "/proc/none as the data folder")
    (tmp_path / "file").write_text("")
    assert_failed(fluvial("serve", "--port", "0", "--data-dir", str(tmp_path / "file")), "data folder")


@pytest.mark.medium
def test_a_folder_whose_data_cannot_be_opened_is_one_clear_line(tmp_path: Path) -> None:
    """Whatever stands in the way, and without keeping the folder's lock."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "segments").write_text("")
    for _ in range(2):
        ran = fluvial("serve", "--port", "0", "--data-dir", str(tmp_path / "data"))
        assert_failed(ran, "segments")


def test_only_a_shared_store_can_be_served_for_reads_alone(tmp_path: Path) -> None:
    """Nobody else could write to a folder that this process has locked."""
    assert_refused(fluvial("serve", "--read-only", "--data-dir", str(tmp_path)), "--read-only", "dynamodb")


def test_a_sweep_of_what_is_not_there_is_one_clear_line() -> None:
    """Before anything is looked at."""
    endpoint = ("--endpoint-url", "http://127.0.0.1:1", "--region", "eu-central-1")
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    ran = fluvial("sweep", *endpoint, PATH="", **keys)
    assert_failed(ran, "table fluvial cannot be read")


def test_data_of_a_newer_version_is_one_clear_line(tmp_path: Path) -> None:
    """Nothing is written to what is not understood."""
    make_folder(tmp_path / "data")
    with closing(sqlite3.connect(tmp_path / "data" / "fluvial.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    assert_failed(fluvial("serve", "--port", "0", "--data-dir", str(tmp_path / "data")), "newer fluvial", "99")


@pytest.mark.parametrize("file", ["fluvial.db", "projects.db"])
def test_data_that_is_damaged_is_one_clear_line(tmp_path: Path, file: str) -> None:
    """For the server, and for whoever looks at its projects or streams."""
    folder = tmp_path / "data"
    make_folder(folder, "a")
    (folder / file).write_bytes(b"no database" * 100)
    assert_failed(fluvial("serve", "--port", "0", "--data-dir", str(folder)), str(folder), "not a database")
    assert_failed(fluvial("project", "create", "shop", "--data-dir", str(folder)), str(folder), "not a database")


def test_the_commands_for_aws_work_in_any_shell(tmp_path: Path) -> None:
    """As docs/aws.md has them: zsh, the shell of every Mac, does not split what a variable holds."""
    _, _, rest = (ROOT / "docs" / "aws.md").read_text().partition("```sh\noutput() ")
    lines = [line for line in ("output() " + rest).partition("```")[0].splitlines() if not line.startswith("curl")]
    stubs = {"aws": 'echo "value-of-$5" | tr -dc "a-zA-Z-"', "fluvial": 'echo "$# $FLUVIAL_STORE $FLUVIAL_TABLE"'}
    for name, code in stubs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{code}\n")
        (tmp_path / name).chmod(0o755)
    shells = [shell for shell in ("sh", "bash", "zsh", "dash") if which(shell)]
    for shell in shells:
        script = "\n".join((*lines, 'echo "$URL / $TOKEN"'))
        path = f"{tmp_path}:{os.environ['PATH']}"
        ran = subprocess.run([shell, "-c", script], env={"PATH": path}, capture_output=True, text=True, check=True)
        assert ran.stdout.splitlines()[0].startswith("3 dynamodb value-of-"), (shell, ran.stdout)
        assert "5 dynamodb" in ran.stdout.splitlines()[1]


@pytest.mark.medium
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


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("log_format", "yaml", "'yaml' is none of text, json"),
        ("store", "tape", "'tape' is none of sqlite, memory, dynamodb"),
        ("port", "abc", "'abc' is no whole number from 0 to 65,535"),
        ("port", "70000", "'70000' is no whole number from 0 to 65,535"),
        ("max_body", "1.5", "'1.5' is no whole number from 1 to 268,435,456"),
        ("long_poll_timeout", "0", "'0' is no number over 0 and up to 300"),
        ("sse_max_age", "long", "'long' is no number over 0 and up to 3,600"),
        ("host", "", "'' is too short: it has at least 1 characters"),
        ("read_only", "perhaps", "'perhaps' is neither true nor false"),
    ],
)
def test_a_setting_that_cannot_be_is_told_what_could_be(field: str, value: str, reason: str) -> None:
    """In plain words, by its option and its variable."""
    option = "--" + field.replace("_", "-")
    with pytest.raises(SettingsError, match=re.escape(f"{option} ({ENVIRONMENT_PREFIX}{field.upper()}): {reason}")):
        settings_from_environment({ENVIRONMENT_PREFIX + field.upper(): value})


def test_a_number_that_is_none_is_called_a_whole_number() -> None:
    """Not an integer range."""
    refused = CliRunner().invoke(main, ["token", "mint", "shop", "--expires-in", "1h"])
    assert (refused.exit_code, "'1h' is not a valid whole number" in refused.stderr) == (2, True)


def test_what_kubernetes_sets_for_a_service_is_no_setting(tmp_path: Path) -> None:
    """A Service named fluvial puts a URL into FLUVIAL_PORT: it is told, and does not stop the server."""
    variables = {
        "FLUVIAL_PORT": "tcp://10.96.12.3:4437",
        "FLUVIAL_PORT_4437_TCP": "tcp://10.96.12.3:4437",
        "FLUVIAL_PORT_4437_TCP_ADDR": "10.96.12.3",
        "FLUVIAL_SERVICE_HOST": "10.96.12.3",
        "FLUVIAL_SERVICE_PORT": "4437",
    }
    assert settings_from_environment(variables) == Settings()
    with running_server(tmp_path / "data", "--log-format", "json", **variables) as server:
        [line] = [line for line in server.log.splitlines() if "service_variables_ignored" in line]
    assert msgspec.json.decode(line)["variables"] == sorted(variables)
    assert service_variables({"FLUVIAL_PORT": "4437", "FLUVIAL_STORE": "memory"}) == []
    assert CliRunner().invoke(main, ["serve", "--host", ""], env=variables).exit_code == 2  # gets as far as the host


@pytest.mark.medium
@pytest.mark.parametrize(
    "closed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
def test_a_closed_standard_stream_is_nobodys_socket(tmp_path: Path, closed: int) -> None:
    """Whoever starts the server without one gets a server that serves and ends as any other."""
    port = free_port()
    command = f"exec {sys.executable} -m fluvial serve --port {port} --data-dir {tmp_path}/data {closed}>&-"
    with subprocess.Popen(["sh", "-c", command], stdout=subprocess.DEVNULL) as process:
        answer = answer_of(f"http://127.0.0.1:{port}/health")
        process.send_signal(signal.SIGTERM)
        assert (answer.status_code, process.wait(15)) == (200, 0)


def answer_of(url: str) -> httpx.Response:
    """What a server answers that has just been started."""
    ends_at = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            return httpx.get(url)
        except httpx.TransportError:
            assert time.monotonic() < ends_at


def test_localhost_is_every_address_that_it_has() -> None:
    """Browsers take ::1 first, others 127.0.0.1; a free port is free at both."""
    with ExitStack() as opened:
        listeners = [opened.enter_context(one) for one in listening_sockets("localhost", 0)]
        found = {one[4][0] for one in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
        assert {listener.getsockname()[0] for listener in listeners} == found
        assert len({listener.getsockname()[1] for listener in listeners}) == 1


def test_each_address_of_a_host_is_listened_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine's own names say: here the resolver tells of two, and of one that this machine has not."""
    stream = (socket.SOCK_STREAM, 6, "")
    addresses = [
        (socket.AF_INET6, *stream, ("2001:db8::1", 0, 0, 0)),
        (socket.AF_INET6, *stream, ("::1", 0, 0, 0)),
        (socket.AF_INET, *stream, ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
    with ExitStack() as opened:
        listeners = [opened.enter_context(one) for one in listening_sockets("both", 0)]
        ports = {listener.getsockname()[0]: listener.getsockname()[1] for listener in listeners}
        assert set(ports) <= {"::1", "127.0.0.1"}
        assert "127.0.0.1" in ports
        for host, port in ports.items():
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as client:
                client.connect((host, port))
    every = "0.0.0.0"  # noqa: S104  what a host of `*` is
    addresses[:] = [(socket.AF_INET, *stream, (every, 0)), (socket.AF_INET6, *stream, ("::", 0, 0, 0))]
    with ExitStack() as opened:
        listeners = [opened.enter_context(one) for one in listening_sockets("both", 0)]
        assert listeners[0].getsockname()[0] == every
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        addresses[:] = [(socket.AF_INET, *stream, taken.getsockname())]
        with pytest.raises(StartupError, match="in use"):
            listening_sockets("both", taken.getsockname()[1])
    addresses[:] = [(socket.AF_INET6, *stream, ("2001:db8::1", 0, 0, 0))]
    with pytest.raises(StartupError, match="cannot listen on both"):
        listening_sockets("both", 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "warns"),
    [
        (("--host", "0.0.0.0"), True),  # noqa: S104  that is what the warning is for
        (("--host", "127.0.0.1"), False),
        (("--host", "0.0.0.0", "--access", "projects"), False),  # noqa: S104  likewise
    ],
    ids=["world", "loopback", "world with projects"],
)
def test_a_server_that_the_world_may_write_to_says_so(tmp_path: Path, options: tuple[str, ...], *, warns: bool) -> None:
    """In its first line of log."""
    with running_server(tmp_path / "data", "--store", "memory", *options) as server:
        pass
    assert ("open_to_everybody" in server.log) is warns
    assert ("read and write every stream" in server.log) is warns


@pytest.mark.medium
def test_the_banner_is_json_when_the_log_is(tmp_path: Path) -> None:
    """Standard output has one object then, with what a program wants to know."""
    command = [sys.executable, "-m", "fluvial", "serve", "--port", "0", "--log-format", "json"]
    with subprocess.Popen([*command, "--data-dir", str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = msgspec.json.decode(process.stdout.readline())
        assert httpx.get(told["url"] + "/health").status_code == 200
        process.terminate()
        assert process.stdout.read() == ""
    assert (told["event"], told["version"], told["place"]) == ("serving", __version__, f"in {tmp_path}")
    assert BANNER.search(told["message"])


@pytest.mark.slow
def test_data_is_private(tmp_path: Path) -> None:
    """Whatever the umask: nobody else on the machine reads streams, secrets, or where they are."""
    data = tmp_path / "above" / "data"
    code = "import os, sys; os.umask(0); from fluvial.cli.main import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "serve", "--port", "0", "--data-dir", str(data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = BANNER.search(process.stdout.readline())
        assert found is not None
        stream = found[1] + "/v1/stream/a"
        httpx.put(stream, headers=TEXT)
        for _ in range(SEGMENT_BYTES // 1_048_576 + 1):
            httpx.post(stream, content=b"x" * 1_048_576, headers=TEXT)
        httpx.post(stream, headers={"Stream-Closed": "true"})
        while not list(data.glob("segments/*/*.segment")):
            pass
        modes = modes_of(data)
        process.terminate()
    assert {"fluvial.db", "fluvial.db-wal", "fluvial.db-shm", "lock", "projects.db"} <= {path.name for path in modes}
    assert all(mode == (0o700 if path.is_dir() else 0o600) for path, mode in modes_of(data).items())
    assert all(not mode & 0o077 for mode in modes.values()), modes


def modes_of(folder: Path) -> dict[Path, int]:
    """What everybody may do with a folder, and with all that is in it."""
    modes = dict[Path, int]()
    for path in [folder, *folder.rglob("*")]:
        with suppress(FileNotFoundError):
            modes[path] = stat.S_IMODE(path.stat().st_mode)
    return modes


def test_data_of_before_becomes_private(tmp_path: Path) -> None:
    """But for a folder that has something else in it: then only what is ours does."""
    for name, others in (("own", []), ("shared", ["notes.txt"])):
        folder = tmp_path / name
        make_folder(folder, "a")
        for other in others:
            (folder / other).write_text("")
        for path in [folder, *folder.iterdir()]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        make_folder(folder)
        modes = modes_of(folder)
        assert modes.pop(folder) == (0o755 if others else 0o700)
        assert {path.name for path, mode in modes.items() if mode & 0o077} == set(others)


def test_a_file_that_goes_while_the_folder_is_looked_at_keeps_no_server_from_starting(tmp_path: Path) -> None:
    """A command that ends takes the log of the projects with it; here it is a link that leads nowhere."""
    make_folder(tmp_path / "data", "a")
    (tmp_path / "data" / "projects.db-gone").symlink_to(tmp_path / "nowhere")
    make_folder(tmp_path / "data")


def test_data_of_an_older_version_is_brought_up_with_a_line_of_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Which tells from where to where; new data, and data that is up to date, are not worth one."""
    caplog.set_level("INFO")
    newest = migrations()[-1][0]
    make_folder(tmp_path / "new")
    make_folder(tmp_path / "new")
    assert "data_migrated" not in caplog.text
    (tmp_path / "old").mkdir()
    with closing(sqlite3.connect(tmp_path / "old" / "fluvial.db")) as connection:
        for version, script in migrations()[:2]:
            connection.executescript(f"{script}; PRAGMA user_version = {version}")
    make_folder(tmp_path / "old")
    [record] = [record for record in caplog.records if record.message == "data_migrated"]
    assert (record.__dict__["from_schema"], record.__dict__["to_schema"]) == (2, newest)


WITHOUT_AWS = "import sys; sys.modules.update(boto3=None, botocore=None)\n"


@pytest.mark.medium
@pytest.mark.parametrize(
    ("code", "told"),
    [
        (
            "from fluvial.cli.main import main; main(['sweep', '--region', 'eu-central-1'])",
            "Error: DynamoDB and S3 need boto3",
        ),
        (
            "from fluvial.cli.main import main; main(['serve', '--port', '0', '--store', 'dynamodb'])",
            "Error: DynamoDB and",
        ),
        (
            "from fluvial.cli.main import main; main(['project', 'list', '--store', 'dynamodb'])",
            "Error: DynamoDB and S3",
        ),
        ("import fluvial.aws.append_client", "ImportError: fluvial.aws.append_client needs boto3"),
    ],
    ids=["sweep", "serve", "project", "append_client"],
)
def test_what_is_not_installed_is_one_clear_line(code: str, told: str) -> None:
    """With what installs it; the import of a library ends in that line, and shows nothing of what is below."""
    ran = subprocess.run([sys.executable, "-c", WITHOUT_AWS + code], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    last = ran.stderr.splitlines()[-1]
    assert last.startswith(told)
    assert "pip install 'fluvial[aws]'" in last
    assert "During handling" not in ran.stderr
    assert code.startswith("import") or "Traceback" not in ran.stderr


@pytest.mark.slow
def test_a_secret_is_read_once_and_before_the_port_is_taken(tmp_path: Path) -> None:
    """It may come through a pipe; what is wrong with it does not depend on who listens where."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for more in (("--operator-secret-file", "/none"), ("--access", "none"), ("--port", port, "--max-body", "0")):
            refused = fluvial("serve", "--port", port, "--data-dir", str(tmp_path / "data"), *more)
            assert_refused(refused, more[-2])
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = Thread(target=pipe.write_text, args=("p" * 32,))
    writer.start()
    with running_server(tmp_path / "data", "--operator-secret-file", str(pipe)) as server:
        assert httpx.get(server.url + "/v1/projects", headers=operator()).status_code == 200
    writer.join()


def test_settings_come_from_text() -> None:
    """Each field from its text; what is wrong is named by option and variable."""
    settings = settings_from({"port": "1", "sse_max_age": "2.5", "log_level": "debug"})
    assert (settings.port, settings.sse_max_age, settings.log_level) == (1, 2.5, LogLevel.DEBUG)
    with pytest.raises(StartupError, match=r"--max-body \(FLUVIAL_MAX_BODY\)"):
        settings_from({"max_body": "many"})


@pytest.mark.medium
def test_the_environment_sets_what_options_do_not(tmp_path: Path) -> None:
    """FLUVIAL_PORT and its like."""
    ran = fluvial("serve", FLUVIAL_PORT="lots", PATH="")
    assert_refused(ran, "FLUVIAL_PORT")


@pytest.mark.medium
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


@pytest.mark.medium
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
