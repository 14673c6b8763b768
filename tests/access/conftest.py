from tests.functions.conftest import import_handler, limits, rig

__all__ = ["import_handler", "limits", "rig"]
