"""The Python client's own tests, as its authors publish them, with this server in place of theirs."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.support.servers import running_server

pytestmark = pytest.mark.slow

VERSION = "0.1.0"
SHA256 = "3984b126010ada9d5208d0b2135acaaf1c20b3852908328c4ba8cc8e0ed42fd2"
CACHE = Path(__file__).parent / "lib"
ARCHIVE = CACHE / f"durable_streams-{VERSION}.tar.gz"

#: Those of its tests that take a server; the others answer themselves.
TESTS_WITH_A_SERVER = 23
TIMEOUT_S = 120

#: Its tests start a server with node, from where it is in its authors' repository.
STAND_IN = """
export class DurableStreamTestServer {
  async start() {
    this.timer = setInterval(() => {}, 1000)
    return process.env.FLUVIAL_URL + "/v1/stream"
  }

  async stop() {
    clearInterval(this.timer)
  }
}
"""


def fetch_archive() -> Path:
    """Its source archive, by pip; it is kept, and is the one whose hash is above."""
    if not ARCHIVE.exists():
        CACHE.mkdir(exist_ok=True)
        wanted = CACHE / "requirements.txt"
        wanted.write_text(f"durable-streams=={VERSION} --hash=sha256:{SHA256}\n")
        options = ("--quiet", "--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes")
        command = [sys.executable, "-m", "pip", "download", *options, "-r", str(wanted), "-d", str(CACHE)]
        fetched = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        assert fetched.returncode == 0, fetched.stderr
    assert hashlib.sha256(ARCHIVE.read_bytes()).hexdigest() == SHA256
    return ARCHIVE


def unpack_repository(folder: Path) -> Path:
    """What its tests look for around themselves: a workspace with them and a server in it; their folder."""
    with tarfile.open(fetch_archive()) as archive:
        archive.extractall(folder, filter="data")
    packages = folder / "packages"
    packages.mkdir()
    client = shutil.move(folder / f"durable_streams-{VERSION}", packages / "client-py")
    (folder / "pnpm-workspace.yaml").touch()
    (folder / "package.json").write_text('{"type": "module"}')
    server = packages / "server" / "dist"
    server.mkdir(parents=True)
    (server / "index.js").write_text(STAND_IN)
    return Path(client)


def test_python_clients_own_tests_pass(tmp_path: Path) -> None:
    """All that take a server; its files are as they were published."""
    client = unpack_repository(tmp_path / "repository")
    command = [sys.executable, "-m", "pytest", "-m", "integration", "-p", "no:cacheprovider", "-q", "-rfEs", "tests"]
    with running_server(tmp_path / "data", "--long-poll-timeout", "1") as server:
        environment = {**os.environ, "FLUVIAL_URL": server.url, "NO_COLOR": "1"}
        ran = subprocess.run(
            command, cwd=client, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        log = server.log
    assert ran.returncode == 0, ran.stdout[-8_000:] + ran.stderr[-2_000:]
    passed = re.search(r"(\d+) passed", ran.stdout)
    assert passed is not None, ran.stdout
    assert int(passed[1]) == TESTS_WITH_A_SERVER
    assert "error" not in log, log
