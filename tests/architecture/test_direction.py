"""The tree's own rules: who imports whom, how large things are, and that the docs keep step."""

import ast
import re
import sys
from pathlib import Path

import pytest

from fluvial.model import limits
from fluvial.model.errors import ErrorCode

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "shared" / "fluvial"

#: The map of the tree: what each part may import of the package. A part never imports one that is further down.
MAY_IMPORT = {
    "model": {"model"},
    "wire": {"model", "wire"},
    "clock": {"model"},
    "concurrency": set[str](),
    "storage": {"model", "clock", "concurrency", "storage"},
    "access": {"model", "wire", "clock", "storage", "access"},
    "metrics": {"model", "storage", "metrics"},
    "operations": {"model", "wire", "clock", "storage", "access", "operations"},
    "fanout": {"model", "wire", "clock", "concurrency", "storage", "fanout"},
    "webhooks": {"model", "clock", "storage", "webhooks"},
    "subscriptions": {"model", "wire", "clock", "storage", "access", "webhooks", "subscriptions"},
    "client": {"model", "client"},
    "pricing": {"model", "pricing"},
    "server": {
        "model",
        "wire",
        "clock",
        "storage",
        "access",
        "operations",
        "fanout",
        "subscriptions",
        "metrics",
        "server",
    },
    "tracing": {"server"},
    "aws": {
        "model",
        "wire",
        "clock",
        "concurrency",
        "storage",
        "access",
        "operations",
        "fanout",
        "metrics",
        "aws",
        "lambda_client",
    },
    "settings": {"model", "settings"},
    "logs": {"metrics", "settings", "logs"},
    "observers": {"*"},
    "background": {"*"},
    "app": {"*"},
    "serve": {"*"},
    "embed": {"*"},
    "testing": {"embed"},
    "lambda_client": set[str](),
    "cli": {"*"},
    "__main__": {"cli"},
    "__init__": set[str](),
}

#: And of everybody else's packages.
MAY_DEPEND_ON = {
    "model": {"msgspec"},
    "wire": {"msgspec"},
    "clock": set[str](),
    "concurrency": set[str](),
    "storage": {"msgspec", "cachetools", "boto3", "botocore"},
    "access": {"cachetools", "jwt", "msgspec"},
    "webhooks": {"cachetools", "certifi", "cryptography", "h11", "idna"},
    "client": {"cryptography", "httpx", "msgspec"},
    "pricing": {"msgspec"},
    "metrics": {"prometheus_client"},
    "operations": set[str](),
    "fanout": {"cachetools"},
    "subscriptions": {"msgspec"},
    "server": {
        "cachetools",
        "starlette",
        "fastapi",
        "uvicorn",
        "httptools",
        "msgspec",
        "pydantic",
    },
    "aws": {"msgspec", "boto3", "botocore", "mangum", "aws_lambda_powertools", "starlette"},
    "tracing": {"msgspec", "opentelemetry"},
    "settings": {"msgspec"},
    "logs": {"structlog"},
    "observers": set[str](),
    "background": set[str](),
    "app": set[str](),
    "serve": {"uvicorn"},
    "embed": {"starlette", "uvicorn", "msgspec"},
    "testing": {"pytest"},
    "lambda_client": {"msgspec", "boto3", "botocore"},
    "cli": {"click", "msgspec", "rich", "uvloop"},
    "__main__": set[str](),
    "__init__": set[str](),
}

#: The parts that are pure: what they are told is all that they know.
PURE = ("model", "wire")

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
    """A part's modules: a folder's, or the one module."""
    module = PACKAGE / f"{part}.py"
    return [module] if module.exists() else sorted((PACKAGE / part).rglob("*.py"))


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


def test_every_part_is_on_the_map() -> None:
    """A new folder or module at the top of the package says what it may import."""
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert found == MAY_IMPORT.keys() == MAY_DEPEND_ON.keys()


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_a_part_imports_only_what_the_map_allows(part: str) -> None:
    """Of this package and of others."""
    for path in modules_of(part):
        for name in imports_of(path):
            first, *rest = name.split(".")
            if first == "fluvial":
                allowed = MAY_IMPORT[part]
                assert not rest or "*" in allowed or rest[0] in allowed, f"{path.name} imports {name}"
            elif first not in sys.stdlib_module_names:
                assert first in MAY_DEPEND_ON[part], f"{path.name} imports {name}"


@pytest.mark.parametrize(
    "path", [path for part in PURE for path in modules_of(part)], ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_model_and_wire_do_no_io(path: Path) -> None:
    """A pure module imports only pure modules, awaits nothing, and reads no clock, file or environment."""
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


@pytest.mark.parametrize("path", all_modules(), ids=lambda path: path.stem)
def test_no_outcome_of_a_write_to_dynamodb_is_dropped(path: Path) -> None:
    """A write may be in doubt, so that each caller of the table must look at what it returns."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Expr(ast.Await(ast.Call(ast.Attribute(owner, "put" | "update" | "delete" | "transact")))):
                name = owner.attr if isinstance(owner, ast.Attribute) else ast.unparse(owner)
                assert name.lstrip("_") != "table", ast.unparse(node)
            case _:
                pass
