from pathlib import Path

import pytest

from fluvial.storage.limits import StoreLimits
from tests.deploy.built import build_layer, is_built
from tests.functions.conftest import import_handler, rig

__all__ = ["import_handler", "limits", "rig"]


@pytest.fixture
def limits() -> StoreLimits:
    """Limits with which four batches are enough for a segment."""
    return StoreLimits(segment_batches=4)


@pytest.fixture(scope="session")
def built() -> None:
    """Skip the test unless `make build` has run; in CI it fails."""
    if not is_built():
        pytest.skip("make build has not run")


@pytest.fixture(scope="session")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layer's packages for this machine."""
    return build_layer(tmp_path_factory.mktemp("layer"))
