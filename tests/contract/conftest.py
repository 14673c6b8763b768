from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.rigs import RIGS, STORES, Rig


@pytest.fixture(params=STORES)
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    """Each store in turn."""
    async with RIGS[request.param](tmp_path / "data") as opened:
        yield opened
