"""The statements of queries.sql, projects.sql and adoption.sql by name."""

import re
from importlib.resources import files
from types import SimpleNamespace
from typing import Final

_NAME: Final = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


def _text(file: str) -> str:
    return (files("fluvial.storage.sqlite") / file).read_text("utf-8")


def _named(file: str) -> SimpleNamespace:
    _, *parts = _NAME.split(_text(file))
    return SimpleNamespace(**dict(zip(parts[::2], map(str.strip, parts[1::2]), strict=True)))


SQL: Final = _named("queries.sql")

ADOPTION_SQL: Final = _named("adoption.sql")

PROJECT_SQL: Final = _named("projects.sql")
PROJECT_SCHEMA: Final = _text("projects_schema.sql")
