"""The pytest plugin: the fixture `fluvial`, a server in memory of the test's own (docs/embedding.md).

pytest imports this module in every run where the package is installed, so the server is imported by the fixture.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fluvial.embed import Fluvial


@pytest.fixture
def fluvial_settings() -> dict[str, Any]:
    """The settings of the fixture `fluvial`, for a project to override: those of `fluvial serve` by their names."""
    return {}


@pytest.fixture
def fluvial(fluvial_settings: dict[str, Any]) -> "Iterator[Fluvial]":
    """An empty server in memory that listens at `fluvial.url` until the test ends, for plain and for async tests."""
    from fluvial.embed import Fluvial  # noqa: PLC0415  half a second, which only tests that use it pay

    with Fluvial(store="memory", **fluvial_settings) as server:
        yield server
