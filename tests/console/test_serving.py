"""The console's files over HTTP: who gets them, and with which fields."""

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import httpx
import pytest

from fluvial.access.tokens import Claims, mint
from fluvial.app import build_application
from fluvial.clock import Clock
from fluvial.fanout.change_feed_backlog import ChangeFeedBacklog
from fluvial.model.permissions import OPERATOR, Scope
from fluvial.model.project import Secret
from fluvial.server.console.files import CONTENT_SECURITY_POLICY, CONTENT_TYPES, load_files
from fluvial.server.console.visitors import FORWARDING_FIELDS, find_objection
from fluvial.settings import settings_from
from fluvial.storage.memory import MemoryStore
from tests.support.servers import ThreadServer, server_in_thread

STATIC = files("fluvial.server.console") / "static"
FORBIDDEN_MARKUP = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "srcdoc")
HOST = {b"host": b"localhost:4437"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreadServer]:
    """An open server."""
    with server_in_thread(tmp_path_factory.mktemp("console") / "data") as running:
        yield running


@pytest.fixture
def http(server: ThreadServer) -> Iterator[httpx.Client]:
    """A client of the open server."""
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def test_page_and_each_of_its_files_have_type_and_security_headers(http: httpx.Client) -> None:
    """Whatever a file is, a browser runs nothing in it that is not the server's own."""
    for path in load_files():
        answer = http.get(path.decode())
        assert answer.status_code == 200
        assert answer.headers["content-type"].encode() in CONTENT_TYPES.values()
        assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY.decode()
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-cache"
        assert "access-control-allow-origin" not in answer.headers


def test_known_copy_is_confirmed_and_head_has_no_body(http: httpx.Client) -> None:
    """A browser asks each time, and gets a file again only when it has changed."""
    page = http.get("/", headers={"Accept-Encoding": "gzip"})
    assert page.headers["content-encoding"] == "gzip"
    assert http.get("/", headers={"Accept-Encoding": "identity"}).text == page.text
    again = http.get("/", headers={"If-None-Match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    head = http.head("/", headers={"Accept-Encoding": "identity"})
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) == len(page.text.encode())


def test_console_has_no_other_methods_and_no_other_files(http: httpx.Client) -> None:
    """Least of all a file outside of its folder."""
    assert http.post("/").status_code == 405
    assert http.post("/").headers["allow"] == "GET, HEAD"
    for path in ("/console/none.js", "/console/", "/console/..%2ffiles.py", "/console/%2e%2e/files.py"):
        answer = http.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "text/plain; charset=utf-8")
    assert http.get("/health").json()["status"] == "ok"


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "192.168.1.7:4437", "app.localhost", ""])
def test_open_server_shows_the_console_to_no_page_that_names_another_host(http: httpx.Client, host: str) -> None:
    """Such a request may come from a page whose name was made to point to this machine."""
    answer = http.get("/", headers={"Host": host})
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert "another host" in answer.text
    assert "fluvial project create" in answer.text
    assert http.get("/console/app.js", headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("field", FORWARDING_FIELDS, ids=bytes.decode)
def test_open_server_shows_the_console_to_no_forwarded_request(http: httpx.Client, field: bytes) -> None:
    """Behind a proxy every request comes from the proxy's address, which is often a loopback one."""
    answer = http.get("/", headers={field.decode(): "127.0.0.1"})
    assert answer.status_code == 403
    assert f"forwarded (it has the field {field.decode()})" in answer.text


@pytest.mark.parametrize("peer", ["192.168.1.7", "fe80::1%eth0", "::ffff:10.0.0.1", "2001:db8::1", "", "unix:", None])
def test_open_server_shows_the_console_to_no_other_machine(peer: str | None) -> None:
    """Nor to a peer without an address."""
    assert find_objection(peer, HOST) == "this request comes from another machine"


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", [b"localhost", b"LOCALHOST:1", b"127.0.0.1:4437", b"[::1]:4437"])
def test_open_server_shows_the_console_to_its_own_machine(peer: str, host: bytes) -> None:
    """By any of its names."""
    assert find_objection(peer, {b"host": host}) is None


def test_server_with_projects_shows_the_page_to_everybody_and_data_to_tokens_alone(tmp_path: Path) -> None:
    """The page has no data; all requests that it makes need a token."""
    with server_in_thread(tmp_path / "data", "--access", "projects") as server, httpx.Client() as client:
        answer = client.get(server.url, headers={"Host": "streams.example", "X-Forwarded-For": "203.0.113.7"})
        assert answer.status_code == 200
        assert "console/app.js" in answer.text
        assert client.get(f"{server.url}/v1/streams").status_code == 401


def test_console_of_an_open_server_is_for_everybody_once_there_is_a_project(tmp_path: Path) -> None:
    """From the first project on it asks for tokens."""
    secret = Secret("operators-secret-of-the-serving-test", 0)
    (tmp_path / "secret").write_text(secret.value)
    now_s = Clock().now_ms() // 1_000
    token = mint(secret, Claims(OPERATOR, Scope.MANAGE, now_s + 60))
    options = ("--operator-secret-file", str(tmp_path / "secret"))
    with server_in_thread(tmp_path / "data", *options) as server, httpx.Client(base_url=server.url) as client:
        elsewhere = {"Host": "streams.example"}
        assert client.get("/", headers=elsewhere).status_code == 403
        body = {"name": "shop", "secret": "s" * 32}
        created = client.post("/v1/projects", json=body, headers={"Authorization": f"Bearer {token}"})
        assert created.status_code == 201
        assert client.get("/", headers=elsewhere).status_code == 200


def test_console_can_be_switched_off(tmp_path: Path) -> None:
    """Then its paths are as any other that does not exist."""
    with server_in_thread(tmp_path / "data", "--console", "false") as server, httpx.Client() as client:
        for path in ("/", "/console/app.js", "/favicon.ico"):
            answer = client.get(server.url + path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_application_of_the_edge_function_has_no_console() -> None:
    """Only the server process loads it."""
    store = MemoryStore()
    application = build_application(settings_from({"store": "memory"}), store, Clock(), ChangeFeedBacklog(store))
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get("/")).status_code == 404


@pytest.mark.parametrize("path", ["/consolex", "/console", "/index.html", "/%63onsole/app.js"])
def test_other_paths_are_not_the_consoles(http: httpx.Client, path: str) -> None:
    """A path is the console's only as it is spelt."""
    assert http.get(path).json()["error"]["code"] == "not_found"


@pytest.mark.parametrize("name", sorted(path.decode().rpartition("/")[2] for path in load_files() if path != b"/"))
def test_console_file_makes_no_markup_and_names_no_other_host(name: str) -> None:
    """Texts become elements in one way alone: as text nodes."""
    if name == "favicon.ico":
        return
    text = (STATIC / name).read_text("utf-8")
    if name.endswith((".js", ".html")):
        for forbidden in FORBIDDEN_MARKUP:
            assert forbidden not in text
        assert not re.search(r"""<script(?![^>]*\bsrc=)|<style|\son\w+="|\sstyle=|javascript:""", text)
    hosts = set(re.findall(r"\bhttps?://([\w.-]+)", text))
    assert hosts <= {"www.w3.org", "html.spec.whatwg.org", "app.example"}
