"""From open to projects: what the first project would cut off, who is connected then, and the way back."""

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

from fluvial.access.authorizer import OPEN
from fluvial.app import build_application
from fluvial.cli.main import main
from fluvial.clock import Clock
from fluvial.fanout.delivery_worker import DeliveryWorker
from fluvial.model.errors import StoreUnavailable
from fluvial.operations.manage_projects import CUT_OFF_NAMED_MAX
from fluvial.serve import end_open_reads
from fluvial.server.websocket import POLICY_VIOLATION
from fluvial.settings import settings_from
from fluvial.storage.memory import MemoryStore
from fluvial.storage.memory_projects import MemoryProjects
from tests.access.doors import JSON, operator
from tests.support.access import token
from tests.support.folders import in_folder, make_folder
from tests.support.servers import RunningServer, running_server

TEXT = {"content-type": "text/plain"}

#: A second, half a second until it is looked at again, and what a busy machine may add.
ENDS_WITHIN_S = 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with streams that no project can have, and one that it can."""
    made = tmp_path / "data"
    make_folder(made, "Chat-Room/1", "my.app/x", "single", "shop/orders")
    return made


def run(folder: Path, *arguments: str) -> Result:
    """Run the command on the folder."""
    return CliRunner().invoke(main, [*arguments, "--data-dir", str(folder)])


def names_in(folder: Path) -> list[str]:
    """All streams that can be seen."""
    return in_folder(folder, lambda store: store.names("", "", 100))  # type: ignore[arg-type, return-value]


def minted(folder: Path, project: str, *options: str) -> dict[str, str]:
    """The field with a token."""
    return {"authorization": f"Bearer {run(folder, 'token', 'mint', project, *options).stdout.strip()}"}


def test_the_first_project_cuts_off_nothing_without_a_word(folder: Path) -> None:
    """It says how many streams nobody would reach any more, and which, and makes no project."""
    refused = run(folder, "project", "create", "shop")
    assert refused.exit_code == 1
    for told in ("3 streams", "Chat-Room/1", "my.app/x", "single", "--adopt", "--cut-off", str(folder)):
        assert told in refused.stderr
    assert refused.stdout == ""
    assert run(folder, "project", "list").stdout == ""
    made = run(folder, "project", "create", "shop", "--cut-off")
    assert made.exit_code == 0
    assert run(folder, "project", "create", "other").exit_code == 0  # the second one changes nothing for them
    assert names_in(folder) == ["Chat-Room/1", "my.app/x", "shop/orders", "single"]


def test_a_stream_that_is_called_like_the_project_would_be_cut_off_too(tmp_path: Path) -> None:
    """A stream's path is its project's name and one more segment at least."""
    make_folder(tmp_path / "data", "shop", "shop/orders")
    refused = run(tmp_path / "data", "project", "create", "shop")
    assert (refused.exit_code, "1 stream" in refused.stderr) == (1, True)


def test_a_project_that_cuts_nothing_off_needs_no_word(tmp_path: Path) -> None:
    """And of many streams only some are named."""
    make_folder(tmp_path / "data", "shop/a", "shop/b/c")
    assert run(tmp_path / "data", "project", "create", "shop").exit_code == 0
    many = [f"other/{number}" for number in range(CUT_OFF_NAMED_MAX + 3)]
    make_folder(tmp_path / "many", *many)
    refused = run(tmp_path / "many", "project", "create", "shop")
    assert f"{len(many)} streams" in refused.stderr
    assert refused.stderr.count("other/") == CUT_OFF_NAMED_MAX


@pytest.mark.medium
def test_what_would_be_cut_off_is_counted_beside_a_running_server(folder: Path) -> None:
    """Which has the folder for itself; also what it has just made is counted."""
    with running_server(folder) as server:
        assert httpx.put(f"{server.url}/v1/stream/new", headers=TEXT).status_code == 201
        refused = run(folder, "project", "create", "shop")
        assert (refused.exit_code, "4 streams" in refused.stderr) == (1, True)
        adopting = run(folder, "project", "create", "shop", "--adopt", "")
        assert (adopting.exit_code, "while no server is running" in adopting.stderr) == (1, True)
        assert httpx.get(f"{server.url}/v1/stream/new").status_code == 200
        assert run(folder, "project", "create", "shop", "--cut-off").exit_code == 0


@pytest.mark.slow
def test_over_http_the_first_project_is_refused_with_a_code_of_its_own(folder: Path, tmp_path: Path) -> None:
    """Until the operator says that the streams may be cut off; a server that was never open cuts off nothing."""
    secret = tmp_path / "secret"
    secret.write_text("p" * 32)
    body = {"name": "shop", "secret": "s" * 32}
    options = ("--operator-secret-file", str(secret))
    with running_server(folder, *options) as server, httpx.Client(base_url=server.url) as client:
        headers = {**operator(), **JSON}
        refused = client.post("/v1/projects", json=body, headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "streams_cut_off")
        assert "3 streams" in refused.json()["error"]["message"]
        assert client.get("/v1/stream/single").status_code == 200
        assert client.post("/v1/projects", json={**body, "cutOff": True}, headers=headers).status_code == 201
        assert client.post("/v1/projects", json={**body, "name": "b"}, headers=headers).status_code == 201
    make_folder(tmp_path / "closed", "single")
    with running_server(tmp_path / "closed", *options, "--access", "projects") as server:
        assert httpx.post(f"{server.url}/v1/projects", json=body, headers=headers).status_code == 201


@pytest.mark.medium
def test_adopted_streams_are_reached_by_the_projects_tokens(folder: Path) -> None:
    """With their bytes and their offsets; the former paths are gone."""
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


def test_only_what_begins_so_and_is_nobodys_is_adopted(folder: Path) -> None:
    """A project's streams are never taken, and what is left must be named or let go of."""
    refused = run(folder, "project", "create", "chat", "--adopt", "Chat-Room/", "--adopt", "si")
    assert (refused.exit_code, "2 streams" in refused.stderr) == (1, True)
    assert run(folder, "project", "create", "shop", "--cut-off").exit_code == 0
    made = run(folder, "project", "create", "chat", "--adopt", "Chat-Room/")
    assert "Adopted 1 stream: chat/Chat-Room/1\n" in made.stderr
    adopted = run(folder, "project", "adopt", "chat", "s", "my.app/")
    assert (adopted.exit_code, "Adopted 2 streams" in adopted.stderr) == (0, True)
    assert names_in(folder) == ["chat/Chat-Room/1", "chat/my.app/x", "chat/single", "shop/orders"]
    assert "Adopted 0 streams" in run(folder, "project", "adopt", "chat", "").stderr
    assert run(folder, "project", "adopt", "none", "").exit_code == 1


@pytest.mark.slow
def test_forks_and_estuaries_know_an_adopted_stream_by_its_new_name(tmp_path: Path) -> None:
    """What was followed is followed, and a source that was deleted ends with its last fork."""
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


def test_the_cursor_of_a_source_that_is_gone_makes_way_for_an_adopted_one(tmp_path: Path) -> None:
    """An estuary that once followed a stream of the new name goes on where it is in the one that has it now."""
    folder = tmp_path / "data"
    make_folder(folder, "inbox", "news")
    live, gone = {"incarnation": 1, "position": 4}, {"incarnation": 2, "position": 9}
    with closing(sqlite3.connect(folder / "fluvial.db")) as database, database:
        cursors = json.dumps({"news": live, "shop/news": gone, "other": gone}).encode()
        database.execute("UPDATE stream SET cursors = ? WHERE name = 'inbox'", (cursors,))
    assert run(folder, "project", "create", "shop", "--adopt", "").exit_code == 0
    with closing(sqlite3.connect(folder / "fluvial.db")) as database:
        [(kept,)] = database.execute("SELECT cursors FROM stream WHERE name = 'shop/inbox'")
    assert json.loads(kept) == {"shop/news": live, "other": gone}


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


def test_a_kill_during_an_adoption_renames_nothing(folder: Path) -> None:
    """All names are as they were, and the same command does it later."""
    before = names_in(folder)
    assert subprocess.run([sys.executable, "-c", KILLED, str(folder)], check=False).returncode == 9
    assert names_in(folder) == before
    assert run(folder, "project", "create", "shop", "--adopt", "").exit_code == 0
    assert names_in(folder) == ["shop/Chat-Room/1", "shop/my.app/x", "shop/orders", "shop/single"]


def test_nothing_is_adopted_when_a_name_is_taken_or_too_long(tmp_path: Path) -> None:
    """And no project is made."""
    for name, told in (("single", "shop/single already"), ("l" * 999, "over 1000 bytes")):
        folder = tmp_path / name[:6]
        make_folder(folder, name, "shop/single")
        refused = run(folder, "project", "create", "shop", "--adopt", "")
        assert (refused.exit_code, told in refused.stderr) == (1, True), refused.stderr
        assert run(folder, "project", "list").stdout == ""
        assert names_in(folder) == sorted([name, "shop/single"])


def test_a_table_adopts_nothing_and_says_so() -> None:
    """There a stream's name is the key of all that it has; nothing is asked of AWS for that."""
    for arguments in (("project", "adopt", "shop", ""), ("project", "create", "shop", "--adopt", "")):
        refused = CliRunner().invoke(main, [*arguments, "--store", "dynamodb"])
        assert (refused.exit_code, "only --store sqlite can adopt" in refused.stderr) == (2, True)


@pytest.mark.slow
def test_a_folder_without_its_projects_is_open_again(folder: Path) -> None:
    """The way back, as docs/security.md tells it: stop the server and remove projects.db."""
    assert run(folder, "project", "create", "shop", "--cut-off").exit_code == 0
    with running_server(folder) as server:
        assert httpx.get(f"{server.url}/v1/stream/single").status_code == 401
    for file in folder.glob("projects.db*"):
        file.unlink()
    with running_server(folder) as server:
        assert httpx.get(f"{server.url}/v1/stream/single").content == b"single"


def live_reads(server: RunningServer) -> int:
    """How many are open."""
    count: int = httpx.get(server.url + "/health").json()["liveReads"]
    return count


@pytest.mark.medium
def test_who_came_while_the_server_was_open_is_let_go_when_it_closes(tmp_path: Path) -> None:
    """Event streams and long-polls end, sockets say why, and none hears of what is appended then."""
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


class OddProjects(MemoryProjects):
    """Fails twice, then tells of a project."""

    def __init__(self) -> None:
        """It will fail for a known reason, and for one that nobody has foreseen."""
        super().__init__()
        self.errors: list[Exception] = [StoreUnavailable(), KeyError()]

    async def any_ever(self) -> bool:
        """See Projects.any_ever."""
        if self.errors:
            raise self.errors.pop(0)
        return True


async def test_a_look_that_fails_is_a_line_of_log_and_not_the_last_one(caplog: pytest.LogCaptureFixture) -> None:
    """However a store fails to tell whether the server is open, who came while it was is let go in the end."""
    store = MemoryStore()
    store.projects = OddProjects()
    application = build_application(settings_from({"store": "memory"}), store, Clock(), DeliveryWorker(store, None))

    async def stay(_read: object) -> None:
        await asyncio.Event().wait()

    async with application.live.opened(stay, OPEN):
        await end_open_reads(application, pause_s=0)
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
def test_only_serve_makes_a_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    """Every other command refuses one without data, and says where it has looked, spelt out."""
    monkeypatch.chdir(tmp_path)
    for options in ((), ("--data-dir", "./typo")):
        refused = CliRunner().invoke(main, [*arguments, *options])
        folder = tmp_path / ("typo" if options else "fluvial-data")
        assert refused.exit_code == 2
        assert refused.stderr.startswith(f"Error: no fluvial data in {folder}: give --data-dir"), refused.stderr
        assert not folder.exists()


@pytest.mark.parametrize(
    "arguments", [("project", "list"), ("project", "adopt", "shop", ""), ("token", "mint", "shop")]
)
def test_a_folder_that_cannot_be_looked_into_is_one_clear_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """As another user's cannot, whose folders are private; here its name is too long for the file system."""
    folder = tmp_path / ("x" * 300)
    refused = run(folder, *arguments)
    assert refused.exit_code == 1
    assert refused.stderr.startswith(f"Error: cannot use {folder} as the data folder: File name too long")


def test_every_message_names_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From wherever the command runs; and the command that is suggested works from there."""
    monkeypatch.chdir(folder.parent)

    def told(*arguments: str) -> str:
        return CliRunner().invoke(main, [*arguments, "--data-dir", "data"]).stderr

    assert f"There are no projects in {folder}." in told("project", "list")
    made = told("project", "create", "shop", "--cut-off")
    assert f"Made the project shop in {folder}." in made
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
        assert str(folder) in told(*arguments), arguments
    inspected = CliRunner().invoke(
        main, ["token", "inspect", "--data-dir", "data", token(sub="none", exp=4_000_000_000)]
    )
    assert str(folder) in json.loads(inspected.stdout)["reason"]
