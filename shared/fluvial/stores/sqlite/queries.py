"""The statements of queries.sql by name."""

import re
from importlib.resources import files
from types import SimpleNamespace
from typing import Final

_NAME: Final = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


def _load() -> SimpleNamespace:
    text = (files("fluvial.stores.sqlite") / "queries.sql").read_text("utf-8")
    _, *parts = _NAME.split(text)
    return SimpleNamespace(**dict(zip(parts[::2], map(str.strip, parts[1::2]), strict=True)))


SQL: Final = _load()
