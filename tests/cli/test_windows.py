"""Windows, simulated: a process whose platform is called so, and which has no module that Windows lacks."""

import subprocess
import sys
from pathlib import Path

import pytest

from fluvial.cli.serve import NOT_ON_WINDOWS
from fluvial.model.errors import StartupError
from fluvial.storage.sqlite.database import NOT_ON_WINDOWS as NOT_ON_WINDOWS_DATA
from fluvial.storage.sqlite.database import open_folder

PROGRAM = """
import asyncio, logging.handlers, socket, subprocess, sys, tempfile, click
for name in ("fcntl", "resource", "uvloop", "pwd", "grp"):
    sys.modules[name] = None
sys.platform = "win32"
from fluvial.cli.main import main
main(sys.argv[1:], prog_name="fluvial", windows_expand_args=False)
"""


def fluvial_on_windows(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in such a process."""
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_serve_does_not_run_on_windows_and_says_so_in_one_line(tmp_path: Path) -> None:
    """It has exit status 1, and makes no folder."""
    ran = fluvial_on_windows("serve", "--data-dir", str(tmp_path / "data"))
    assert (ran.returncode, ran.stderr) == (1, f"Error: {NOT_ON_WINDOWS}\n")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("verb", ["backup", "restore", "verify"])
def test_data_folder_is_not_cared_for_on_windows(verb: str, tmp_path: Path) -> None:
    """One line, and no traceback of an import."""
    ran = fluvial_on_windows(verb, str(tmp_path))
    assert (ran.returncode, ran.stderr) == (1, f"Error: {NOT_ON_WINDOWS_DATA}\n")


def test_data_folder_is_not_opened_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that embeds the store gets the same answer, and no folder."""
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(StartupError, match="on Windows use WSL"):
        open_folder(tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_help_and_version_run_on_windows() -> None:
    """Neither needs a module that Windows lacks."""
    assert fluvial_on_windows("--version").stdout.startswith("fluvial, version")
    assert "serve" in fluvial_on_windows("--help").stdout
