"""The real nginx with the recipe of docs/nginx, in a folder of its own."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.support.ports import free_port

RECIPE = Path(__file__).parents[2] / "docs" / "nginx" / "fluvial.conf"
START_TRIES = 100
START_PAUSE_S = 0.05


@dataclass
class Nginx:
    """One that runs."""

    url: str
    folder: Path

    @property
    def log(self) -> str:
        """All that it has logged."""
        return "".join(file.read_text() for file in sorted(self.folder.glob("*.log")))


def required() -> str:
    """The program; without it a test is skipped, but in CI it fails."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None and os.environ.get("CI"):
        raise AssertionError("nginx is not installed: apt-get install nginx-light")
    if program is None:
        pytest.skip("nginx is not installed")
    return program


@contextlib.contextmanager
def running_nginx(folder: Path, origin: str) -> Iterator[Nginx]:
    """The recipe as it is, but for its ports and folders, in front of a server."""
    port = free_port()
    recipe = RECIPE.read_text()
    for there, here in (
        ("127.0.0.1:4437", origin.removeprefix("http://")),
        ("listen 8080;", f"listen 127.0.0.1:{port};"),
        ("/var/cache/nginx/fluvial ", f"{folder}/cache "),
        ("/var/log/nginx/", f"{folder}/"),
    ):
        assert there in recipe, there
        recipe = recipe.replace(there, here)
    with running_configuration(folder, recipe, port) as nginx:
        yield nginx


@contextlib.contextmanager
def running_configuration(folder: Path, configuration: str, port: int) -> Iterator[Nginx]:
    """An nginx with an http block of its own, which listens on a port."""
    program = required()
    folder.mkdir()
    (folder / "http.conf").write_text(configuration)
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"{user} daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/start.log crit;\n"
        f"events {{ worker_connections 4096; }}\nhttp {{ include {folder}/http.conf; }}\n"
    )
    with (folder / "start.log").open("w") as log:
        process = subprocess.Popen([program, "-p", str(folder), "-c", "nginx.conf"], stderr=log)
    try:
        yield _answering(Nginx(f"http://127.0.0.1:{port}", folder), process)
    finally:
        process.terminate()
        process.wait(10)


def _answering(nginx: Nginx, process: subprocess.Popen[bytes]) -> Nginx:
    for _ in range(START_TRIES):
        assert process.poll() is None, (nginx.folder / "start.log").read_text()
        with contextlib.suppress(httpx.TransportError):
            httpx.get(nginx.url)
            return nginx
        time.sleep(START_PAUSE_S)
    raise AssertionError("nginx does not answer")
