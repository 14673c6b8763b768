"""Documents that lead through the code name only what exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.architecture.test_direction import PACKAGE, ROOT, all_modules

#: Where a path in a document may begin.
BASES = (ROOT, PACKAGE, ROOT / "tests", ROOT / "docs")

GUIDES = ("docs/architecture.md", "docs/glossary.md", "CONTRIBUTING.md")


@cache
def defined_names() -> frozenset[str]:
    """Every class, function, method and constant of the package: `Class`, `Class.method`, `function`, `CONSTANT`."""
    names = set[str]()
    for path in all_modules():
        for node in ast.parse(path.read_text()).body:
            match node:
                case ast.ClassDef(name, body=body):
                    names.add(name)
                    for member in body:
                        if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef):
                            names.add(f"{name}.{member.name}")
                        elif isinstance(member, ast.AnnAssign):
                            names.add(f"{name}.{ast.unparse(member.target)}")
                case ast.FunctionDef(name) | ast.AsyncFunctionDef(name):
                    names.add(name)
                case ast.AnnAssign(target=ast.Name(name)):
                    names.add(name)
                case ast.Assign(targets=[ast.Name(name)]):
                    names.add(name)
                case _:
                    pass
    return frozenset(names)


def marked(document: str) -> list[str]:
    """What a document has between backticks, outside of code blocks."""
    text = re.sub(r"(?ms)^ *```.*?^ *```", "", (ROOT / document).read_text())
    return re.findall(r"`([^`\n]+)`", text)


@pytest.mark.parametrize("document", GUIDES)
def test_every_file_that_a_guide_names_exists(document: str) -> None:
    """From the repository's root, or from the package's, the tests' or the documents' folder."""
    paths = [
        name for name in marked(document) if re.fullmatch(r"[\w.-]+(/[\w.-]+)*(\.(py|sql|md|yaml|toml|conf)|/)", name)
    ]
    assert paths
    for path in paths:
        assert any((base / path).exists() for base in BASES), path


@pytest.mark.parametrize("document", GUIDES)
def test_every_name_of_code_that_a_guide_names_exists(document: str) -> None:
    """`Class`, `Class.method` and `function()`."""
    for name in marked(document):
        if re.fullmatch(r"[A-Z][a-z]\w*(\.\w+)?(\(\))?|[a-z_]\w+\(\)", name) and "_" not in name.split(".")[0][:1]:
            assert name.removesuffix("()") in defined_names(), name


def test_each_term_of_the_glossary_has_an_owner_and_comes_once() -> None:
    """A second entry would be a second meaning."""
    rows = [
        line.split("|")[1:-1]
        for line in (ROOT / "docs" / "glossary.md").read_text().splitlines()
        if line.startswith("| ")
    ]
    terms = [row for row in rows if row[0].strip() not in {"Term", "---"}]
    names = [term.strip() for row in terms for term in row[0].split(",")]
    assert len(names) == len(set(names))
    for row in terms:
        assert (PACKAGE / row[2].strip(" `")).is_file(), row


@pytest.mark.parametrize("path", all_modules(), ids=lambda path: path.stem)
def test_prose_names_its_subject(path: Path) -> None:
    """A sentence about "whoever" or "nobody" hides who it is about, and cannot be searched."""
    assert not re.findall(r"(?i)\b(whoever|nobody|somebody|whomever|lest)\b", path.read_text())
