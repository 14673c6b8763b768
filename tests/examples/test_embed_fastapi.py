"""The example of an embedded server, under uvicorn as its docstring starts it."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "embed-fastapi"


@pytest.mark.slow
def test_chat_is_live_and_kept(tmp_path: Path) -> None:
    """What is said comes at once, is read without HTTP, and is there after a restart."""
    for said in (["hello"], ["hello", "again"]):
        command = [sys.executable, "-m", "uvicorn", "chat:app", "--port", "0", "--timeout-graceful-shutdown", "1"]
        environment = {**os.environ, "CHAT_DATA": str(tmp_path / "data")}
        process = subprocess.Popen(command, cwd=EXAMPLE, env=environment, stderr=subprocess.PIPE, text=True)
        try:
            assert process.stderr is not None
            url = next(found[1] for line in process.stderr if (found := re.search(r"running on (http://\S+)", line)))
            events_url = f"{url}/streams/v1/stream/rooms/lobby?offset=now&live=sse"
            with httpx.stream("GET", events_url, timeout=20) as events:
                message = {"who": "ada", "says": said[-1]}
                assert httpx.post(f"{url}/rooms/lobby", json=message).status_code == 200
                assert any(f'"says":"{said[-1]}"' in line for line in events.iter_lines())
            found = httpx.get(f"{url}/rooms/lobby/last").json()
            assert [message["says"] for message in found] == said
            assert httpx.post(f"{url}/rooms/absent", json=message).status_code == 404
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)
