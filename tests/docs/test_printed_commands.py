"""Commands that documents print, run as they are printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.examples.programs import with_node_modules
from tests.support.servers import running_server

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def test_commands_for_agents_answer_as_the_page_says(tmp_path: Path) -> None:
    """Each request has the status that stands beside it."""
    page = (ROOT / "docs" / "for-agents.md").read_text()
    block = page.partition("## Create, append, read, resume")[2].partition("```sh\n")[2].partition("```")[0]
    lines = [line for line in block.splitlines() if "-sN" not in line]
    expected = re.findall(r"# (\d{3})", "\n".join(lines))
    with running_server(tmp_path / "data", "--long-poll-timeout", "0.2") as server:
        script = "\n".join(lines).replace("http://localhost:4437", server.url).replace("OFFSET", "now")
        ran = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, timeout=30, check=True)
    statuses = re.findall(r"HTTP/1.1 (\d{3})", ran.stdout)
    assert len(statuses) == sum(line.startswith("curl") for line in lines)
    assert statuses == ["201", "204", "200", "200", "204", "204", "204"]
    assert set(expected) <= set(statuses)
    assert '[{"n":1},{"n":2}]' in ran.stdout


def test_quick_start_prints_what_its_comments_say(tmp_path: Path) -> None:
    """The two official clients."""
    folder = with_node_modules("quick-start", tmp_path)
    with running_server(tmp_path / "data") as server:
        for command in (("node", "notes.mjs"), (sys.executable, "notes.py")):
            url = f"{server.url}/v1/stream/notes/{command[1]}"
            ran = subprocess.run(
                [*command, url], cwd=folder, env=os.environ, capture_output=True, text=True, timeout=30, check=True
            )
            comments = re.findall(r"(?://|#) (\[.*\])$", (folder / command[1]).read_text(), re.MULTILINE)
            assert len(comments) == 2
            assert ran.stdout.replace("'", '"').splitlines() == [line.replace("'", '"') for line in comments]
