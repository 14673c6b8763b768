"""The example, with its writer and its reader cut off half-way: nothing is lost or repeated."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.support.ports import free_port
from tests.support.servers import running_server

EXAMPLE = Path(__file__).parents[2] / "examples" / "token-stream"
TIMEOUT_S = 60


def start(*command: str) -> subprocess.Popen[str]:
    """A part of the example, in its folder."""
    return subprocess.Popen(command, cwd=EXAMPLE, stdout=subprocess.PIPE, text=True)


def kill_once(process: subprocess.Popen[str], has_begun: Callable[[str], bool]) -> None:
    """Let it print until it has begun, then send SIGKILL."""
    assert process.stdout is not None
    printed = ""
    while not has_begun(printed):
        printed += process.stdout.read(1)
    process.kill()
    process.wait(TIMEOUT_S)
    process.stdout.close()


def finished(process: subprocess.Popen[str]) -> str:
    """All that it prints until its end."""
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0
    return output


def expected_tokens() -> list[str]:
    """The text that the writer has in its source."""
    source = (EXAMPLE / "writer.mjs").read_text()
    text = "".join(re.findall(r'^  "(.*?)" ?\+?$', source, re.MULTILINE))
    return (text * 3).strip().split(" ")


@pytest.mark.slow
def test_writer_and_reader_resume_after_kill(tmp_path: Path) -> None:
    """The stream has every token once, in order, and the reader has seen just that."""
    progress = tmp_path / "progress.json"
    with running_server(tmp_path / "data") as server:
        url = server.url + "/v1/stream/answers/1"
        httpx.put(url, headers={"Content-Type": "application/json"})
        read = (sys.executable, "reader.py", url, str(progress))
        reader = start(*read)
        writer = start("node", "writer.mjs", url, "10")
        kill_once(reader, lambda printed: len(printed) > 40 and progress.exists())
        kill_once(writer, lambda printed: printed == "begins\n")
        reader = start(*read)
        second = finished(start("node", "writer.mjs", url, "5"))
        assert "goes on at token" in second
        rest = finished(reader)
        messages = httpx.get(url).json()
        assert finished(start("node", "writer.mjs", url)) == "is complete\n"
        assert finished(start(*read)) == f"goes on after {len(expected_tokens())} tokens\n\n"
        assert httpx.get(url).json() == messages
    expected = expected_tokens()
    assert len(expected) > 100
    assert [message["index"] for message in messages if "token" in message] == list(range(len(expected)))
    assert [message["token"] for message in messages if "token" in message] == expected
    assert json.loads(progress.read_text())["text"].split() == expected
    assert "goes on after" in rest


@pytest.mark.slow
def test_reader_ends_on_a_closed_stream(tmp_path: Path) -> None:
    """Also when it comes after the end, and when the last message is none of the writer's."""
    with running_server(tmp_path / "data") as server:
        url = server.url + "/v1/stream/answers/1"
        closed = {"Content-Type": "application/json", "Stream-Closed": "true"}
        httpx.put(url, content=b'[{"token":"a"},{"token":"b"}]', headers=closed)
        read = (sys.executable, "reader.py", url, str(tmp_path / "progress.json"))
        assert finished(start(*read)) == "a b \n"
        assert finished(start(*read)) == "goes on after 2 tokens\n\n"


@pytest.mark.slow
def test_reader_retries_while_the_server_is_down(tmp_path: Path) -> None:
    """It says so, pauses longer and longer, and goes on where it was."""
    port, progress = str(free_port()), tmp_path / "progress.json"
    with running_server(tmp_path / "data", "--port", port) as server:
        url = server.url + "/v1/stream/answers/1"
        httpx.put(url, content=b'{"token":"a"}', headers={"Content-Type": "application/json"})
        reader = subprocess.Popen(
            [sys.executable, "reader.py", url, str(progress)],
            cwd=EXAMPLE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert reader.stdout is not None
        assert reader.stderr is not None
        assert reader.stdout.read(2) == "a "
    assert reader.stderr.readline().endswith("tries again]\n")
    with running_server(tmp_path / "data", "--port", port):
        closing = {"Content-Type": "application/json", "Stream-Closed": "true"}
        httpx.post(url, content=b'{"token":"b"}', headers=closing)
        assert finished(reader) == "b \n"
    assert json.loads(progress.read_text())["text"] == "a b "


@pytest.mark.slow
def test_reader_does_not_retry_a_refused_request(tmp_path: Path) -> None:
    """A stream that is not there, and a URL that is none."""
    with running_server(tmp_path / "data") as server:
        for url, reason in ((server.url + "/v1/stream/missing", "404"), ("nowhere", "http")):
            command = [sys.executable, "reader.py", url, str(tmp_path / "progress.json")]
            ran = subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
            assert ran.returncode == 1
            assert ran.stderr.startswith("cannot read: ")
            assert reason in ran.stderr
