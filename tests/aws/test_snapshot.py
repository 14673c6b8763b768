"""SnapStart: environments that start from one snapshot do not draw the same pseudorandom numbers."""

import random
import sys
from collections.abc import Callable
from types import ModuleType

import pytest

from fluvial.aws.snapshot import reseed_after_restore


def test_restored_environments_draw_different_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lambda's runtime has the module of hooks."""
    hooks, registered = ModuleType("snapshot_restore_py"), list[Callable[[], None]]()
    monkeypatch.setattr(hooks, "register_after_restore", registered.append, raising=False)
    monkeypatch.setitem(sys.modules, "snapshot_restore_py", hooks)
    reseed_after_restore()
    snapshot, drawn = random.getstate(), set[float]()
    try:
        for _ in range(2):
            random.setstate(snapshot)
            for restore in registered:
                restore()
            drawn.add(random.random())
    finally:
        random.setstate(snapshot)
    assert len(drawn) == 2


def test_nothing_is_registered_outside_of_lambda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other Pythons have no such module."""
    monkeypatch.setitem(sys.modules, "snapshot_restore_py", None)
    reseed_after_restore()
