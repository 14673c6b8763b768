"""The commands `fluvial project` and `fluvial token`, partly beside a running server."""

import json
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fluvial.app import build_application
from fluvial.clock import Clock
from fluvial.fanout.change_feed_backlog import ChangeFeedBacklog
from fluvial.model.limits import SECRETS_PER_PROJECT_MAX
from fluvial.settings import settings_from
from fluvial.storage.memory import MemoryStore
from tests.support.folders import create_data_folder
from tests.support.program import assert_command_failed, assert_failure, assert_usage_error, fluvial
from tests.support.servers import RunningServer, running_server

#: A second, and time for a busy machine.
CLOSES_WITHIN_S = 5

TEXT = {"content-type": "text/plain"}


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A data folder, as a stopped server leaves it."""
    create_data_folder(tmp_path / "data")
    return str(tmp_path / "data")


@pytest.fixture
def server(folder: str) -> Iterator[RunningServer]:
    """A server on the folder."""
    with running_server(Path(folder)) as running:
        yield running


def ran(*arguments: str) -> str:
    """The standard output of a command, which must succeed."""
    done = fluvial(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.medium
def test_running_server_closes_soon_after_the_first_project_is_created(folder: str, server: RunningServer) -> None:
    """From then on it requires tokens, and accepts minted ones."""
    with httpx.Client(base_url=server.url) as client:
        assert client.put("/v1/stream/shop/a", headers=TEXT, content=b"x").status_code == 201
        secret = ran("project", "create", "shop", "--data-dir", folder)
        assert len(secret) >= 32
        began = time.monotonic()
        while client.get("/v1/stream/shop/a").status_code != 401:
            assert time.monotonic() - began < CLOSES_WITHIN_S
        token = ran("token", "mint", "shop", "--data-dir", folder)
        assert client.get("/v1/stream/shop/a", headers={"authorization": f"Bearer {token}"}).content == b"x"
        assert client.get(f"/v1/stream/shop/a?token={token}").content == b"x"
        assert client.delete("/v1/stream/shop/a", headers={"authorization": f"Bearer {token}"}).status_code == 403
        from_file = Path(folder, "s")
        from_file.write_text(secret)
        again = ran("token", "mint", "shop", "--scope", "write", "--secret-file", str(from_file))
        assert client.delete("/v1/stream/shop/a", headers={"authorization": f"Bearer {again}"}).status_code == 204


def test_secret_is_printed_only_at_creation(folder: str) -> None:
    """No other command prints it, and other users cannot read its file."""
    secret = ran("project", "create", "shop", "--data-dir", folder)
    for command in (("show", "shop"), ("list",), ("set", "shop", "--public")):
        assert secret not in ran("project", *command, "--data-dir", folder)
    [file] = Path(folder).glob("projects.db")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_project_can_be_created_changed_and_deleted(folder: str) -> None:
    """With rules, limits and rotated secrets."""
    here = ("--data-dir", folder)
    ran("project", "create", "shop", "--origin", "https://a.example", "--origin", "https://b.example", *here)
    assert_command_failed(fluvial("project", "create", "shop", *here), "already a project of that name")
    shown = json.loads(ran("project", "show", "shop", *here))
    assert shown["origins"] == ["https://a.example", "https://b.example"]
    assert shown["public"] is False
    changes = ("--no-origins", "--public", "--requests-per-second", "5", "--bytes-per-day", "1000")
    shown = json.loads(ran("project", "set", "shop", *changes, *here))
    assert (shown["origins"], shown["public"]) == ([], True)
    shown = json.loads(ran("project", "set", "shop", "--private", "--requests-per-second", "0", *here))
    assert shown["public"] is False
    assert shown["limits"] == {"requestsPerSecond": None, "liveReads": None, "bodyBytes": None, "bytesPerDay": 1000}
    ran("project", "add-secret", "shop", *here)
    newest, oldest = json.loads(ran("project", "show", "shop", *here))["secrets"]
    ran("project", "remove-secret", "shop", oldest["id"], *here)
    assert_command_failed(fluvial("project", "remove-secret", "shop", newest["id"], *here), "last secret")
    assert_command_failed(fluvial("project", "remove-secret", "shop", oldest["id"], *here), "no such secret")
    for _ in range(SECRETS_PER_PROJECT_MAX - 1):
        ran("project", "add-secret", "shop", *here)
    assert_command_failed(fluvial("project", "add-secret", "shop", *here), f"up to {SECRETS_PER_PROJECT_MAX}")
    assert ran("project", "list", *here) == "shop"
    ran("project", "delete", "shop", *here)
    assert ran("project", "list", *here) == ""


def test_project_with_streams_cannot_be_deleted(folder: str, server: RunningServer) -> None:
    """Beside a running server on SQLite, the command fails, too."""
    with httpx.Client(base_url=server.url) as client:
        assert client.put("/v1/stream/shop/a", headers=TEXT).status_code == 201
    ran("project", "create", "shop", "--data-dir", folder)
    assert_command_failed(fluvial("project", "delete", "shop", "--data-dir", folder), "in use by another fluvial")
    server.terminate()
    assert_command_failed(fluvial("project", "delete", "shop", "--data-dir", folder), "still has streams")


@pytest.mark.medium
@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("project", "create", "Shop"), 2, ("lower-case",)),
        (("project", "create", "a/b"), 2, ("lower-case",)),
        (("project", "create", "shop", "--origin", "app.example"), 2, ("origin", "https://host")),
        (("project", "create", "shop", "--origin", "https://app.example/"), 2, ("origin",)),
        (("project", "create", "shop", "--secret-file", "/none"), 2, ("/none",)),
        (("project", "create", "shop", "--store", "memory"), 2, ("memory",)),
        (("project", "show", "none"), 1, ("no project",)),
        (("project", "set", "none", "--public"), 1, ("no project",)),
        (("project", "set", "none", "--origin", "*", "--no-origins"), 2, ("exclude",)),
        (("token", "mint", "none"), 1, ("no project",)),
        (("token", "mint", "Bad Name"), 2, ("no project",)),
        (("token", "mint", "*", "--scope", "manage"), 2, ("--secret-file",)),
        (("token", "mint", "none", "--scope", "admin"), 2, ("admin",)),
        (("token", "mint", "none", "--expires-in", "0"), 2, ("0",)),
        (("token", "inspect", "nonsense"), 2, ("not a JSON Web Token",)),
        (("serve", "--port", "0", "--operator-secret-file", "/none"), 2, ("/none",)),
        (("serve", "--port", "0", "--access", "none"), 2, ("--access", "auto, projects")),
        (
            ("serve", "--port", "0", "--cors-origins", "localhost, https://a.example/"),
            2,
            ("--cors-origins", "https://host"),
        ),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, tuple) else None,
)
def test_invalid_command_is_reported_in_one_line(
    folder: str, arguments: tuple[str, ...], status: int, words: tuple[str, ...]
) -> None:
    """The exit status tells wrong input from failure."""
    assert_failure(fluvial(*arguments, "--data-dir", folder), status, *words)


def test_weak_secret_is_rejected_and_not_printed(folder: str, tmp_path: Path) -> None:
    """For projects, for operators, and for tokens."""
    weak = tmp_path / "weak"
    weak.write_text("too-short")
    for arguments in (
        ("project", "create", "shop", "--secret-file", str(weak)),
        ("serve", "--port", "0", "--operator-secret-file", str(weak)),
        ("token", "mint", "shop", "--secret-file", str(weak)),
        ("project", "add-secret", "shop", "--secret-file", str(weak)),
    ):
        done = fluvial(*arguments, "--data-dir", folder)
        assert_usage_error(done, "32")
        assert "too-short" not in done.stderr
    good = ran("token", "mint", "shop", "--secret-file", str(strong(tmp_path)))
    inspected = fluvial("token", "inspect", good, "--secret-file", str(weak), "--data-dir", folder)
    assert (inspected.returncode, json.loads(inspected.stdout)["valid"]) == (1, False)


def strong(folder: Path) -> Path:
    """A file with a valid secret."""
    file = folder / "strong"
    file.write_text("s" * 32)
    return file


def test_token_inspect_shows_claims_and_validity(folder: str) -> None:
    """And the reason why a token is not valid."""
    ran("project", "create", "shop", "--data-dir", folder)
    token = ran("token", "mint", "shop", "--stream", "chat/", "--jti", "t1", "--data-dir", folder)
    shown = json.loads(ran("token", "inspect", token, "--data-dir", folder))
    assert (shown["valid"], shown["claims"]["stream"], shown["claims"]["jti"]) == (True, "chat/", "t1")
    assert shown["expires"].startswith("20")
    ran("project", "create", "other", "--data-dir", folder)
    for other, defect in ((token[:-4] + "AAAA", "signed"), (ran("token", "mint", "other", "--data-dir", folder), None)):
        done = fluvial("token", "inspect", other, "--data-dir", folder)
        assert done.returncode == (1 if defect else 0)
        assert defect is None or defect in json.loads(done.stdout)["reason"]
    piped = fluvial("token", "inspect", "--data-dir", folder, piped=token + "\n")
    assert (piped.returncode, json.loads(piped.stdout)["valid"]) == (0, True)


def test_operator_creates_projects_over_http(folder: str, tmp_path: Path) -> None:
    """With a token that is signed with the operators' secret, also on the memory store."""
    secret = tmp_path / "operator"
    secret.write_text("o" * 32 + "\n")
    options = ("--store", "memory", "--operator-secret-file", str(secret), "--access", "projects")
    with running_server(Path(folder), *options) as server, httpx.Client(base_url=server.url) as client:
        assert client.put("/v1/stream/shop/a", headers=TEXT).status_code == 401
        token = ran("token", "mint", "*", "--scope", "manage", "--secret-file", str(secret))
        body = {"name": "shop", "secret": "s" * 32}
        headers = {"authorization": f"Bearer {token}"}
        assert client.post("/v1/projects", json=body, headers=headers).status_code == 201
        assert client.get("/v1/projects", headers=headers).json()["projects"][0]["name"] == "shop"


@pytest.mark.parametrize(
    ("setting", "origin", "allowed"),
    [
        ("*", "https://a.example", "*"),
        ("", "https://a.example", None),
        ("localhost", "http://localhost:5173", "http://localhost:5173"),
        ("localhost", "https://a.example", None),
        ("https://a.example, https://b.example", "https://b.example", "https://b.example"),
        ("https://a.example,https://b.example", "https://c.example", None),
    ],
)
async def test_cors_origins_of_an_open_server_are_a_setting(setting: str, origin: str, allowed: str | None) -> None:
    """Localhost with any port, all, none, or a list."""
    settings, store = settings_from({"store": "memory", "cors_origins": setting}), MemoryStore()
    application = build_application(settings, store, Clock(), ChangeFeedBacklog(store))
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        answer = await client.get("/v1/stream/none", headers={"origin": origin})
    assert answer.headers.get("access-control-allow-origin") == allowed
