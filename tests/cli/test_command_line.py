"""The command line: options, banner, messages, exit statuses, and the files of the data folder."""

import os
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from shutil import which
from threading import Thread

import httpx
import msgspec
import pytest
from click.testing import CliRunner

from fluvial import __version__
from fluvial.cli.main import SECTIONS, main
from fluvial.model.errors import SettingsError, StartupError
from fluvial.model.limits import SEGMENT_BYTES
from fluvial.serve import open_listening_sockets
from fluvial.settings import (
    ENVIRONMENT_PREFIX,
    LogLevel,
    Settings,
    kubernetes_service_variables,
    settings_from,
    settings_from_environment,
)
from fluvial.storage.sqlite.database import migrations
from tests.access.clients import operator
from tests.support import command_manual
from tests.support.folders import create_data_folder
from tests.support.ports import free_port
from tests.support.program import assert_command_failed, assert_usage_error, fluvial, fluvial_process
from tests.support.raw_http import connect, request_bytes
from tests.support.servers import BANNER, START_TIMEOUT_S, RunningServer, running_server

TEXT = {"Content-Type": "text/plain"}
ROOT = Path(__file__).parents[2]


def test_usage_names_the_program_fluvial() -> None:
    """Also when it is started as a module."""
    ran = fluvial_process("serve", "--help")
    assert ran.stdout.startswith("Usage: fluvial serve")


def test_help_lists_every_setting_and_its_variable() -> None:
    """`fluvial serve` takes every setting."""
    ran = command_manual.help_of("serve")
    for field in msgspec.structs.fields(Settings):
        assert f"--{field.name.replace('_', '-')}" in ran
        assert f"{ENVIRONMENT_PREFIX}{field.name.upper()}" in ran


def test_cli_docs_contain_the_help_of_each_command() -> None:
    """docs/cli.md has each help text, word for word."""
    manual = command_manual.PATH.read_text()
    assert manual == command_manual.renewed(manual), "python -m tests.support.command_manual renews it"


def test_table_of_commands_has_their_first_sentences() -> None:
    """The table spares an import, and must say what the command itself says."""
    for section in SECTIONS.values():
        for entry in section:
            assert entry.short_help == entry.load().get_short_help_str(limit=100), entry.name


def test_help_imports_no_command() -> None:
    """`fluvial --help` imports click and little else, so that it is quick."""
    code = "import sys; from fluvial.cli.main import main; main(['--help'], standalone_mode=False); print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(ran.stdout.split())
    assert "click" in imported
    assert not imported & {"asyncio", "fastapi", "httpx", "msgspec", "rich", "structlog", "fluvial.app"}


def test_unknown_command_gets_a_suggestion() -> None:
    """Although no command is imported."""
    assert_usage_error(fluvial("sevre"), "No such command 'sevre'", "serve")


def test_taken_port_is_reported_in_one_line(tmp_path: Path) -> None:
    """And the data folder is not created."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ran = fluvial("serve", "--port", port, "--data-dir", str(tmp_path / "data"))
    assert_command_failed(ran, port, "in use")
    assert not (tmp_path / "data").exists()


@pytest.mark.medium
def test_locked_data_folder_is_reported_in_one_line(tmp_path: Path) -> None:
    """The line names the process that has the lock, and that process goes on."""
    with running_server(tmp_path / "data") as server:
        ran = fluvial("serve", "--port", "0", "--data-dir", str(tmp_path / "data"))
        assert_command_failed(ran, str(tmp_path / "data"), f"process {server.process.pid}")
        assert httpx.get(server.url + "/health").status_code == 200


def test_impossible_data_folder_is_reported_in_one_line(tmp_path: Path) -> None:
    """A folder that cannot be created, and a file in its place."""
    assert_command_failed(fluvial("serve", "--port", "0", "--data-dir", "/proc/none"), "/proc/none as the data folder")
    (tmp_path / "file").write_text("")
    assert_command_failed(fluvial("serve", "--port", "0", "--data-dir", str(tmp_path / "file")), "data folder")


@pytest.mark.medium
def test_unusable_segments_folder_is_reported_in_one_line(tmp_path: Path) -> None:
    """A failed start releases the folder's lock, so that the second one fails in the same way."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "segments").write_text("")
    for _ in range(2):
        ran = fluvial("serve", "--port", "0", "--data-dir", str(tmp_path / "data"))
        assert_command_failed(ran, "segments")


def test_read_only_requires_the_dynamodb_store(tmp_path: Path) -> None:
    """With SQLite, the folder's lock keeps all other processes from writing."""
    assert_usage_error(fluvial("serve", "--read-only", "--data-dir", str(tmp_path)), "--read-only", "dynamodb")


def test_change_feed_requires_the_dynamodb_store(tmp_path: Path) -> None:
    """No function reads the changes of a folder."""
    assert_usage_error(fluvial("serve", "--change-feed", "--data-dir", str(tmp_path)), "--change-feed", "dynamodb")


def test_sweep_of_an_unreachable_table_is_reported_in_one_line() -> None:
    """The table is read before the sweep begins."""
    endpoint = ("--endpoint-url", "http://127.0.0.1:1", "--region", "eu-central-1")
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    ran = fluvial("sweep", *endpoint, **keys)
    assert_command_failed(ran, "table fluvial cannot be read")


def test_data_of_a_newer_version_is_reported_in_one_line(tmp_path: Path) -> None:
    """Nothing is written to data of an unknown version."""
    create_data_folder(tmp_path / "data")
    with closing(sqlite3.connect(tmp_path / "data" / "fluvial.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    assert_command_failed(fluvial("serve", "--port", "0", "--data-dir", str(tmp_path / "data")), "newer fluvial", "99")


@pytest.mark.parametrize("file", ["fluvial.db", "projects.db"])
def test_damaged_database_is_reported_in_one_line(tmp_path: Path, file: str) -> None:
    """By `serve`, and by commands that read its projects or streams."""
    folder = tmp_path / "data"
    create_data_folder(folder, "a")
    (folder / file).write_bytes(b"no database" * 100)
    for arguments in (("serve", "--port", "0"), ("project", "create", "shop")):
        assert_command_failed(fluvial(*arguments, "--data-dir", str(folder)), str(folder), "not a database")


def test_commands_of_the_aws_docs_work_in_every_shell(tmp_path: Path) -> None:
    """The commands in docs/aws.md do not rely on word splitting, which zsh, the shell of macOS, does not do."""
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
def test_invalid_option_value_is_reported_with_the_option(option: str, value: str) -> None:
    """Without a traceback."""
    ran = fluvial("serve", "--port", "0", option, value)
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr
    assert option.removeprefix("--") in ran.stderr


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("log_format", "yaml", "'yaml' is not one of text, json"),
        ("store", "tape", "'tape' is not one of sqlite, memory, dynamodb"),
        ("port", "abc", "'abc' is not a whole number from 0 to 65,535"),
        ("port", "70000", "'70000' is not a whole number from 0 to 65,535"),
        ("max_body", "1.5", "'1.5' is not a whole number from 1 to 268,435,456"),
        ("long_poll_timeout", "0", "'0' is not a number above 0 and up to 300"),
        ("sse_max_age", "long", "'long' is not a number above 0 and up to 3,600"),
        ("host", "", "'' is too short: the minimum length is 1"),
        ("read_only", "perhaps", "'perhaps' is neither true nor false"),
    ],
)
def test_invalid_setting_is_reported_with_the_allowed_values(field: str, value: str, reason: str) -> None:
    """And with its option and its variable."""
    option = "--" + field.replace("_", "-")
    with pytest.raises(SettingsError, match=re.escape(f"{option} ({ENVIRONMENT_PREFIX}{field.upper()}): {reason}")):
        settings_from_environment({ENVIRONMENT_PREFIX + field.upper(): value})


def test_invalid_number_is_reported_as_not_a_whole_number() -> None:
    """Not as an integer range, which is click's word."""
    assert_usage_error(fluvial("read", "a", "--limit", "1h"), "'1h' is not a valid whole number")


def test_kubernetes_service_variables_are_ignored(tmp_path: Path) -> None:
    """A Service named fluvial sets FLUVIAL_PORT to a URL, which is logged and does not stop the server."""
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
    assert kubernetes_service_variables({"FLUVIAL_PORT": "4437", "FLUVIAL_STORE": "memory"}) == []
    assert CliRunner().invoke(main, ["serve", "--host", ""], env=variables).exit_code == 2  # gets as far as the host


@pytest.mark.medium
@pytest.mark.parametrize(
    "closed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
def test_server_starts_with_a_closed_standard_stream(tmp_path: Path, closed: int) -> None:
    """A server without one of the three serves and stops as usual."""
    port = free_port()
    command = f"exec {sys.executable} -m fluvial serve --port {port} --data-dir {tmp_path}/data {closed}>&-"
    with subprocess.Popen(["sh", "-c", command], stdout=subprocess.DEVNULL) as process:
        answer = answer_of(f"http://127.0.0.1:{port}/health")
        process.send_signal(signal.SIGTERM)
        assert (answer.status_code, process.wait(15)) == (200, 0)


def answer_of(url: str) -> httpx.Response:
    """The answer of a server that has just been started."""
    ends_at = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            return httpx.get(url)
        except httpx.TransportError:
            assert time.monotonic() < ends_at


def test_localhost_listens_on_all_its_addresses() -> None:
    """::1 for browsers, 127.0.0.1 for others, with a port that is free at both."""
    with ExitStack() as opened:
        listeners = [opened.enter_context(one) for one in open_listening_sockets("localhost", 0)]
        found = {one[4][0] for one in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
        assert {listener.getsockname()[0] for listener in listeners} == found
        assert len({listener.getsockname()[1] for listener in listeners}) == 1


def test_host_with_several_addresses_listens_on_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake resolver returns several addresses, one of which this machine does not have."""
    stream = (socket.SOCK_STREAM, 6, "")
    addresses = [
        (socket.AF_INET6, *stream, ("2001:db8::1", 0, 0, 0)),
        (socket.AF_INET6, *stream, ("::1", 0, 0, 0)),
        (socket.AF_INET, *stream, ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
    with ExitStack() as opened:
        listeners = [opened.enter_context(one) for one in open_listening_sockets("both", 0)]
        ports = {listener.getsockname()[0]: listener.getsockname()[1] for listener in listeners}
        assert set(ports) <= {"::1", "127.0.0.1"}
        assert "127.0.0.1" in ports
        for host, port in ports.items():
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as client:
                client.connect((host, port))
    every = "0.0.0.0"  # noqa: S104  all addresses
    addresses[:] = [(socket.AF_INET, *stream, (every, 0)), (socket.AF_INET6, *stream, ("::", 0, 0, 0))]
    with ExitStack() as opened:
        listeners = [opened.enter_context(one) for one in open_listening_sockets("both", 0)]
        assert listeners[0].getsockname()[0] == every
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        addresses[:] = [(socket.AF_INET, *stream, taken.getsockname())]
        with pytest.raises(StartupError, match="in use"):
            open_listening_sockets("both", taken.getsockname()[1])
    addresses[:] = [(socket.AF_INET6, *stream, ("2001:db8::1", 0, 0, 0))]
    with pytest.raises(StartupError, match="cannot listen on both"):
        open_listening_sockets("both", 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "warns"),
    [
        (("--host", "0.0.0.0"), True),  # noqa: S104  the warning is for all addresses
        (("--host", "127.0.0.1"), False),
        (("--host", "0.0.0.0", "--access", "projects"), False),  # noqa: S104  likewise
    ],
    ids=["all addresses", "loopback", "all addresses with projects"],
)
def test_open_server_on_the_network_logs_a_warning(tmp_path: Path, options: tuple[str, ...], *, warns: bool) -> None:
    """Without projects, every client of the network may write."""
    with running_server(tmp_path / "data", "--store", "memory", *options) as server:
        pass
    assert ("open_to_everybody" in server.log) is warns
    assert ("read and write every stream" in server.log) is warns


@pytest.mark.medium
def test_banner_is_json_if_logs_are(tmp_path: Path) -> None:
    """Standard output is one JSON object, for programs that start the server."""
    command = [sys.executable, "-m", "fluvial", "serve", "--port", "0", "--log-format", "json"]
    with subprocess.Popen([*command, "--data-dir", str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        banner = msgspec.json.decode(process.stdout.readline())
        assert httpx.get(banner["url"] + "/health").status_code == 200
        process.terminate()
        assert process.stdout.read() == ""
    assert (banner["event"], banner["version"], banner["place"]) == ("serving", __version__, f"in {tmp_path}")
    assert BANNER.search(banner["message"])


@pytest.mark.slow
def test_data_files_are_private(tmp_path: Path) -> None:
    """Under any umask, other users can read no streams, no secrets and no file names."""
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
    """The permission bits of a folder and of everything in it."""
    modes = dict[Path, int]()
    for path in [folder, *folder.rglob("*")]:
        with suppress(FileNotFoundError):
            modes[path] = stat.S_IMODE(path.stat().st_mode)
    return modes


def test_existing_data_files_become_private(tmp_path: Path) -> None:
    """A folder that also holds other files keeps its permissions; Fluvial's files in it become private."""
    for name, others in (("own", []), ("shared", ["notes.txt"])):
        folder = tmp_path / name
        create_data_folder(folder, "a")
        for other in others:
            (folder / other).write_text("")
        for path in [folder, *folder.iterdir()]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        create_data_folder(folder)
        modes = modes_of(folder)
        assert modes.pop(folder) == (0o755 if others else 0o700)
        assert {path.name for path, mode in modes.items() if mode & 0o077} == set(others)


def test_file_that_vanishes_during_the_permission_check_is_ignored(tmp_path: Path) -> None:
    """A command that ends deletes the write-ahead log of the projects; a dangling link behaves like that."""
    create_data_folder(tmp_path / "data", "a")
    (tmp_path / "data" / "projects.db-gone").symlink_to(tmp_path / "nowhere")
    create_data_folder(tmp_path / "data")


def test_migration_of_older_data_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With the old and the new version; new and current data are not logged."""
    caplog.set_level("INFO")
    newest = migrations()[-1][0]
    create_data_folder(tmp_path / "new")
    create_data_folder(tmp_path / "new")
    assert "data_migrated" not in caplog.text
    (tmp_path / "old").mkdir()
    with closing(sqlite3.connect(tmp_path / "old" / "fluvial.db")) as connection:
        for version, script in migrations()[:2]:
            connection.executescript(f"{script}; PRAGMA user_version = {version}")
    create_data_folder(tmp_path / "old")
    [record] = [record for record in caplog.records if record.message == "data_migrated"]
    assert (record.__dict__["from_schema"], record.__dict__["to_schema"]) == (2, newest)


WITHOUT_AWS = "import sys; sys.modules.update(boto3=None, botocore=None)\n"


@pytest.mark.medium
@pytest.mark.parametrize(
    ("code", "error"),
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
        ("import fluvial.lambda_client", "ImportError: fluvial.lambda_client needs boto3"),
    ],
    ids=["sweep", "serve", "project", "lambda_client"],
)
def test_missing_boto3_is_reported_in_one_line(code: str, error: str) -> None:
    """The line says what to install; also for the import of a library."""
    ran = subprocess.run([sys.executable, "-c", WITHOUT_AWS + code], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    last = ran.stderr.splitlines()[-1]
    assert last.startswith(error)
    assert "pip install 'fluvial[aws]'" in last
    assert "During handling" not in ran.stderr
    assert code.startswith("import") or "Traceback" not in ran.stderr


@pytest.mark.slow
def test_operator_secret_is_read_once_and_before_the_port_is_bound(tmp_path: Path) -> None:
    """The file may be a pipe, and an error in it is reported even if the port is taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for more in (("--operator-secret-file", "/none"), ("--access", "none"), ("--port", port, "--max-body", "0")):
            ran = fluvial("serve", "--port", port, "--data-dir", str(tmp_path / "data"), *more)
            assert_usage_error(ran, more[-2])
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = Thread(target=pipe.write_text, args=("p" * 32,))
    writer.start()
    with running_server(tmp_path / "data", "--operator-secret-file", str(pipe)) as server:
        assert httpx.get(server.url + "/v1/projects", headers=operator()).status_code == 200
    writer.join()


def test_settings_are_parsed_from_text() -> None:
    """An error names the option and the variable."""
    settings = settings_from({"port": "1", "sse_max_age": "2.5", "log_level": "debug"})
    assert (settings.port, settings.sse_max_age, settings.log_level) == (1, 2.5, LogLevel.DEBUG)


def test_log_level_may_be_in_capitals() -> None:
    """AWS's tools, such as Lambda's and Powertools' own settings, write it so."""
    assert settings_from({"log_level": "WARNING"}).log_level is LogLevel.WARNING
    with pytest.raises(StartupError, match=r"--max-body \(FLUVIAL_MAX_BODY\)"):
        settings_from({"max_body": "many"})


@pytest.mark.medium
def test_environment_variables_set_options(tmp_path: Path) -> None:
    """FLUVIAL_PORT, for example."""
    ran = fluvial("serve", FLUVIAL_PORT="lots")
    assert_usage_error(ran, "FLUVIAL_PORT")


@pytest.mark.medium
def test_sigterm_finishes_running_requests(tmp_path: Path) -> None:
    """Appends are answered, live reads end cleanly, the exit status is 0, and the data is stored."""
    with running_server(tmp_path / "data", "--long-poll-timeout", "20") as server:
        stop_while_busy(server)
    with running_server(tmp_path / "data") as again:
        assert httpx.get(again.url + "/v1/stream/a").content == b"begin,more,half"


def stop_while_busy(server: RunningServer) -> None:
    """Send SIGTERM while two live reads wait and half of a body is sent."""
    stream = server.url + "/v1/stream/a"
    httpx.put(stream, content=b"begin,", headers=TEXT)
    httpx.post(stream, content=b"more,", headers=TEXT)
    ended: list[bool] = []

    def follow() -> None:
        with httpx.stream("GET", stream, params={"offset": "-1", "live": "sse"}, timeout=30) as response:
            for _ in response.iter_bytes():
                pass  # a connection that breaks off raises here
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
def test_json_logs_contain_no_body(tmp_path: Path) -> None:
    """Each line is one object."""
    with running_server(tmp_path / "data", "--log-format", "json", "--log-level", "debug") as server:
        httpx.put(server.url + "/v1/stream/a", content=b"a secret body", headers=TEXT)
        httpx.post(server.url + "/v1/stream/a", headers={"Stream-Closed": "true"})
        assert server.terminate() == 0
    lines = server.log.splitlines()
    events = [msgspec.json.decode(line)["event"] for line in lines]
    assert "stopped" in events
    assert not re.search("secret", server.log)


@pytest.mark.medium
def test_lambda_logs_have_the_ids_of_the_request(tmp_path: Path) -> None:
    """The Lambda Web Adapter sends them as JSON; a line of the request has both, under the other functions' names."""
    context = {
        "x-amzn-request-context": '{"requestId":"gateway-1"}',
        "x-amzn-lambda-context": '{"request_id":"lambda-1"}',
    }
    with running_server(tmp_path / "data", "--log-format", "lambda") as server:
        httpx.get(server.url + "/v1/stream/a", headers={**context, "Origin": "https://other.example"})
        assert server.terminate() == 0
    lines = [msgspec.json.decode(line) for line in server.log.splitlines()]
    [refused] = [line for line in lines if line["event"] == "origin_refused"]
    assert (refused["correlation_id"], refused["function_request_id"]) == ("gateway-1", "lambda-1")
