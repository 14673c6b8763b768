"""Compares a server's answers with its OpenAPI document, by schemathesis' checks and one for error codes."""

import re
from collections import Counter
from copy import deepcopy
from typing import Any

import httpx
import schemathesis
from schemathesis.checks import CheckContext, not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

Json = dict[str, Any]
Route = tuple[str, str]

#: Answered wherever GET is, and on every path. The document says so in its text.
IN_TEXT = {"HEAD", "OPTIONS"}


def error_code_conformance(_context: CheckContext, response: Response, case: schemathesis.Case[Any]) -> None:
    """An error has one of the codes that are documented for its status."""
    answer = case.operation.definition.raw["responses"][str(response.status_code)]
    documented = answer.get("x-error-codes")
    if documented is None or case.method == "HEAD":
        return
    code = response.json()["error"]["code"]
    assert code in documented, f"{case.method} {case.operation.path} answers {response.status_code} {code}"


CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
    error_code_conformance,
]


class ApiDocument:
    """A document. `answers` counts what has been compared with it, by route and status."""

    def __init__(self, document: Json, root: str = "") -> None:
        """Streams are documented below /v1/stream/, and looked for below a `root` there, e.g. a project."""
        document = _with_closed_bodies(document)
        self._root = root
        document["paths"] = {
            path.replace("/v1/stream/", f"/v1/stream/{root}"): one for path, one in document["paths"].items()
        }
        self.schema = schemathesis.openapi.from_dict(document)
        self.schema.config.generation.update(with_security_parameters=False)
        self.operations = [found.ok() for found in self.schema.get_all_operations() if isinstance(found, Ok)]
        self._patterns = [(_pattern(one.path), one) for one in sorted(self.operations, key=_specificity)]
        self.answers = Counter[tuple[str, str, int]]()

    def check(self, response: httpx.Response) -> None:
        """Compare an answer with the document; a hook of httpx."""
        response.read()
        method, path = response.request.method, response.request.url.raw_path.partition(b"?")[0].decode()
        for pattern, operation in self._patterns:
            placed = pattern.fullmatch(path)
            if placed is not None and operation.method.upper() == method:
                self.check_case(operation.Case(path_parameters=placed.groupdict()), response)
                return
        assert method in IN_TEXT or path == "/openapi.json", f"{method} {path} is not documented"

    def check_case(self, case: schemathesis.Case[Any], response: httpx.Response | Response) -> None:
        """Compare the answer to a generated request with the document."""
        case.validate_response(response, checks=CHECKS)
        self.answers[case.operation.method.upper(), case.operation.path, response.status_code] += 1


def documented_routes(document: Json) -> set[Route]:
    """The methods and paths of a document."""
    paths = document["paths"].items()
    return {(method.upper(), path) for path, methods in paths for method in methods if method != "parameters"}


def _with_closed_bodies(document: Json) -> Json:
    """The document, but a body has no properties that are not documented. Clients must expect new ones."""
    document = deepcopy(document)
    for schema in document["components"]["schemas"].values():
        if schema.get("type") == "object":
            schema["additionalProperties"] = False
    return document


def _specificity(operation: Any) -> tuple[int, int]:  # noqa: ANN401  a generic type of schemathesis
    """Paths with few placeholders first, and the longer ones of them."""
    return operation.path.count("{"), -len(operation.path)


def _pattern(path: str) -> re.Pattern[str]:
    pattern = re.sub(
        r"\\{(\w+)\\}", lambda found: f"(?P<{found[1]}>{'.+' if found[1] == 'stream' else '[^/]+'})", re.escape(path)
    )
    return re.compile(pattern)
