"""The example, with its writer and its reader cut off half-way: nothing is lost or repeated."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

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


def tokens_in(source: str) -> list[str]:
    """The text that the writer has in its source."""
    text = "".join(re.findall(r'^  "(.*?)" ?\+?$', source, re.MULTILINE))
    return (text * 3).strip().split(" ")


@pytest.mark.slow
def test_writer_and_reader_go_on_where_they_were_cut_off(tmp_path: Path) -> None:
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
    expected = tokens_in((EXAMPLE / "writer.mjs").read_text())
    assert len(expected) > 100
    assert [message["index"] for message in messages if "token" in message] == list(range(len(expected)))
    assert [message["token"] for message in messages if "token" in message] == expected
    assert json.loads(progress.read_text())["text"].split() == expected
    assert "goes on after" in rest
