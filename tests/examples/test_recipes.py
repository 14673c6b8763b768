"""The recipes of the documentation, run as a reader of theirs would run them."""

import hashlib
import hmac
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.examples.programs import TIMEOUT_S, application, program, with_node_modules
from tests.support.ports import free_port
from tests.support.servers import RunningServer, running_server

SECRET, WRONG_SECRET = "secret", "guess"
CHROMIUM = shutil.which("chromium")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose event streams end often, so that readers come back."""
    with running_server(tmp_path_factory.mktemp("recipes") / "data", "--sse-max-age", "2") as running:
        yield running


@pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason="there is no Chromium (Debian: chromium)")
def test_pages_continue_after_reconnects_and_reloads(server: RunningServer, tmp_path: Path) -> None:
    """The page of ten lines, and the chat in the middle of an answer; each test of the script passes."""
    assert CHROMIUM is not None, "there is no Chromium"
    chat = with_node_modules("ai-chat", tmp_path)
    with program("node", "server.mjs", server.url, "0", folder=chat) as chat_url:
        environment = {**os.environ, "FLUVIAL_URL": server.url, "CHAT_URL": chat_url, "CHROMIUM": CHROMIUM}
        command = ["node", "--test", "--test-force-exit", "--test-reporter=spec", "pages.test.mjs"]
        ran = subprocess.run(
            command,
            cwd=Path(__file__).parent,
            env={**environment, "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=4 * TIMEOUT_S,
            check=False,
        )
    assert ran.returncode == 0, ran.stdout[-8_000:] + ran.stderr[-2_000:]
    assert "fail 0" in ran.stdout


def test_fastapi_answer_is_complete_although_its_client_leaves(server: RunningServer) -> None:
    """The POST is answered at once, and the stream closes with the whole text."""
    with application("fastapi-tokens", "app:app", FLUVIAL_URL=server.url) as url:
        asked = httpx.post(f"{url}/answers", json={"prompt": "Hello"})
        assert asked.status_code == 201
        stream = asked.json()["stream"]
        text = follow_to_the_end(stream)
    assert text == "You said: Hello. A stream is kept, and a reader goes on where it stopped. "


def test_fastapi_answer_outlives_an_outage_of_the_server(tmp_path: Path) -> None:
    """The application repeats what was not acknowledged, and no token comes twice."""
    port = str(free_port())
    with (
        running_server(tmp_path / "data", "--port", port) as server,
        application("fastapi-tokens", "app:app", FLUVIAL_URL=server.url) as url,
    ):
        stream = httpx.post(f"{url}/answers", json={"prompt": "Hello"}).json()["stream"]
        server.kill()
        with running_server(tmp_path / "data", "--port", port):
            text = follow_to_the_end(stream)
    assert text == "You said: Hello. A stream is kept, and a reader goes on where it stopped. "


def follow_to_the_end(url: str) -> str:
    """A stream's text, once it is closed."""
    text, offset = "", "-1"
    while True:
        read = httpx.get(url, params={"offset": offset, "live": "long-poll"}, timeout=TIMEOUT_S)
        read.raise_for_status()
        text, offset = text + read.text, read.headers["stream-next-offset"]
        if read.headers.get("stream-closed") == "true":
            return text


def deliver(url: str, delivery: str, body: bytes, secret: str = SECRET) -> int:
    """What a sender of webhooks does."""
    signature = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-Hub-Signature-256": signature, "X-GitHub-Delivery": delivery}
    return httpx.post(f"{url}/hooks/shop", content=body, headers=headers, timeout=TIMEOUT_S).status_code


def test_webhook_that_is_delivered_again_is_appended_once(server: RunningServer) -> None:
    """Also when the same delivery comes many times at once."""
    with application("webhooks", "receiver:app", FLUVIAL_URL=server.url, WEBHOOK_SECRET=SECRET) as url:
        with ThreadPoolExecutor(8) as senders:
            statuses = senders.map(
                lambda number: deliver(url, f"delivery-{number % 4}", b'{"n":%d}' % (number % 4)), range(16)
            )
            assert set(statuses) == {200}
        assert deliver(url, "wrong", b'{"n":9}', secret=WRONG_SECRET) == 401
        assert deliver(url, "no-json", b"{") == 400
        assert deliver(url, "", b"{}") == 400
        assert deliver(url, "large", b"1" * 1_000_001) == 413
    messages = httpx.get(f"{server.url}/v1/stream/webhooks/shop").json()
    assert sorted(message["n"] for message in messages) == [0, 1, 2, 3]


def test_webhook_is_refused_while_the_server_is_down() -> None:
    """With a status that makes the sender try again."""
    nowhere = f"http://127.0.0.1:{free_port()}"
    with application("webhooks", "receiver:app", FLUVIAL_URL=nowhere, WEBHOOK_SECRET=SECRET) as url:
        assert deliver(url, "delivery", b"{}") == 503


def test_editors_of_a_document_see_each_others_lines(server: RunningServer, tmp_path: Path) -> None:
    """Also an editor that comes later, through another Yjs server, because the document is in the stream."""
    folder = with_node_modules("yjs", tmp_path)

    def editor(url: str, *line: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["node", "editor.mjs", url, "notes", *line], cwd=folder, stdout=subprocess.PIPE, text=True
        )

    def wait_for(process: subprocess.Popen[str], lines: list[str]) -> None:
        assert process.stdout is not None
        while json.loads(process.stdout.readline()) != lines:
            pass

    started = list[subprocess.Popen[str]]()
    try:
        with program("node", "server.mjs", server.url, "0", folder=folder) as url:
            started.append(editor(url))
            wait_for(started[0], [])
            started.append(editor(url, "first"))
            wait_for(started[0], ["first"])
            wait_for(started[1], ["first"])
        with program("node", "server.mjs", server.url, "0", folder=folder) as url:
            started.append(editor(url))
            wait_for(started[2], ["first"])
    finally:
        for process in started:
            process.kill()
            process.communicate()
