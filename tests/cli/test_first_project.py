"""The first project closes an open server: streams that it cuts off, adoption, live reads, and the way back."""

import asyncio
import json
import shlex
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from threading import Thread
from typing import Final

import httpx
import pytest
from click.testing import CliRunner, Result
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from fluvial.access.authorizer import OPEN_ACCESS
from fluvial.app import build_application
from fluvial.cli.main import main
from fluvial.clock import Clock
from fluvial.fanout.change_feed_backlog import ChangeFeedBacklog
from fluvial.model.errors import StoreUnavailable
from fluvial.model.names import StreamName
from fluvial.operations.manage_projects import CUT_OFF_NAMED_MAX
from fluvial.server.openness import end_anonymous_reads
from fluvial.server.websocket import POLICY_VIOLATION
from fluvial.settings import settings_from
from fluvial.storage.memory import MemoryStore
from fluvial.storage.memory_projects import MemoryProjects
from fluvial.storage.sqlite.checksums import add_checksum_function
from fluvial.storage.sqlite.queries import ADOPTION_SQL
from tests.access.clients import JSON, operator
from tests.care.folders import problems_in
from tests.support.access import token
from tests.support.folders import create_data_folder, with_store
from tests.support.servers import RunningServer, running_server

TEXT = {"content-type": "text/plain"}

#: A second for the cache, half a second until the next check, and time for a busy machine.
ENDS_WITHIN_S = 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with streams that cannot be in a project, and one that can."""
    made = tmp_path / "data"
    create_data_folder(made, "Chat-Room/1", "my.app/x", "single", "shop/orders")
    return made


def run(folder: Path, *arguments: str) -> Result:
    """Run the command on the folder."""
    return CliRunner().invoke(main, [*arguments, "--data-dir", str(folder)])


def names_in(folder: Path) -> list[str]:
    """The names of all streams in the folder."""
    return with_store(folder, lambda store: store.names("", "", 100))  # type: ignore[arg-type, return-value]


def minted(folder: Path, project: str, *options: str) -> dict[str, str]:
    """An Authorization field with a new token."""
    return {"authorization": f"Bearer {run(folder, 'token', 'mint', project, *options).stdout.strip()}"}


def test_first_project_that_cuts_off_streams_needs_the_cut_off_option(folder: Path) -> None:
    """Without it, the command names streams that would become unreachable, and creates no project."""
    failed = run(folder, "project", "create", "shop")
    assert failed.exit_code == 1
    for text in ("3 streams", "Chat-Room/1", "my.app/x", "single", "--adopt", "--cut-off", str(folder)):
        assert text in failed.stderr
    assert failed.stdout == ""
    assert run(folder, "project", "list").stdout == ""
    made = run(folder, "project", "create", "shop", "--cut-off")
    assert made.exit_code == 0
    assert run(folder, "project", "create", "other").exit_code == 0  # the second project cuts nothing off
    assert names_in(folder) == ["Chat-Room/1", "my.app/x", "shop/orders", "single"]


def test_stream_with_only_the_projects_name_counts_as_cut_off(tmp_path: Path) -> None:
    """A stream's path has at least one more segment than its project's name."""
    create_data_folder(tmp_path / "data", "shop", "shop/orders")
    failed = run(tmp_path / "data", "project", "create", "shop")
    assert (failed.exit_code, "1 stream" in failed.stderr) == (1, True)


def test_first_project_that_cuts_off_nothing_needs_no_option(tmp_path: Path) -> None:
    """If streams would be cut off, a few of them are named."""
    create_data_folder(tmp_path / "data", "shop/a", "shop/b/c")
    assert run(tmp_path / "data", "project", "create", "shop").exit_code == 0
    many = [f"other/{number}" for number in range(CUT_OFF_NAMED_MAX + 3)]
    create_data_folder(tmp_path / "many", *many)
    failed = run(tmp_path / "many", "project", "create", "shop")
    assert f"{len(many)} streams" in failed.stderr
    assert failed.stderr.count("other/") == CUT_OFF_NAMED_MAX


@pytest.mark.medium
def test_streams_to_be_cut_off_are_counted_beside_a_running_server(folder: Path) -> None:
    """Although the server holds the folder's lock; streams that it has just created are counted."""
    with running_server(folder) as server:
        assert httpx.put(f"{server.url}/v1/stream/new", headers=TEXT).status_code == 201
        failed = run(folder, "project", "create", "shop")
        assert (failed.exit_code, "4 streams" in failed.stderr) == (1, True)
        adopting = run(folder, "project", "create", "shop", "--adopt", "")
        assert (adopting.exit_code, "while no server is running" in adopting.stderr) == (1, True)
        assert httpx.get(f"{server.url}/v1/stream/new").status_code == 200
        assert run(folder, "project", "create", "shop", "--cut-off").exit_code == 0


@pytest.mark.slow
def test_first_project_over_http_that_cuts_off_streams_answers_409(folder: Path, tmp_path: Path) -> None:
    """Unless `cutOff` is set, or the server has never been open."""
    secret = tmp_path / "secret"
    secret.write_text("p" * 32)
    body = {"name": "shop", "secret": "s" * 32}
    options = ("--operator-secret-file", str(secret))
    with running_server(folder, *options) as server, httpx.Client(base_url=server.url) as client:
        headers = {**operator(), **JSON}
        rejected = client.post("/v1/projects", json=body, headers=headers)
        assert (rejected.status_code, rejected.json()["error"]["code"]) == (409, "streams_cut_off")
        assert "3 streams" in rejected.json()["error"]["message"]
        assert client.get("/v1/stream/single").status_code == 200
        assert client.post("/v1/projects", json={**body, "cutOff": True}, headers=headers).status_code == 201
        assert client.post("/v1/projects", json={**body, "name": "b"}, headers=headers).status_code == 201
    create_data_folder(tmp_path / "closed", "single")
    with running_server(tmp_path / "closed", *options, "--access", "projects") as server:
        assert httpx.post(f"{server.url}/v1/projects", json=body, headers=headers).status_code == 201


@pytest.mark.medium
def test_adopted_streams_accept_the_projects_tokens(folder: Path) -> None:
    """They keep their bytes and offsets; the former paths are gone."""
    with running_server(folder) as server:
        tail = httpx.post(f"{server.url}/v1/stream/single", content=b"!", headers=TEXT).headers["stream-next-offset"]
        httpx.post(f"{server.url}/v1/stream/single", content=b"more", headers=TEXT)
    made = run(folder, "project", "create", "shop", "--adopt", "")
    assert made.exit_code == 0, made.stderr
    assert "Adopted 3 streams" in made.stderr
    with running_server(folder) as server, httpx.Client(base_url=server.url) as client:
        headers = minted(folder, "shop", "--scope", "manage")
        assert client.get("/v1/stream/shop/single", headers=headers).content == b"single!more"
        assert client.get(f"/v1/stream/shop/single?offset={tail}", headers=headers).content == b"more"
        assert client.post("/v1/stream/shop/Chat-Room/1", headers={**headers, **TEXT}, content=b"x").status_code == 204
        listed = client.get("/v1/projects/shop/streams", headers=headers).json()["streams"]
        assert listed == ["Chat-Room/1", "my.app/x", "orders", "single"]
        assert client.delete("/v1/stream/shop/my.app/x", headers=headers).status_code == 204


def test_adoption_takes_only_streams_with_the_prefix_and_without_a_project(folder: Path) -> None:
    """If other streams would be cut off, the project is not created."""
    failed = run(folder, "project", "create", "chat", "--adopt", "Chat-Room/", "--adopt", "si")
    assert (failed.exit_code, "2 streams" in failed.stderr) == (1, True)
    assert run(folder, "project", "create", "shop", "--cut-off").exit_code == 0
    made = run(folder, "project", "create", "chat", "--adopt", "Chat-Room/")
    assert "Adopted 1 stream: chat/Chat-Room/1\n" in made.stderr
    adopted = run(folder, "project", "adopt", "chat", "s", "my.app/")
    assert (adopted.exit_code, "Adopted 2 streams" in adopted.stderr) == (0, True)
    assert names_in(folder) == ["chat/Chat-Room/1", "chat/my.app/x", "chat/single", "shop/orders"]
    assert "Adopted 0 streams" in run(folder, "project", "adopt", "chat", "").stderr
    assert run(folder, "project", "adopt", "none", "").exit_code == 1


@pytest.mark.slow
def test_adoption_renames_fork_sources_and_estuary_sources(tmp_path: Path) -> None:
    """Fan-out goes on, and a deleted source ends with its last fork."""
    folder = tmp_path / "data"
    with running_server(folder) as server, httpx.Client(base_url=server.url) as client:
        assert client.put("/v1/stream/news/source", headers=JSON).status_code == 201
        follow = {"estuaryId": "inbox", "mode": "envelope"}
        assert client.post("/v1/estuary/subscribe/news/source", json=follow).status_code == 201
        client.post("/v1/stream/news/source", headers=JSON, content=b"1")
        assert client.put("/v1/stream/old", headers=TEXT, content=b"abc").status_code == 201
        fork = {"stream-forked-from": "/v1/stream/old"}
        assert client.put("/v1/stream/forked", headers={**TEXT, **fork}).status_code == 201
        assert client.delete("/v1/stream/old").status_code == 204
        assert client.get("/v1/stream/old").status_code == 410
    assert run(folder, "project", "create", "shop", "--adopt", "").exit_code == 0
    with running_server(folder) as server, httpx.Client(base_url=server.url) as client:
        headers = minted(folder, "shop", "--scope", "write")
        appended = client.post("/v1/stream/shop/news/source", headers={**headers, **JSON}, content=b"2")
        assert appended.headers["stream-fanout-successes"] == "1"
        envelopes = client.get("/v1/stream/shop/news/inbox", headers=headers).json()
        assert [(one["stream"], one["payload"]) for one in envelopes] == [("news/source", 1), ("shop/news/source", 2)]
        assert client.get("/v1/stream/shop/forked", headers=headers).content == b"abc"
        assert client.get("/v1/stream/shop/old", headers=headers).status_code == 410
        assert client.delete("/v1/stream/shop/forked", headers=headers).status_code == 204
        assert client.get("/v1/stream/shop/old", headers=headers).status_code == 404


def test_adopted_source_replaces_the_cursor_of_a_deleted_one(tmp_path: Path) -> None:
    """An estuary that once followed a stream of the new name reads on from its position in the adopted one."""
    folder = tmp_path / "data"
    create_data_folder(folder, "inbox", "news")
    live, gone = {"incarnation": 1, "position": 4}, {"incarnation": 2, "position": 9}
    with closing(sqlite3.connect(folder / "fluvial.db")) as database, database:
        cursors = json.dumps({"news": live, "shop/news": gone, "other": gone}).encode()
        database.execute("UPDATE stream SET cursors = ? WHERE name = 'inbox'", (cursors,))
        add_checksum_function(database)
        database.execute(ADOPTION_SQL.save_stream_checksums)
    assert run(folder, "project", "create", "shop", "--adopt", "").exit_code == 0
    with closing(sqlite3.connect(folder / "fluvial.db")) as database:
        [(kept,)] = database.execute("SELECT cursors FROM stream WHERE name = 'shop/inbox'")
    assert json.loads(kept) == {"shop/news": live, "other": gone}
    assert problems_in(folder) == []


def test_damaged_rows_are_not_adopted(tmp_path: Path) -> None:
    """They would get valid checksums."""
    folder = tmp_path / "data"
    create_data_folder(folder, "inbox", "news")
    with closing(sqlite3.connect(folder / "fluvial.db")) as database, database:
        database.execute("UPDATE stream SET tail = 2 WHERE name = 'inbox'")
    assert run(folder, "project", "create", "shop", "--adopt", "").exit_code == 1
    with closing(sqlite3.connect(folder / "fluvial.db")) as database:
        assert database.execute("SELECT name FROM stream").fetchall() == [("inbox",), ("news",)]


KILLED: Final = """
import asyncio, os, sys
from pathlib import Path
from fluvial.model.project import ProjectName
from fluvial.storage.memory_projects import MemoryProjects
from fluvial.storage.sqlite.adoption import Adoption

adoption = Adoption(Path(sys.argv[1]))
asyncio.run(adoption.find(("",), ProjectName("shop"), MemoryProjects(), 5))
adoption._connection.set_trace_callback(lambda statement: os._exit(9) if statement == "COMMIT" else None)
asyncio.run(adoption.rename())
"""


def test_killed_adoption_renames_nothing(folder: Path) -> None:
    """The same command succeeds later."""
    before = names_in(folder)
    assert subprocess.run([sys.executable, "-c", KILLED, str(folder)], check=False).returncode == 9
    assert names_in(folder) == before
    assert run(folder, "project", "create", "shop", "--adopt", "").exit_code == 0
    assert names_in(folder) == ["shop/Chat-Room/1", "shop/my.app/x", "shop/orders", "shop/single"]


def test_failed_renaming_keeps_the_new_project_and_prints_its_secret(folder: Path) -> None:
    """The streams can be adopted later; here a trigger makes the database fail."""
    with closing(sqlite3.connect(folder / "fluvial.db")) as database, database:
        database.execute("CREATE TRIGGER fail BEFORE UPDATE ON stream BEGIN SELECT RAISE(ABORT, 'no room'); END")
    made = run(folder, "project", "create", "shop", "--adopt", "")
    assert (made.exit_code, len(made.stdout.strip()) >= 32) == (1, True)
    assert "not renamed" in made.stderr
    assert "no room" in made.stderr
    with closing(sqlite3.connect(folder / "fluvial.db")) as database, database:
        database.execute("DROP TRIGGER fail")
    assert "Adopted 3 streams" in run(folder, "project", "adopt", "shop", "").stderr


def test_adoption_fails_as_a_whole_if_a_new_name_is_taken_or_too_long(tmp_path: Path) -> None:
    """No stream is renamed, and no project is created."""
    for name, error in (("single", "already a stream shop/single"), ("l" * 999, "over 1000 bytes")):
        folder = tmp_path / name[:6]
        create_data_folder(folder, name, "shop/single")
        failed = run(folder, "project", "create", "shop", "--adopt", "")
        assert (failed.exit_code, error in failed.stderr) == (1, True), failed.stderr
        assert run(folder, "project", "list").stdout == ""
        assert names_in(folder) == sorted([name, "shop/single"])


def test_adoption_is_not_supported_on_dynamodb() -> None:
    """A stream's name is the key of its items; the command fails without a request to AWS."""
    for arguments in (("project", "adopt", "shop", ""), ("project", "create", "shop", "--adopt", "")):
        failed = CliRunner().invoke(main, [*arguments, "--store", "dynamodb"])
        assert (failed.exit_code, "only --store sqlite can adopt" in failed.stderr) == (2, True)


@pytest.mark.slow
def test_data_folder_without_projects_db_is_open_again(folder: Path) -> None:
    """This is the way back in docs/security.md: stop the server and remove projects.db."""
    assert run(folder, "project", "create", "shop", "--cut-off").exit_code == 0
    with running_server(folder) as server:
        assert httpx.get(f"{server.url}/v1/stream/single").status_code == 401
    for file in folder.glob("projects.db*"):
        file.unlink()
    with running_server(folder) as server:
        assert httpx.get(f"{server.url}/v1/stream/single").content == b"single"


def live_reads(server: RunningServer) -> int:
    """How many live reads are open."""
    count: int = httpx.get(server.url + "/health").json()["liveReads"]
    return count


@pytest.mark.medium
def test_anonymous_live_reads_end_when_the_first_project_closes_the_server(tmp_path: Path) -> None:
    """SSE and long-polls end, WebSockets get a close code, and none receives later data."""
    folder = tmp_path / "data"
    options = ("--sse-max-age", "60", "--long-poll-timeout", "60")
    with running_server(folder, *options) as server:
        stream = f"{server.url}/v1/stream/shop/a"
        assert httpx.put(stream, headers=JSON).status_code == 201
        ended = dict[str, object]()

        def follow() -> None:
            with httpx.stream("GET", f"{stream}?live=sse&offset=-1", timeout=60) as events:
                ended["sse"] = "".join(events.iter_text())

        def poll() -> None:
            ended["poll"] = httpx.get(f"{stream}?live=long-poll&offset=now", timeout=60).status_code

        readers = [Thread(target=follow), Thread(target=poll)]
        for reader in readers:
            reader.start()
        with connect(stream.replace("http", "ws") + "?live=websocket&offset=-1") as socket:
            assert json.loads(socket.recv(timeout=5))["type"] == "control"
            while live_reads(server) < 3:
                pass
            assert run(folder, "project", "create", "shop").exit_code == 0
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(timeout=ENDS_WITHIN_S)
        for reader in readers:
            reader.join(ENDS_WITHIN_S)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == POLICY_VIOLATION
        assert ended["poll"] == 204
        assert str(ended["sse"]).count("event: control") == 1
        assert httpx.get(f"{stream}?live=sse&offset=-1").status_code == 401
        with httpx.stream("GET", f"{stream}?live=sse&offset=-1", headers=minted(folder, "shop")) as events:
            assert events.status_code == 200


class FailingProjects(MemoryProjects):
    """Fails twice, and then reports that there is a project."""

    def __init__(self) -> None:
        """One expected error and one unexpected error."""
        super().__init__()
        self.errors: list[Exception] = [StoreUnavailable(), KeyError()]

    async def has_had_any(self) -> bool:
        """See Projects.has_had_any."""
        if self.errors:
            raise self.errors.pop(0)
        return True


async def test_failed_check_for_the_first_project_is_logged_and_repeated(caplog: pytest.LogCaptureFixture) -> None:
    """After any error, the check is repeated until anonymous live reads have ended."""
    store = MemoryStore()
    store.projects = FailingProjects()
    application = build_application(settings_from({"store": "memory"}), store, Clock(), ChangeFeedBacklog(store))

    async def stay(_read: object) -> None:
        await asyncio.Event().wait()

    async with application.live.register(StreamName("a/1"), OPEN_ACCESS, stay):
        await end_anonymous_reads(application, pause_s=0)
        await asyncio.Event().wait()
    assert application.live.has_closed
    assert [record.message for record in caplog.records] == ["openness_not_known"] * 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("project", "create", "shop"),
        ("project", "list"),
        ("project", "show", "shop"),
        ("project", "set", "shop", "--public"),
        ("project", "add-secret", "shop"),
        ("project", "remove-secret", "shop", "0"),
        ("project", "adopt", "shop", ""),
        ("project", "delete", "shop"),
        ("token", "mint", "shop"),
    ],
    ids=" ".join,
)
def test_only_serve_creates_a_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """Every other command fails, and names the absolute path of the missing folder."""
    monkeypatch.chdir(tmp_path)
    for options in ((), ("--data-dir", "./typo")):
        failed = CliRunner().invoke(main, [*arguments, *options])
        folder = tmp_path / ("typo" if options else "fluvial-data")
        assert failed.exit_code == 2
        assert failed.stderr.startswith(f"Error: no fluvial data in {folder}: give --data-dir"), failed.stderr
        assert not folder.exists()


@pytest.mark.parametrize(
    "arguments", [("project", "list"), ("project", "adopt", "shop", ""), ("token", "mint", "shop")]
)
def test_unreadable_data_folder_is_reported_in_one_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Such as another user's private folder; here the name is too long for the file system."""
    folder = tmp_path / ("x" * 300)
    failed = run(folder, *arguments)
    assert failed.exit_code == 1
    assert failed.stderr.startswith(f"Error: cannot use {folder} as the data folder: File name too long")


def test_every_message_names_the_data_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From any working directory; the suggested command works from any other."""
    monkeypatch.chdir(folder.parent)

    def messages(*arguments: str) -> str:
        return CliRunner().invoke(main, [*arguments, "--data-dir", "data"]).stderr

    assert f"There are no projects in {folder}." in messages("project", "list")
    made = messages("project", "create", "shop", "--cut-off")
    assert f"Created the project shop in {folder}." in made
    suggested = shlex.split(made.strip().splitlines()[-1])
    monkeypatch.chdir("/")
    assert CliRunner().invoke(main, suggested[1:]).exit_code == 0
    monkeypatch.chdir(folder.parent)
    for arguments in (
        ("project", "create", "shop"),
        ("project", "show", "none"),
        ("project", "set", "shop", "--public"),
        ("project", "set", "none", "--public"),
        ("project", "add-secret", "shop"),
        ("project", "add-secret", "none"),
        ("project", "remove-secret", "shop", "0"),
        ("project", "delete", "shop"),
        ("project", "delete", "none"),
        ("token", "mint", "none"),
    ):
        assert str(folder) in messages(*arguments), arguments
    inspected = CliRunner().invoke(
        main, ["token", "inspect", "--data-dir", "data", token(sub="none", exp=4_000_000_000)]
    )
    assert str(folder) in json.loads(inspected.stdout)["reason"]
