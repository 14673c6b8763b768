"""Folders that the tests of care share."""

from pathlib import Path
from shutil import copytree

import pytest

from tests.care.folders import back_up, make_full_folder


@pytest.fixture(scope="session")
def _full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once, because a server has to start for it."""
    folder = tmp_path_factory.mktemp("care") / "full"
    make_full_folder(folder)
    return folder


@pytest.fixture
def killed(_full: Path, tmp_path: Path) -> Path:
    """A data folder with something of everything, as a killed server leaves it."""
    return Path(copytree(_full, tmp_path / "killed"))


@pytest.fixture
def stopped(_full: Path, tmp_path: Path) -> Path:
    """The same, as a server that was stopped leaves it."""
    return Path(copytree(_full.with_name("running"), tmp_path / "stopped"))


@pytest.fixture
def backup(killed: Path, tmp_path: Path) -> Path:
    """A backup of the folder that a killed server has left."""
    back_up(killed, tmp_path / "backup")
    return tmp_path / "backup"
