"""The SQL statements have names that the type checker knows."""

from collections.abc import Callable

import msgspec
import pytest

from fluvial.storage.sqlite.queries import ADOPTION_SQL, PROJECT_SQL, SQL, parse_queries


class TwoQueries(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file with two statements."""

    load: str
    save: str


LOAD, SAVE = "-- name: load\n-- Load it.\nSELECT 1;\n", "-- name: save\n-- Save it.\nUPDATE t SET a = 1;\n"


def test_statements_are_fields_with_their_comments() -> None:
    """The text before the first name belongs to no statement."""
    queries = parse_queries(f"-- Two.\n\n{LOAD}\n{SAVE}", TwoQueries)
    assert queries == TwoQueries("-- Load it.\nSELECT 1;", "-- Save it.\nUPDATE t SET a = 1;")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LOAD, "missing required field `save`"),
        (LOAD + SAVE + LOAD.replace("load", "laod"), "unknown field `laod`"),
        (LOAD + SAVE + LOAD, "the same name: load"),
    ],
    ids=["missing", "unknown", "repeated"],
)
def test_file_and_class_with_different_names_raise(text: str, message: str) -> None:
    """In either direction, at the import of the module."""
    with pytest.raises(ValueError, match=message):
        parse_queries(text, TwoQueries)


def test_misspelt_name_is_an_error_of_type_checking() -> None:
    """The type checker reports each `type: ignore` here as unused if it finds no error in the line."""
    misspelt: list[Callable[[], str]] = [
        lambda: SQL.load_haed,  # type: ignore[attr-defined]
        lambda: ADOPTION_SQL.adopt_name,  # type: ignore[attr-defined]
        lambda: PROJECT_SQL.projekt,  # type: ignore[attr-defined]
    ]
    for load in misspelt:
        with pytest.raises(AttributeError):
            load()
