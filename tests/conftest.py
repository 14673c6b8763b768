import functools
from collections.abc import AsyncIterator
from pathlib import Path

import botocore.loaders
import botocore.session
import pytest
from hypothesis import settings

from tests.support.budget import QUICK, SOAK
from tests.support.rigs import SqliteRig, sqlite_rig

# Each session of botocore's parses the services' models anew, which takes ten times as long as all else that a store on
# DynamoDB begins with. Here sessions share one loader, which keeps what it has read.
botocore.session.create_loader = functools.cache(botocore.loaders.create_loader)

settings.register_profile("quick", QUICK)
settings.register_profile("soak", SOAK)
settings.load_profile("quick")  # unless --hypothesis-profile says otherwise


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[SqliteRig]:
    """A SQLite store in a folder of its own."""
    async with sqlite_rig(tmp_path / "data") as opened:
        yield opened
