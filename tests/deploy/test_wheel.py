"""The wheel alone, in an empty environment and outside of the clone: what a user of a package index gets."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tools.release.__main__ import build
from tools.release.checks import check_built

from fluvial import __version__
from tests.support.servers import BANNER

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).parent / "uv"
TIMEOUT_S = 60

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wheel")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a release, or one that is built now."""
    if "FLUVIAL_WHEEL" in os.environ:
        return Path(os.environ["FLUVIAL_WHEEL"])
    built, sdist = build(ROOT, tmp_path_factory.mktemp("dist"))
    check_built(built, sdist, __version__)
    return built


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment that has the wheel, and what it needs by the lock."""
    environment = tmp_path_factory.mktemp("empty")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    install = [str(UV), "pip", "install", "--quiet", "--no-config", "--python", str(environment / "bin" / "python")]
    variables = {**os.environ, "UV_SYSTEM_CERTS": "1"}
    lock = ["--require-hashes", "-r", str(ROOT / "requirements" / "run.txt")]
    for what in (lock, ["--no-deps", str(wheel)]):
        subprocess.run([*install, *what], env=variables, check=True, timeout=300)
    return environment / "bin"


def run(programs: Path, folder: Path, *command: str) -> str:
    """What a command prints, in an empty folder and without this clone on any path."""
    path = f"{programs}:/usr/bin:/bin"
    ran = subprocess.run(
        command, cwd=folder, env={"PATH": path}, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@contextmanager
def serving(programs: Path, folder: Path) -> Iterator[str]:
    """The server of the wheel on a free port, with its data in the folder; its address."""
    command = [str(programs / "fluvial"), "serve", "--port", "0"]
    process = subprocess.Popen(command, cwd=folder, env={"PATH": str(programs)}, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        found = BANNER.search(process.stdout.readline())
        assert found is not None
        yield found[1].removeprefix("http://")
    finally:
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0
        process.stdout.close()


def test_wheel_has_every_file_of_the_package(wheel: Path, programs: Path) -> None:
    """Also those that are no modules: SQL, static files, py.typed."""
    [installed] = programs.parent.glob("lib/python*/site-packages/fluvial")
    package = ROOT / "shared" / "fluvial"
    expected = {one.relative_to(package) for one in package.rglob("*") if one.is_file() and one.suffix != ".pyc"}
    assert expected == {
        one.relative_to(installed) for one in installed.rglob("*") if one.suffix != ".pyc" and one.is_file()
    }
    assert wheel.name == f"fluvial-{__version__}-py3-none-any.whl"


def test_program_and_module_tell_their_version(programs: Path, tmp_path: Path) -> None:
    """They import from the environment, not from this clone."""
    assert run(programs, tmp_path, "fluvial", "--version") == f"fluvial, version {__version__}\n"
    assert run(programs, tmp_path, "python", "-m", "fluvial", "--version") == f"fluvial, version {__version__}\n"
    found = run(programs, tmp_path, "python", "-c", "import fluvial; print(fluvial.__file__)")
    assert Path(found).is_relative_to(programs.parent)


def quick_start() -> list[tuple[str, list[str]]]:
    """The README's curl commands, each with the lines that it says they print."""
    [block] = re.findall(r"```console\n(\$ curl .*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    commands = [command.splitlines() for command in re.split(r"(?m)^\$ ", block) if command]
    return [(lines[0], lines[1:]) for lines in commands]


def without_numbers(lines: list[str]) -> list[str]:
    """Offsets, cursors and pauses differ each time."""
    return [re.sub(r"\d{3,}", "N", line) for line in lines]


def test_commands_of_the_readme_print_what_it_says(programs: Path, tmp_path: Path) -> None:
    """In the order of the README, with the server of the wheel."""
    commands = quick_start()
    assert len(commands) > 3
    with serving(programs, tmp_path) as address:
        for command, expected in commands:
            words = shlex.split(command.replace("localhost:4437", address))
            with subprocess.Popen([words[0], "-sS", *words[1:]], stdout=subprocess.PIPE, text=True) as curl:
                assert curl.stdout is not None
                if expected:  # the last command follows the stream, so its end never comes
                    text = "".join(curl.stdout.readline() for _ in expected)
                    assert without_numbers(text.splitlines()) == without_numbers(expected)
                    curl.terminate()
                else:
                    assert curl.wait(TIMEOUT_S) == 0, command
    assert (tmp_path / "fluvial-data" / "fluvial.db").exists()
