"""The servers that the browser's tests and pictures use: one is open, one asks for tokens and has an operator."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fluvial.access.tokens import Claims, mint
from fluvial.clock import Clock
from fluvial.model.permissions import OPERATOR, Scope
from fluvial.model.project import Secret
from tests.support.servers import running_server

HERE = Path(__file__).parent
CHROMIUM = shutil.which("chromium")
TIMEOUT_S = 240


@contextmanager
def console_servers(folder: Path) -> Iterator[dict[str, str]]:
    """Both servers; the environment that the scripts read."""
    secret = Secret("operators-secret-of-the-console-tests", 0)
    secret_file = folder / "operator-secret"
    secret_file.write_text(secret.value)
    now_s = Clock().now_ms() // 1_000
    token = mint(secret, Claims(OPERATOR, Scope.MANAGE, now_s + 3_600, iat=now_s))
    options = ("--operator-secret-file", str(secret_file), "--sse-max-age", "2")
    with (
        running_server(folder / "open", *options) as open_server,
        running_server(folder / "closed", "--access", "projects", *options) as closed_server,
    ):
        yield {
            **os.environ,
            "NO_COLOR": "1",
            "CHROMIUM": CHROMIUM or "",
            "FLUVIAL_URL": open_server.url,
            "FLUVIAL_PROJECTS_URL": closed_server.url,
            "OPERATOR_TOKEN": token,
        }
        assert "[error" not in open_server.log + closed_server.log, open_server.log + closed_server.log


def run_script(environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    """Run node in this folder."""
    return subprocess.run(
        ["node", *command], cwd=HERE, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
