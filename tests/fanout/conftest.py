from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.estuaries import FanOutRig
from tests.support.rigs import RIGS, STORES


@pytest.fixture(params=STORES)
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[FanOutRig]:
    """Fan-out over each store in turn."""
    async with RIGS[request.param](tmp_path / "data") as opened:
        yield FanOutRig(opened)
