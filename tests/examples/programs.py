"""Start an example's programs as its reader would, with the packages that the clients' tests have."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
CLIENTS = ROOT / "tests" / "clients"
TIMEOUT_S = 30


def with_node_modules(example: str, folder: Path) -> Path:
    """A copy of an example that finds the packages of tests/clients, which its package.json asks for."""
    wanted = json.loads((EXAMPLES / example / "package.json").read_text())["dependencies"]
    present = json.loads((CLIENTS / "package.json").read_text())["dependencies"]
    assert wanted.items() <= present.items()
    copy = folder / example
    shutil.copytree(EXAMPLES / example, copy, ignore=shutil.ignore_patterns("node_modules"))
    (copy / "node_modules").symlink_to(CLIENTS / "node_modules")
    return copy


@contextmanager
def program(*command: str, folder: Path, **environment: str) -> Iterator[str]:
    """A program that announces its URL; the URL. It is ended at the end of the block."""
    with subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            printed = ""
            while (found := re.search(r"(http://[\w.]+:\d+)", printed)) is None:
                line = process.stdout.readline()
                assert line, printed
                printed += line
            yield found[1]
        finally:
            process.terminate()
            process.wait(TIMEOUT_S)


def application(example: str, name: str, **environment: str) -> AbstractContextManager[str]:
    """An ASGI application under uvicorn on a free port; its URL."""
    command = (sys.executable, "-m", "uvicorn", name, "--port", "0")
    return program(*command, folder=EXAMPLES / example, **environment)
