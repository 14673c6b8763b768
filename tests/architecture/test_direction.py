"""The tree's own rules: who imports whom, how large things are, and that the docs keep step."""

import ast
import re
import sys
from pathlib import Path

import pytest

from fluvial.core import limits
from fluvial.core.errors import ErrorCode

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "shared" / "fluvial"

#: What each part may import of the package; what is on the left of the design's arrow knows nothing of the right.
MAY_IMPORT = {
    "core": {"core"},
    "stores": {"core", "stores", "world"},
    "access": {"core", "stores", "access", "world"},
    "operations": {"core", "stores", "operations", "world"},
    "fanout": {"core", "stores", "fanout", "world"},
    "transports": {"core", "stores", "access", "operations", "fanout", "transports", "world"},
    "triggers": {"core", "stores", "access", "operations", "fanout", "triggers", "append_client", "world"},
}

#: And of everybody else's packages.
MAY_DEPEND_ON = {
    "core": {"msgspec"},
    "stores": {"msgspec", "cachetools", "boto3", "botocore"},
    "operations": set[str](),
    "access": {"cachetools", "jwt", "msgspec"},
    "fanout": {"cachetools"},
    "triggers": {"msgspec", "boto3", "botocore"},
    "transports": {
        "cachetools",
        "starlette",
        "fastapi",
        "prometheus_client",
        "uvicorn",
        "httptools",
        "msgspec",
        "mangum",
        "pydantic",
    },
}

IMPURE_MODULES = {
    "os",
    "io",
    "time",
    "random",
    "secrets",
    "uuid",
    "socket",
    "asyncio",
    "threading",
    "sqlite3",
    "pathlib",
}
IMPURE_NAMES = {"open", "print", "input", "now", "utcnow", "today", "environ", "uuid4", "urandom"}


def modules_of(part: str) -> list[Path]:
    """A part's modules."""
    return sorted((PACKAGE / part).rglob("*.py"))


def all_modules() -> list[Path]:
    """Every module of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def imports_of(path: Path) -> set[str]:
    """The dotted names of all that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by a relative name"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_imports_point_to_the_left(part: str) -> None:
    """Core <- stores <- access, operations, fanout <- transports, triggers <- bootstrap."""
    for path in modules_of(part):
        for name in imports_of(path):
            first, *rest = name.split(".")
            if first == "fluvial":
                assert not rest or rest[0] in MAY_IMPORT[part], f"{path.name} imports {name}"
            elif first not in sys.stdlib_module_names:
                assert first in MAY_DEPEND_ON[part], f"{path.name} imports {name}"


@pytest.mark.parametrize("path", modules_of("core"), ids=lambda path: path.stem)
def test_core_does_no_io(path: Path) -> None:
    """A core module imports only what is pure, awaits nothing, and names nothing that reads the world."""
    tree = ast.parse(path.read_text())
    assert not {name.split(".")[0] for name in imports_of(path)} & IMPURE_MODULES
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not names & IMPURE_NAMES
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await)]


def test_no_module_is_too_long_to_hold_in_mind() -> None:
    """400 lines a module, 50 a function, 5 parameters."""
    for path in all_modules():
        text = path.read_text()
        assert text.count("\n") <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 50, f"{path}: {node.name}"
                count = len([one for one in node.args.args if one.arg not in {"self", "cls"}])
                assert count <= 5, f"{path}: {node.name}"


def test_modules_are_named_for_what_they_hold() -> None:
    """Not for being useful."""
    for path in all_modules():
        assert not re.search(r"(^|_)(utils?|helpers?|manager|common|misc|base)(_|$)", path.stem), path


def test_every_error_code_and_limit_is_documented() -> None:
    """In docs/limits-and-errors.md, with the value that the code has."""
    text = (ROOT / "docs" / "limits-and-errors.md").read_text()
    for code in ErrorCode:
        assert f"`{code.value}`" in text, code
    for name, value in vars(limits).items():
        if name.isupper() and isinstance(value, int):
            assert f"| `{name}` | {value:,} |" in text, name


def test_every_claim_about_security_has_its_test() -> None:
    """docs/security.md names a test for each, and all that it names are there."""
    text = (ROOT / "docs" / "security.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", text))
    there = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    assert named <= there, named - there
    protected = text.partition("## What is not protected")[0]
    for claim in re.findall(r"^- .*?(?=^- |^\n|\Z)", protected, re.MULTILINE | re.DOTALL):
        assert "`test_" in claim, claim


@pytest.mark.parametrize("path", sorted((ROOT / "tests").glob("**/test_*.py")), ids=lambda path: path.stem)
def test_no_test_changes_a_constant(path: Path) -> None:
    """A limit that tests want small is passed in: a constant that is imported by value is in several modules."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = list[str]()
        match node:
            case ast.Call(func=ast.Attribute(attr="setattr") | ast.Name(id="setattr"), args=args):
                texts = [one.value for one in args[:2] if isinstance(one, ast.Constant)]
                names = [text.rsplit(".", 1)[-1] for text in texts if isinstance(text, str)]
            case ast.Assign(targets=targets):
                names = [one.attr for target in targets for one in ast.walk(target) if isinstance(one, ast.Attribute)]
            case _:
                pass
        assert not [name for name in names if re.fullmatch(r"[A-Z][A-Z0-9_]+", name)], ast.unparse(node)
