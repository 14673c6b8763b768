import pytest

from fluvial.storage.limits import StoreLimits
from tests.functions.conftest import import_handler, rig

__all__ = ["import_handler", "limits", "rig"]


@pytest.fixture
def limits() -> StoreLimits:
    """Limits with which four batches are enough for a segment."""
    return StoreLimits(segment_batches=4)
