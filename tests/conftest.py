from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.rigs import SqliteRig, sqlite_rig


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[SqliteRig]:
    """A SQLite store in a folder of its own."""
    async with sqlite_rig(tmp_path / "data") as opened:
        yield opened
