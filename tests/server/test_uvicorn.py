"""uvicorn's private classes, which this package subclasses: a change in them fails here, so that it is read first.

The list of what must not change is derived from this package's source, so it cannot fall behind the code:

1. Subclasses of uvicorn's classes are found in all modules that import uvicorn.
2. A method of a base class has a fingerprint if a subclass overrides or calls it. A method that uvicorn adds under the
   name of one of ours is found, too.
3. A module of uvicorn's has a fingerprint if it defines such a base class, if a name is imported from it, or if it
   defines the type of an inherited attribute that is used, e.g. FlowControl for `self.flow`. So changes of other
   methods and of attributes are noticed as well.
"""

import ast
import hashlib
import inspect
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

import fluvial

ROOT = Path(__file__).parents[2]
PACKAGE = Path(fluvial.__file__).parent

#: The source that this package was written against, by the start of its SHA-256.
FINGERPRINTS = {
    "uvicorn._types": "94e0216182e9",
    "uvicorn.protocols.http.flow_control": "d39d16560df5",
    "uvicorn.protocols.http.httptools_impl": "1d4e1c579df4",
    "uvicorn.protocols.websockets.websockets_sansio_impl": "8b32a97a1608",
    "uvicorn.server": "c1be9d133467",
    "HttpToolsProtocol._should_upgrade": "8fcad1ab8e09",
    "HttpToolsProtocol._start_asgi_task": "9c08c2571ae9",
    "HttpToolsProtocol.connection_lost": "c91a4c9bf2e2",
    "HttpToolsProtocol.connection_made": "6efb565ff3d3",
    "HttpToolsProtocol.data_received": "010a7ae59a5d",
    "HttpToolsProtocol.eof_received": "5652627579a0",
    "HttpToolsProtocol.handle_websocket_upgrade": "179c4f769386",
    "HttpToolsProtocol.on_body": "dba9c32aeba3",
    "HttpToolsProtocol.on_header": "65d62c044f61",
    "HttpToolsProtocol.on_headers_complete": "1ea8589acfad",
    "HttpToolsProtocol.on_message_begin": "96d377fdc7c2",
    "HttpToolsProtocol.on_message_complete": "1fbad42dc31f",
    "HttpToolsProtocol.on_response_complete": "64e254f28e38",
    "HttpToolsProtocol.on_url": "37be44e962b0",
    "RequestResponseCycle.receive": "8124ae006be7",
    "RequestResponseCycle.send": "abdd8601b326",
    "Server.__init__": "c150b55284f7",
    "Server.capture_signals": "e1bbcd4770d1",
    "WebSocketsSansIOProtocol.send": "d4919ed760ce",
}


def uvicorn_imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """The module and the name of each import from uvicorn; `import uvicorn`, its public part, has an empty name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "uvicorn":
            yield from ((node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.partition(".")[0] == "uvicorn"]
            yield from ((name, name.partition(".")[2]) for name in names)


def importing_modules() -> Iterator[tuple[ModuleType, list[tuple[str, str]]]]:
    """The modules of this package that import uvicorn, each with its imports."""
    for path in sorted(PACKAGE.rglob("*.py")):
        imports = list(uvicorn_imports(ast.parse(path.read_text())))
        if imports:
            name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
            yield import_module(name.removesuffix(".__init__")), imports


def bases(child: type) -> list[type]:
    """The base classes of a class that are uvicorn's."""
    return [one for one in child.__mro__ if one.__module__.partition(".")[0] == "uvicorn"]


def subclasses() -> list[type]:
    """This package's classes with a base class of uvicorn's."""
    values = [value for module, _ in importing_modules() for value in vars(module).values()]
    classes = dict.fromkeys(one for one in values if inspect.isclass(one))  # a class that is imported comes again
    return [one for one in classes if one.__module__.startswith("fluvial.") and bases(one)]


def class_tree(one: type) -> ast.AST:
    """The syntax of a class."""
    return ast.parse(textwrap.dedent(inspect.getsource(one)))


def names_of_self(child: type) -> set[str]:
    """The attributes that a class uses of its instances: `self.name` and `super().name`."""
    found = set()
    for node in ast.walk(class_tree(child)):
        match node:
            case ast.Attribute(value=ast.Name(id="self") | ast.Call(func=ast.Name(id="super")), attr=name):
                found.add(name)
            case _:
                pass
    return found


def methods(child: type) -> Iterator[tuple[str, object, str]]:
    """The methods of uvicorn's that a class overrides or calls: the name, the method, and how the class uses it."""
    own = {name for name in vars(child) if name == "__init__" or not name.startswith("__")}
    for base in bases(child):
        for name in sorted((own | names_of_self(child)) & vars(base).keys()):
            method = vars(base)[name]
            if inspect.isroutine(method):
                use = f"{child.__module__}.{child.__name__} {'overrides' if name in own else 'calls'} it"
                yield f"{base.__name__}.{name}", method, use


def attribute_types(base: type) -> Iterator[tuple[str, str]]:
    """The attributes that a class of uvicorn's sets in `__init__`, each with the names in its type."""
    [function] = [
        node for node in ast.walk(class_tree(base)) if isinstance(node, ast.FunctionDef) and node.name == "__init__"
    ]
    parameters = {one.arg: one.annotation for one in function.args.args}
    for node in ast.walk(function):
        annotation: ast.expr | None = None
        attribute = ""
        match node:
            case ast.AnnAssign(target=ast.Attribute(value=ast.Name(id="self"), attr=attribute), annotation=annotation):
                pass
            case ast.Assign(
                targets=[ast.Attribute(value=ast.Name(id="self"), attr=attribute)], value=ast.Name(id=parameter)
            ):
                annotation = parameters.get(parameter)
            case _:
                pass
        if annotation is not None:
            yield from ((attribute, part.id) for part in ast.walk(annotation) if isinstance(part, ast.Name))


def modules() -> Iterator[tuple[str, str]]:
    """The modules of uvicorn's that this package relies on: the name and the use, one pair for each use."""
    for module, imports in importing_modules():
        yield from ((name, f"{module.__name__} imports {symbol}") for name, symbol in imports if symbol)
    for child in subclasses():
        for base in bases(child):
            yield base.__module__, f"{child.__module__}.{child.__name__} extends {base.__name__}"
            for attribute, name in attribute_types(base):
                home = getattr(vars(sys.modules[base.__module__]).get(name), "__module__", "")
                if attribute in names_of_self(child) and home.startswith("uvicorn."):
                    yield home, f"{child.__module__}.{child.__name__} uses self.{attribute}, of {name}"


def fingerprint(source: object) -> str:
    """The start of the SHA-256 of an object's source."""
    return hashlib.sha256(inspect.getsource(source).encode()).hexdigest()[:12]  # type: ignore[arg-type]


def relied_on() -> dict[str, tuple[str, set[str]]]:
    """The modules and methods that must not change: the fingerprint of each, and its uses in this package."""
    found: dict[str, tuple[str, set[str]]] = {}
    for name, use in modules():
        found.setdefault(name, (fingerprint(import_module(name)), set()))[1].add(use)
    for child in subclasses():
        for name, method, use in methods(child):
            found.setdefault(name, (fingerprint(method), set()))[1].add(use)
    return found


def test_uvicorn_is_unchanged_where_it_is_overridden_or_relied_on() -> None:
    """Read what has changed, adapt the classes named in the message, and then note the new fingerprints."""
    found = relied_on()
    problems = [
        f'{name} has changed, or is newly used: {"; ".join(sorted(uses))}. Read it, then note "{name}": "{digest}".'
        for name, (digest, uses) in found.items()
        if FINGERPRINTS.get(name) != digest
    ]
    problems += [
        f"{name} is gone from uvicorn, or not used any more: look for code that overrides or calls it, then remove it."
        for name in FINGERPRINTS.keys() - found.keys()
    ]
    assert not problems, "\n".join(problems)


def test_override_call_and_attribute_are_found_in_a_subclass() -> None:
    """They are not listed by hand."""

    class Child(HttpToolsProtocol):
        def shutdown(self) -> None:
            self._unset_keepalive_if_required()
            self.flow.resume_reading()
            super().shutdown()

        def stop(self) -> None:
            self.shutdown()

    uses = {name: use.rsplit(" ", 2)[1] for name, _, use in methods(Child)}
    assert uses == {
        "HttpToolsProtocol.shutdown": "overrides",
        "HttpToolsProtocol._unset_keepalive_if_required": "calls",
    }
    assert "flow" in names_of_self(Child)
    assert ("flow", "FlowControl") in set(attribute_types(HttpToolsProtocol))


def test_uvicorn_is_pinned_to_the_version_that_was_read() -> None:
    """An installation of the wheel gets no other minor version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [pin] = [one for one in project["dependencies"] if one.startswith("uvicorn")]
    major, minor, *_ = version("uvicorn").split(".")
    assert pin == f"uvicorn>={major}.{minor},<{major}.{int(minor) + 1}"
