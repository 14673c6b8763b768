"""The servers under test: each in a process of its own, all of them up, one of them busy at a time."""

import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Contender:
    """A server that is up."""

    name: str
    url: str
    process: subprocess.Popen[str]

    @property
    def resident_mib(self) -> float:
        """What it has in memory now."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1_024
        raise RuntimeError("no VmRSS")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def contender(
    name: str, command: list[str], log: IO[bytes] | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Contender]:
    """Run a server until the end of the block; `log` gets its log, and `environment` is its whole environment."""
    process = subprocess.Popen(
        command,
        cwd=HERE.parent if command[1] == "-m" else HERE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if log is None else log,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if "serves " in line:
                url = line.split("serves ")[1].split("/v1/stream/")[0]
                yield Contender(name, url, process)
                return
        raise RuntimeError(f"{name} did not start: {' '.join(command)}")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _fluvial(folder: Path) -> list[str]:
    command = [sys.executable, "-m", "fluvial", "serve", "--port", "0", "--data-dir", str(folder)]
    return [*command, "--webhooks-to-localhost"]


@contextmanager
def contenders(folder: Path) -> Iterator[list[Contender]]:
    """This server on SQLite, and the reference server with files and in memory."""
    (folder / "reference").mkdir()
    reference = ["node", "reference.mjs"]
    with ExitStack() as stack:
        yield [
            stack.enter_context(contender("fluvial", _fluvial(folder / "fluvial"))),
            stack.enter_context(contender("file", [*reference, str(_free_port()), str(folder / "reference")])),
            stack.enter_context(contender("memory", [*reference, str(_free_port())])),
        ]


@contextmanager
def fluvial_alone(folder: Path) -> Iterator[Contender]:
    """This server on a folder of its own."""
    with contender("fluvial", _fluvial(folder)) as alone:
        yield alone
