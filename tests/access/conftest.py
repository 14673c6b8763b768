from tests.functions.conftest import import_handler, rig

__all__ = ["import_handler", "rig"]
