"""The OpenAPI document against the code: no method, status, error code or header field is missing."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import fluvial
from fluvial.model.errors import ErrorCode
from fluvial.server.control.app import CONTROL_PERMISSIONS
from fluvial.server.control.openapi.control_operations import CONTROL_OPERATIONS
from fluvial.server.control.openapi.document import document_path
from fluvial.server.control.openapi.errors import BEFORE_ROUTING, CODES
from fluvial.server.control.openapi.subscription_operations import documented_path
from fluvial.server.streams import METHODS
from fluvial.server.subscriptions import PERMISSIONS as SUBSCRIPTION_PERMISSIONS
from fluvial.wire.cors import cors_headers, preflight_response
from fluvial.wire.request import CACHE_KEY
from tests.access.test_matrix import application
from tests.support.api_document import ApiDocument, documented_routes

PACKAGE = Path(fluvial.__file__).parent
ERRORS_PAGE = Path(__file__).parents[2] / "docs" / "limits-and-errors.md"
STREAM = "/v1/stream/{stream}"

#: The document itself.
UNDOCUMENTED = {("GET", "/openapi.json")}

#: What is not answered over HTTP by the server: events of AWS, and commands.
OTHER_DOORS = {"aws", "cli", "adoption.py"}

Json = dict[str, Any]


@pytest.fixture(scope="module")
def document() -> Json:
    """The document of the application."""
    return application().openapi()


def stream_methods(document: Json) -> dict[str, Json]:
    """The methods of streams."""
    return {method: one for method, one in document["paths"][STREAM].items() if method != "parameters"}


def test_every_route_is_documented_with_its_answers(document: Json) -> None:
    """Those that FastAPI serves, and the methods of streams."""
    routes = {(method, document_path(path)) for method, path in CONTROL_PERMISSIONS} - UNDOCUMENTED
    streams = {(method, STREAM) for method in METHODS.split(", ")}
    subscriptions = {
        (method, documented_path(route)) for route, methods in SUBSCRIPTION_PERMISSIONS.items() for method in methods
    }
    assert documented_routes(document) == routes | streams | subscriptions
    assert CONTROL_OPERATIONS.keys() == CONTROL_PERMISSIONS.keys() - UNDOCUMENTED


@pytest.mark.medium
def test_openapi_document_is_valid_and_names_every_operation(document: Json) -> None:
    """Generated clients get their functions' names from it, and pages their sections."""
    described = ApiDocument(document)
    described.schema.validate()
    operations = [one.definition.raw for one in described.operations]
    assert len({one["operationId"] for one in operations}) == len(operations)
    assert {tag for one in operations for tag in one["tags"]} == {tag["name"] for tag in document["tags"]}
    assert "422" not in {status for one in operations for status in one["responses"]}


def test_every_error_code_is_documented_with_its_status(document: Json) -> None:
    """In the document and on the page of errors; those of requests that cannot be read are in the document's text."""
    text = ERRORS_PAGE.read_text().partition("## Limits")[0]
    page = dict(re.findall(r"^\| `([A-Za-z_]+)` \| ([\d, ]+) \|", text, re.MULTILINE))
    on_page = {(code, int(status)) for code, statuses in page.items() for status in statuses.split(", ")}
    known = {(code.value, status) for status, codes in CODES.items() for code in codes}
    assert known == on_page
    routes = [one for methods in document["paths"].values() for name, one in methods.items() if name != "parameters"]
    listed = {
        (code, int(status))
        for one in routes
        for status, answer in one["responses"].items()
        for code in answer.get("x-error-codes", ())
    }
    before = {(code, status) for code, status in known if ErrorCode(code) in BEFORE_ROUTING}
    assert listed == known - before
    assert all(str(status) in document["info"]["description"] for _code, status in before)
    assert set(document["components"]["schemas"]["ErrorCode"]["enum"]) == {code.value for code in ErrorCode}


def errors_in_code() -> Iterator[tuple[ErrorCode, int]]:
    """The codes and statuses of the errors that the package makes where both are literal."""
    for path in PACKAGE.rglob("*.py"):
        if OTHER_DOORS & set(path.parts):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(ast.Name("RequestError"), [ast.Attribute(ast.Name("ErrorCode"), name), _]):
                    yield ErrorCode[name], 400
                case ast.Call(ast.Name("RequestError"), [ast.Attribute(_, name), _, ast.Constant(int(status)), *_]):
                    yield ErrorCode[name], status
                case ast.Call(
                    ast.Name("Rejection" | "error_response"),
                    [ast.Constant(int(status)), ast.Attribute(_, name), *_],
                ):
                    yield ErrorCode[name], status
                case _:
                    pass


def test_every_status_in_code_is_documented(document: Json) -> None:
    """Of errors, and of the answers to requests on streams that are carried out."""
    errors = set(errors_in_code())
    assert len(errors) > 40
    assert not {(code, status) for code, status in errors if code not in CODES[status]}
    tree = ast.parse((PACKAGE / "wire" / "response.py").read_text())
    successes = {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"Response", "_empty_response"}
        and isinstance(node.args[0], ast.Constant)
    }
    documented = {int(status) for one in stream_methods(document).values() for status in one["responses"]}
    assert successes == {status for status in documented if status < 400}


def test_every_field_of_requests_and_answers_is_documented(document: Json) -> None:
    """Those that pages may send and read: each new field is added to CORS, because it would be of no use otherwise."""
    methods = stream_methods(document).values()
    answers = [answer for one in methods for answer in one["responses"].values()]
    fields = {name for answer in answers for name in answer.get("headers", {})}
    exposed = dict(cors_headers(("*",), b"https://app.example"))[b"access-control-expose-headers"].decode().split(", ")
    assert set(exposed) - fields == {"X-Amzn-Remapped-WWW-Authenticate"}
    parameters = {(field["in"], field["name"]) for one in methods for field in one["parameters"]}
    allowed = dict(preflight_response("", {}).headers)[b"access-control-allow-headers"].decode().split(", ")
    standard = {"Content-Type", "Authorization"}  # which OpenAPI has places of their own for
    assert {name for place, name in parameters if place == "header"} >= set(allowed) - standard
    assert {name for place, name in parameters if place == "query"} == {*CACHE_KEY, "public"}


async def test_openapi_document_of_a_mounted_server_has_its_prefix() -> None:
    """So that generated clients find it below the prefix."""
    transport = httpx.ASGITransport(application(), root_path="/below")
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        answer = await client.get("/below/openapi.json")
    assert answer.json()["servers"][0]["url"] == "/below"


@pytest.mark.medium
def test_control_routes_load_descriptions_only_when_they_are_asked_for() -> None:
    """A function that starts should not wait for them."""
    code = (
        "import sys, fluvial.server.control.app\n"
        "sys.exit(any(name.startswith('fluvial.server.control.openapi') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
