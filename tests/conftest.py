import functools
import signal
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

# A shell without job control starts what runs in the background with Ctrl-C ignored, and so does all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

#: The folders with the longest tests, the longest first. They begin first, so that no worker ends with one of them.
LONGEST_FIRST = ("e2e", "conformance", "faults", "contract", "server", "bench", "clients")
HERE = Path(__file__).parent

settings.register_profile("quick", QUICK)
settings.register_profile("soak", SOAK)
settings.load_profile("quick")  # unless --hypothesis-profile says otherwise


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[SqliteRig]:
    """A SQLite store in a folder of its own."""
    async with sqlite_rig(tmp_path / "data") as opened:
        yield opened


def _rank(item: pytest.Item) -> int:
    folder = item.path.relative_to(HERE).parts[0]
    if item.get_closest_marker("slow") is None or folder not in LONGEST_FIRST:
        return len(LONGEST_FIRST)
    return LONGEST_FIRST.index(folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order slow tests by their folders' lengths; all others keep their order."""
    items.sort(key=_rank)
